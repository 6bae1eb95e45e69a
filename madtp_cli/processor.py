"""Processors: BLIP's image preparation and the tokenizer that belongs to a checkpoint.

Salesforce's and MADTP's files come without a tokenizer; it is looked for beside them and in
the local Hugging Face cache, and never downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor

from madtp_cli.errors import CheckpointError
from madtp_cli.formats.salesforce_blip import IMAGE_MEAN, IMAGE_STD

#: Begins a decoder's text, and a text that looks at an image; BLIP's last two word pieces.
DECODER, ENCODER = "[DEC]", "[ENC]"

#: Word pieces of bert-base-uncased with BLIP's two, as in every published BLIP.
PUBLISHED_VOCABULARY = 30_524
PUBLISHED_TOKENIZER = ("bert-base-uncased", "google-bert/bert-base-uncased")

#: Either file makes a tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


def build(tokenizer: BertTokenizer, image_size: int) -> BlipProcessor:
    """BLIP's processor: images squashed to a square (bicubic) and normalised as CLIP does."""
    images = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=IMAGE_MEAN, image_std=IMAGE_STD
    )
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


def find_tokenizer(source: Path, told: Path | None, vocabulary: int) -> BertTokenizer:
    """The tokenizer of a checkpoint.

    Args:
        source: The checkpoint, a file or folder.
        told: A folder to take it from; nothing else is tried then.
        vocabulary: Rows of the checkpoint's word embeddings; [DEC] and [ENC] are the last two.

    Raises:
        CheckpointError: None is there, or it is of another size than the checkpoint.
    """
    if told is not None:
        if not _holds_tokenizer(told):
            raise CheckpointError(f"{told} holds no tokenizer: neither {' nor '.join(TOKENIZER_FILES)} is there.")
        return _fitting(_read(told), vocabulary, told)
    misfit = None
    for folder in filter(_holds_tokenizer, _beside(source)):
        try:
            return _fitting(_read(folder), vocabulary, folder)
        except CheckpointError as error:
            misfit = misfit or error
    if vocabulary == PUBLISHED_VOCABULARY and (file := _cached_vocabulary()):
        return _fitting(BertTokenizer(vocab=str(file)), vocabulary, file)
    raise misfit or _missing(source, vocabulary)


def special_ids(tokenizer: BertTokenizer) -> dict[str, int]:
    """What a text configuration says about the tokenizer; BLIP ends a text with [SEP]."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _beside(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    yield source.with_name(source.stem + "-tokenizer")
    yield source.with_name("tokenizer")
    yield source.parent


def _holds_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _read(folder: Path) -> BertTokenizer:
    try:
        return BertTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files fail in any way, as KeyError among others
        raise CheckpointError(
            f"The tokenizer in {folder} cannot be read ({error!r}).\nCopy its files again."
        ) from error


def _fitting(tokenizer: BertTokenizer, vocabulary: int, place: Path) -> BertTokenizer:
    """The tokenizer with [DEC] and [ENC], which a plain BERT vocabulary lacks."""
    if len(tokenizer) == vocabulary - 2:
        tokenizer.add_special_tokens({"bos_token": DECODER})
        tokenizer.add_tokens([ENCODER], special_tokens=True)
    if len(tokenizer) != vocabulary:
        raise CheckpointError(
            f"The tokenizer in {place} has {len(tokenizer):,} word pieces, but the checkpoint has {vocabulary:,}.\n"
            "Give the checkpoint's own with --tokenizer DIR."
        )
    if tokenizer.convert_tokens_to_ids([DECODER, ENCODER]) != [vocabulary - 2, vocabulary - 1]:
        raise CheckpointError(
            f"The tokenizer in {place} does not end with {DECODER} and {ENCODER}, as BLIP's do.\n"
            "Give the checkpoint's own with --tokenizer DIR."
        )
    return tokenizer


def _cached_vocabulary() -> Path | None:
    """vocab.txt of bert-base-uncased, if it was downloaded before."""
    for repository in PUBLISHED_TOKENIZER:
        if isinstance(file := try_to_load_from_cache(repository, "vocab.txt"), str):
            return Path(file)
    return None


def _missing(source: Path, vocabulary: int) -> CheckpointError:
    places = f"{source.stem}-tokenizer/, tokenizer/ or {source.parent}" if source.is_file() else str(source)
    files = " or ".join(TOKENIZER_FILES)
    message = f"No tokenizer of {vocabulary:,} word pieces for {source}: there is no {files} in {places}."
    if vocabulary == PUBLISHED_VOCABULARY:
        return CheckpointError(f"{message}\nGet it once with: hf download {PUBLISHED_TOKENIZER[0]} vocab.txt")
    return CheckpointError(f"{message}\nGive the checkpoint's own with --tokenizer DIR.")
