"""One sample and what the pruning did to it: the content of `madtp show` and of the pictures in `madtp report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from madtp_cli.reporting.parts import LayerPart
from madtp_cli.reporting.samples import BothGflops

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Group:
    """Original tokens of an input that are one token after a block.

    Attributes:
        kept: The one of them that was kept; None if only pruned tokens are in it.
        members: All of them.
    """

    kept: int | None
    members: tuple[int, ...]


@dataclass(frozen=True)
class PrunedBlock:
    """One input after a block that chose tokens to prune.

    Attributes:
        number: Number of the block, from 1; 0 for what was pruned before the first block.
        groups: The tokens that remain, as groups of original tokens. An original token in no group is gone.
        weights: Importance of each original token: that of the token it was part of when the block began. None where
            the token is protected or was gone.
        tokens: Number of tokens of the input after the block, protected ones included.
    """

    number: int
    groups: tuple[Group, ...]
    weights: tuple[float | None, ...]
    tokens: int

    @property
    def when(self) -> str:
        """Say after which block, or before which."""
        return f"after block {self.number}" if self.number else "before block 1"

    @property
    def kept(self) -> frozenset[int]:
        """The original tokens that were kept."""
        return frozenset(group.kept for group in self.groups if group.kept is not None)

    @property
    def merged(self) -> list[Group]:
        """The groups of more than one token."""
        return [group for group in self.groups if len(group.members) > 1]


@dataclass(frozen=True)
class ImageInput:
    """An image as the model sees it. The original tokens are its patches, numbered row after row.

    Attributes:
        picture: The resized and cropped image, RGB.
        rows, columns: Its patches.
        blocks: The blocks that chose patches to prune.
    """

    picture: Image
    rows: int
    columns: int
    blocks: Sequence[PrunedBlock]


@dataclass(frozen=True)
class TextInput:
    """A text as the model reads it.

    Attributes:
        tower: The tower that reads it.
        tokens: Its original tokens, special tokens included.
        protected: Which of them are never pruned; empty if no block chose tokens to prune.
        blocks: The blocks that chose tokens to prune.
    """

    tower: str
    tokens: tuple[str, ...]
    protected: tuple[bool, ...]
    blocks: Sequence[PrunedBlock]


@dataclass(frozen=True)
class Answers:
    """The answers of both models in words, and the right one.

    Attributes:
        dense, pruned: The answers; of a dense checkpoint only `dense`.
        right: The label; "" if it is not known.
        dense_model: Which model `dense` is of.
    """

    dense: str
    pruned: str | None
    right: str = ""
    dense_model: str = "the dense model"


@dataclass(frozen=True)
class PrunedSample:
    """A sample, its inputs, its cost by layer and its answers.

    Attributes:
        name: Identifier of the sample.
        text: The text that belongs to it; "" for none.
        images, texts: Its inputs.
        layers: Cost of each layer and tokens of each block, for this sample; tokens are the mean over its images.
        dense_layers: The same layers in the dense model.
        gflops: Its cost in both models.
        answers: Its answers.
        method: Name of the pruning method; "" for a dense checkpoint.
        rule: What the method does, in words.
    """

    name: str
    text: str
    images: Sequence[ImageInput]
    texts: Sequence[TextInput]
    layers: Sequence[LayerPart]
    dense_layers: Sequence[LayerPart]
    gflops: BothGflops
    answers: Answers
    method: str = ""
    rule: str = ""
