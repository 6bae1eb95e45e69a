"""Processors: a family's image preparation and the tokenizer that belongs to a checkpoint.

The original files come without a tokenizer; it is looked for beside them and in the local
Hugging Face cache, and never downloaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import try_to_load_from_cache
from transformers import (
    BertTokenizer,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTokenizer,
)
from transformers.image_utils import PILImageResampling

from madtp_cli.checkpoint.formats.salesforce_blip import IMAGE_MEAN, IMAGE_STD
from madtp_cli.errors import CheckpointError

Tokenizer: TypeAlias = BertTokenizer | CLIPTokenizer
Processor: TypeAlias = BlipProcessor | CLIPProcessor

#: Begins a decoder's text, and a text that looks at an image; BLIP's last two word pieces.
DECODER, ENCODER = "[DEC]", "[ENC]"


#: Files beside a checkpoint that may say how its images are prepared, transformers' and OpenCLIP's; and under which
#: name some of them hold it.
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json", "preprocess_config.json", "open_clip_config.json")
INSIDE = ("image_processor", "preprocess_cfg")


@dataclass(frozen=True)
class ImageSettings:
    """How images are resized and normalised; `mean` and `std` are of red, green and blue in 0-1."""

    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD
    resample: int = PILImageResampling.BICUBIC


#: What every published model was trained with.
USUAL = ImageSettings()


@dataclass(frozen=True)
class Family:
    """Models that prepare images and words alike.

    Any set of `files` makes a tokenizer of the class `tokenizer`; `vocabulary` is the number of word pieces in
    every published model, and `repositories` have them on the hub. `fit` makes a tokenizer that was found the
    checkpoint's, given its vocabulary and where it was found, or raises a CheckpointError.
    """

    tokenizer: type[BertTokenizer] | type[CLIPTokenizer]
    files: tuple[tuple[str, ...], ...]
    vocabulary: int
    repositories: tuple[str, ...]
    fit: Callable[[Any, int, Path], Tokenizer]
    build: Callable[[Any, int, ImageSettings], Processor]


def find(source: Path, told: Path | None, config: Any) -> Processor:
    """The processor of a checkpoint.

    Args:
        source: The checkpoint, a file or folder.
        told: A folder to take the tokenizer from; nothing else is tried then.
        config: The checkpoint's configuration; its model type names the family.

    Raises:
        CheckpointError: No tokenizer is there, or it is not the checkpoint's; or image settings make no sense.
    """
    words = find_tokenizer(source, told, config.text_config.vocab_size, config.model_type)
    if isinstance(words, CLIPTokenizer):
        # Texts are read off their end, and have so many positions.
        if words.eos_token_id != config.text_config.eos_token_id:
            raise CheckpointError(
                f"The tokenizer for {source} ends a text with word piece {words.eos_token_id:,}, but the checkpoint "
                f"reads texts off {config.text_config.eos_token_id:,}.\nGive the checkpoint's own with --tokenizer DIR."
            )
        words.model_max_length = min(words.model_max_length, config.text_config.max_position_embeddings)
    return FAMILIES[config.model_type].build(words, config.vision_config.image_size, image_settings(source))


def build(tokenizer: BertTokenizer, image_size: int, settings: ImageSettings = USUAL) -> BlipProcessor:
    """BLIP's processor: images squashed to a square (bicubic) and normalised as CLIP does, unless told."""
    images = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        image_mean=settings.mean,
        image_std=settings.std,
        resample=settings.resample,
    )
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


def build_clip(tokenizer: CLIPTokenizer, image_size: int, settings: ImageSettings = USUAL) -> CLIPProcessor:
    """CLIP's processor: the shortest side resized (bicubic unless told), the square in the middle, normalised."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=settings.mean,
        image_std=settings.std,
        resample=settings.resample,
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def image_settings(source: Path) -> ImageSettings:
    """How a checkpoint's images are prepared, by a settings file in its folder; as usual where it says nothing.

    The image size is the checkpoint's own.

    Raises:
        CheckpointError: The file is broken, or its numbers make no sense.
    """
    folder, settings = source if source.is_dir() else source.parent, USUAL
    for file in [folder / name for name in IMAGE_FILES if (folder / name).is_file()]:
        try:
            settings = _settings(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise CheckpointError(
                f"{file} has no image settings that can be read ({error!r}).\nCorrect it, or move it away."
            ) from error
        _check(settings, file)
        if settings != USUAL:
            break
    return settings


def _settings(content: dict[str, Any]) -> ImageSettings:
    said = next((content[name] for name in INSIDE if name in content), content)
    mean, std = (said.get(f"image_{name}", said.get(name, getattr(USUAL, name))) for name in ("mean", "std"))
    resample = said.get("resample", said.get("interpolation", USUAL.resample))
    number = PILImageResampling[resample.upper()] if isinstance(resample, str) else PILImageResampling(resample)
    return ImageSettings(tuple(map(float, mean)), tuple(map(float, std)), int(number))


def _check(settings: ImageSettings, file: Path) -> None:
    """Raise CheckpointError unless an image can be normalised so."""
    if not all(len(three) == 3 and all(map(math.isfinite, three)) for three in (settings.mean, settings.std)):
        raise CheckpointError(f"{file} must have three numbers each for mean and std.\nCorrect it, or move it away.")
    if min(settings.std) <= 0:
        raise CheckpointError(f"{file} has a std of {min(settings.std)}, but it must be above 0.\nCorrect it.")


def find_tokenizer(source: Path, told: Path | None, vocabulary: int, family: str = "madtp_blip") -> Tokenizer:
    """The tokenizer of a checkpoint.

    Args:
        source: The checkpoint, a file or folder.
        told: A folder to take it from; nothing else is tried then.
        vocabulary: Rows of the checkpoint's word embeddings; BLIP's [DEC] and [ENC] are the last two.
        family: The checkpoint's model type.

    Raises:
        CheckpointError: None is there, or it is of another size than the checkpoint.
    """
    own = FAMILIES[family]
    if told is not None:
        if not _holds_tokenizer(told, own):
            raise CheckpointError(f"{told} holds no tokenizer: neither {_files(own, ' nor ')} is there.")
        return own.fit(_read(told, own), vocabulary, told)
    misfit = None
    places = [folder for folder in _beside(source) if _holds_tokenizer(folder, own)]
    if vocabulary == own.vocabulary and (cached := _cached(own)):
        places.append(cached)
    for folder in places:
        try:
            return own.fit(_read(folder, own), vocabulary, folder)
        except CheckpointError as error:
            misfit = misfit or error
    raise misfit or _missing(source, vocabulary, own)


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """What a text configuration says about the tokenizer; BLIP ends a text with [SEP]."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if isinstance(tokenizer, CLIPTokenizer):
        return {**ids, "eos_token_id": tokenizer.eos_token_id}
    return {**ids, "sep_token_id": tokenizer.sep_token_id, "eos_token_id": tokenizer.sep_token_id}


def _beside(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    yield source.with_name(source.stem + "-tokenizer")
    yield source.with_name("tokenizer")
    yield source.parent


def _holds_tokenizer(folder: Path, family: Family) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in family.files)


def _files(family: Family, between: str) -> str:
    return between.join(" with ".join(names) for names in family.files)


def _read(folder: Path, family: Family) -> Any:
    try:
        return family.tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files fail in any way, as KeyError among others
        raise CheckpointError(
            f"The tokenizer in {folder} cannot be read ({error!r}).\nCopy its files again."
        ) from error


def _fit_blip(tokenizer: BertTokenizer, vocabulary: int, place: Path) -> BertTokenizer:
    """The tokenizer with [DEC] and [ENC], which a plain BERT vocabulary lacks."""
    if len(tokenizer) == vocabulary - 2:
        tokenizer.add_special_tokens({"bos_token": DECODER})
        tokenizer.add_tokens([ENCODER], special_tokens=True)
    _require_size(tokenizer, vocabulary, place)
    if tokenizer.convert_tokens_to_ids([DECODER, ENCODER]) != [vocabulary - 2, vocabulary - 1]:
        raise CheckpointError(
            f"The tokenizer in {place} does not end with {DECODER} and {ENCODER}, as BLIP's do.\n"
            "Give the checkpoint's own with --tokenizer DIR."
        )
    return tokenizer


def _fit_clip(tokenizer: CLIPTokenizer, vocabulary: int, place: Path) -> CLIPTokenizer:
    _require_size(tokenizer, vocabulary, place)
    return tokenizer


def _require_size(tokenizer: Tokenizer, vocabulary: int, place: Path) -> None:
    if len(tokenizer) != vocabulary:
        raise CheckpointError(
            f"The tokenizer in {place} has {len(tokenizer):,} word pieces, but the checkpoint has {vocabulary:,}.\n"
            "Give the checkpoint's own with --tokenizer DIR."
        )


def _cached(family: Family) -> Path | None:
    """Where the published tokenizer is, if it was downloaded before."""
    for repository in family.repositories:
        for names in family.files:
            files = [try_to_load_from_cache(repository, name) for name in names]
            if all(isinstance(file, str) for file in files):
                return Path(str(files[0])).parent
    return None


def _missing(source: Path, vocabulary: int, family: Family) -> CheckpointError:
    places = f"{source.stem}-tokenizer/, tokenizer/ or {source.parent}" if source.is_file() else str(source)
    message = (
        f"No tokenizer of {vocabulary:,} word pieces for {source}: there is no {_files(family, ' or ')} in {places}."
    )
    if vocabulary == family.vocabulary:
        command = f"hf download {family.repositories[0]} {' '.join(family.files[-1])}"
        return CheckpointError(f"{message}\nGet it once with: {command}")
    return CheckpointError(f"{message}\nGive the checkpoint's own with --tokenizer DIR.")


#: By model type. BLIP has the word pieces of bert-base-uncased and two of its own.
FAMILIES = {
    "madtp_blip": Family(
        tokenizer=BertTokenizer,
        files=(("tokenizer.json",), ("vocab.txt",)),
        vocabulary=30_524,
        repositories=("bert-base-uncased", "google-bert/bert-base-uncased"),
        fit=_fit_blip,
        build=build,
    ),
    "madtp_clip": Family(
        tokenizer=CLIPTokenizer,
        files=(("tokenizer.json",), ("vocab.json", "merges.txt")),
        vocabulary=49_408,
        repositories=tuple(
            f"openai/clip-vit-{name}" for name in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")
        ),
        fit=_fit_clip,
        build=build_clip,
    ),
}
