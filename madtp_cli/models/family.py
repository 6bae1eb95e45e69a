"""The family record: everything that the rest of the package needs to know about a model family.

Each folder of `models` is one family. Its file `family.py` has one such record with the name `FAMILY`. The other parts
of the package read the record, so they need no branch on the family. A record is cheap to import: its functions import
model classes and tokenizer classes only when they are called.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

from madtp_cli.flops import parts

#: Begins the model types of this package. Other readers do not know these types, so they refuse our folders.
PREFIX = "madtp_"

#: Sizes of a tower that `madtp inspect` shows, and the fields of transformers' configuration that hold them.
TOWER_SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
}


@dataclass(frozen=True)
class ImageSettings:
    """How images are resized and normalised. The defaults are those of CLIP.

    Attributes:
        mean: Mean of red, green and blue, in 0-1.
        std: Standard deviation of red, green and blue, in 0-1.
        resample: Interpolation, a `PIL.Image.Resampling` number.
        resize: "shortest" (resize the shorter side, crop the middle) or "squash" (resize both sides); None for the
            family's own way.
        edge_share: With "shortest", the shorter side before the crop, divided by the side of the crop; 1 or more.
        normalize: Whether mean and standard deviation are applied.
        rescale_factor: Factor of the pixel values 0-255.
    """

    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    resample: int = int(PILImageResampling.BICUBIC)
    resize: str | None = None
    edge_share: float = 1.0
    normalize: bool = True
    rescale_factor: float = 1 / 255

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of transformers' image processors, except those of the size."""
        return {
            "do_normalize": self.normalize,
            "rescale_factor": self.rescale_factor,
            "image_mean": self.mean,
            "image_std": self.std,
            "resample": self.resample,
        }


@dataclass(frozen=True)
class TextLimit:
    """How much of a text a model reads.

    Attributes:
        tokens: Maximum number of tokens, the first and the last token included.
        words: Maximum number of words before tokenization; None for no limit.
        plain: Whether a text goes to the tokenizer as it is, neither cleaned nor with another first token.
    """

    tokens: int
    words: int | None = None
    plain: bool = False


@dataclass(frozen=True)
class TokenizerRecord:
    """How the tokenizer of a family's checkpoints is found, read and checked.

    Attributes:
        files: Sets of file names. Each complete set is enough to read a tokenizer.
        repositories: By the number of word pieces of published checkpoints, repositories of the Hugging Face hub that
            have this vocabulary.
        read: Reads a tokenizer from a folder.
        fit: Adapts a tokenizer to a checkpoint, in place; its arguments are the tokenizer and the checkpoint's text
            configuration. It raises ValueError with the reason if the two do not belong together.
        special_ids: The fields of a text configuration that depend on the tokenizer.
        unused: Word pieces that no text contains and for which a checkpoint may have no embedding, because
            transformers' processor adds them.
        ends: The special tokens that begin and end every text, as attributes of the tokenizer; None where there is
            none.
    """

    files: tuple[tuple[str, ...], ...]
    repositories: Mapping[int, tuple[str, ...]]
    read: Callable[[Path], Any]
    fit: Callable[[Any, Any], None]
    special_ids: Callable[[Any], dict[str, int]]
    ends: tuple[str | None, str | None] = (None, None)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A family of models that share their towers.

    Attributes:
        name: Name of the family's folder.
        tasks: Tasks that the family has a model for. The model of a task is `MODEL` in the file of that name.
        same_weights: Tasks whose models have the same tensors, so that a checkpoint for one serves the others.
        image_only: Tasks whose models have the image tower alone, and how the keys of its tensors begin in a model for
            another task of `same_weights`. Their processors have no tokenizer.
        read_out: By tower, the index of the token that the model reads its result from. It must be protected. None for
            attention pooling, which reads all tokens.
        position_key: Key of the image tower's position embeddings in a state dict.
        tokenizer: See `TokenizerRecord`.
        processor_class: Name of the class that `build_processor` returns. No two families share one.
        build_processor: Builds a processor from a tokenizer, the image side in pixels, and image settings. Without a
            tokenizer it builds an image processor.
        own_processor: Class of this package in the family's `processing.py` that `task_processor` may return; "" for
            none.
        task_processor: Changes a processor for the model of a task.
        text_limits: Length limits by kind of text: a task's name, or task and role, as "vqa question". A model also
            reads no more tokens than it has positions.
        padded_texts: Whether every text is padded to its limit, and the model reads the padding as text.
        text_conventions: By task, the field of the configuration that states how a text begins. Checkpoint files do
            not state it, so the user may.
        tower_defaults: By tower, the configuration fields that a checkpoint file does not state (layer-norm epsilon,
            activation), with the values of the published models.
        image_settings: The published models' image settings.
        resize_modes: The ways of resizing that `build_processor` supports; the family's own is first.
        tower_sizes: By tower, sizes to show and the configuration fields that hold them.
        image_tokens: Number of tokens of an image before pruning, given the configuration of the image tower.
        patch_grid: Rows and columns of the patches of an image, given the configuration of the image tower. The patches
            are the last tokens of each input of that tower, row after row.
        head_widths: Widths of one attention head in the published models.
        tied: Keys of a state dict that repeat another key's tensor, and that other key.
        architectures: Published architectures by name; each function returns a configuration.
        image_lengths: Number of tokens of an image of a width and a height in pixels, given the configuration of the
            image tower, for models that keep the proportions of an image; None if all images have the same number.
        transformers_type: Model type of transformers' own folders, if it is not the family's name.
    """

    name: str
    tasks: tuple[str, ...]
    read_out: Mapping[str, int | None]
    position_key: str
    tokenizer: TokenizerRecord
    processor_class: str
    build_processor: Callable[[Any, int, ImageSettings], Any]
    text_limits: Mapping[str, TextLimit]
    tower_defaults: Mapping[str, Mapping[str, Any]]
    image_settings: ImageSettings = field(default_factory=ImageSettings)
    resize_modes: tuple[str, ...] = ("shortest", "squash")
    tower_sizes: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "vision": TOWER_SIZES | {"image_size": "image_size", "patch_size": "patch_size"},
            "text": TOWER_SIZES | {"vocabulary": "vocab_size", "positions": "max_position_embeddings"},
        }
    )
    own_processor: str = ""
    task_processor: Callable[[Any, str], Any] = lambda processor, task: processor
    image_tokens: Callable[[Any], int] = parts.image_tokens
    patch_grid: Callable[[Any], tuple[int, int]] = parts.patch_grid
    head_widths: tuple[int, ...] = (64,)
    padded_texts: bool = False
    same_weights: frozenset[str] = frozenset()
    image_only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text_conventions: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    architectures: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    image_lengths: Callable[[int, int, Any], int] | None = None
    transformers_type: str = ""

    @property
    def model_type(self) -> str:
        """The model type in `config.json`."""
        return PREFIX + self.name


def read_bert_tokenizer(folder: Path) -> Any:
    """Read a BERT tokenizer from a folder."""
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(folder, local_files_only=True)


def require_vocabulary(tokenizer: Any, text_config: Any) -> None:
    """Raise ValueError unless a tokenizer has as many word pieces as a checkpoint has word embeddings."""
    if len(tokenizer) != text_config.vocab_size:
        raise ValueError(f"has {len(tokenizer):,} word pieces, but the checkpoint has {text_config.vocab_size:,}")


def published_architectures(family_file: str, build: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """Return the published architectures of a family, for its record.

    The file `architectures.json` beside `family.py` has the arguments of `build` by name. The command line reads the
    names from it without importing the family.

    Args:
        family_file: `__file__` of `family.py`.
        build: Makes a configuration of the arguments.
    """
    found = json.loads(Path(family_file).with_name("architectures.json").read_text("utf-8"))
    return {name: partial(build, **arguments) for name, arguments in found.items()}
