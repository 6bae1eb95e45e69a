"""Pruning methods, one per file; `--method` names the file.

A method chooses which tokens a block keeps. It declares what it needs: a model computes only that, and the FLOPs
formula charges only that.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from madtp_cli.errors import UsageError
from madtp_cli.methods._preset import IMAGES, Preset
from madtp_cli.pruning import segments
from madtp_cli.pruning.merging import PruneDecision

__all__ = [
    "IMAGES",
    "BlockInputs",
    "ImageGrids",
    "Method",
    "Parameters",
    "Preset",
    "PruneDecision",
    "Rule",
    "TokenSizes",
    "get",
    "names",
]

#: What a method may list in `NEEDS`; see the fields of `BlockInputs`.
CLASS_ATTENTION = "class_attention"
MEAN_CLASS_ATTENTION = "mean_class_attention"
RECEIVED_ATTENTION = "received_attention"
DICTIONARY = "dictionary"
KEY_METRIC = "key_metric"
#: What comes from the attention of the read-out.
READ_OUT_SCORES = frozenset({CLASS_ATTENTION, MEAN_CLASS_ATTENTION})
#: Class attention that is not normalised, and unscaled dictionary logits of the tokens before the first norm.
RAW_SCORES = "raw_scores"
#: The number of inputs of each sample, for methods that decide about the inputs of a sample together.
SAMPLE_INPUTS = "sample_inputs"
SIZES = "sizes"
ORDER = "order"
#: The method makes the image smaller and prunes no tokens; it has the function `grids`, see `ImageGrids`.
IMAGE = "image"


@dataclass(frozen=True)
class Parameters:
    """Parameters that every method has; a method adds its own in a subclass.

    Attributes:
        proportional: Whether a token is attended to in proportion to the number of tokens it stands for
            (proportional attention, ToMe, arXiv:2210.09461).
        queries: Number of evenly spaced prunable queries per sample whose attention counts as received attention;
            0 means all.
    """

    #: Share of the prunable tokens that a block keeps whatever the threshold scale is.
    LEAST_SHARE: ClassVar[float] = 0.0

    proportional: bool = False
    queries: int = 0


@dataclass(frozen=True)
class Rule:
    """How strongly a block prunes.

    Attributes:
        threshold_scale: Factor of each sample's threshold, above 0.
        min_keep: Tokens that every sample keeps at least, not counting protected ones.
        parameters: The method's `PARAMETERS`.
        block: Number of the block within its tower, from 0.
        blocks: Number of blocks of the tower; 1 if it is not known.
    """

    threshold_scale: float
    min_keep: int = 1
    parameters: Any = field(default_factory=Parameters)
    block: int = 0
    blocks: int = 1


@dataclass(frozen=True)
class BlockInputs:
    """One block's tokens after self-attention, in a padded layout with a mask.

    Fields that the method does not list in `NEEDS` are None. What stands where `mask` is false has no meaning.

    Attributes:
        mask: bool [batch, longest]; true for prunable tokens. They stand in the order of the sample's tokens.
        tokens: The block's tokens in the layout of the model; read them with `token_values`.
        arrange: Brings values of the model's layout, one per token, into [batch, longest, ...].
        class_attention: Attention of the read-out token to each token, [batch, longest]; it sums to one per sample,
            unless the method needs raw scores.
        mean_class_attention: Attention of the read-out token to each token, averaged over the heads, [batch, longest].
        received_attention: Attention that each token receives from prunable queries, [batch, longest]; it sums to one
            per sample.
        dictionary_logits: Logits of each token against the dictionary, [batch, longest, atoms].
        key_metric: Attention keys, averaged over the heads, [batch, longest, head width].
        sample_inputs: Number of inputs of each sample, such as the two images of a pair; 1 unless the method asks for
            it. The first inputs of all samples come before the second ones.
        sizes: Number of original tokens that each token stands for, float32 [batch, longest].
        order: Order that the method gave to the tokens in the last pruned block, int64 [batch, longest]; before the
            first one the order of the tokens.
        exportable: Whether only operators are allowed that exporters support: no stable sort, no loop over tokens.
    """

    mask: Tensor
    tokens: Tensor
    arrange: Callable[[Tensor], Tensor]
    class_attention: Tensor | None = None
    received_attention: Tensor | None = None
    dictionary_logits: Tensor | None = None
    key_metric: Tensor | None = None
    sample_inputs: int = 1
    mean_class_attention: Tensor | None = None
    sizes: Tensor | None = None
    order: Tensor | None = None
    exportable: bool = False

    SCORES: ClassVar[tuple[str, ...]] = (
        "class_attention",
        "mean_class_attention",
        "received_attention",
        "dictionary_logits",
        "key_metric",
        "sizes",
        "order",
    )

    def needed(self, name: str) -> Tensor:
        """Return a field that the method lists in `NEEDS`.

        Raises:
            ValueError: The method does not list it.
        """
        values: Tensor | None = getattr(self, name)
        if values is None:
            raise ValueError(f"{name} is missing; list it in NEEDS")
        return values

    def token_values(self, step: int = 1) -> Tensor:
        """Return every `step`-th number of each token, [batch, longest, numbers], without gradients."""
        return self.arrange(self.tokens.detach()[..., ::step])


@dataclass(frozen=True)
class TokenSizes:
    """Sizes that the cost of a method depends on.

    Attributes:
        width: Numbers of a token.
        head_width: Numbers of a token in one attention head, and hence of its key metric.
        atoms: Atoms of the dictionary.
    """

    width: int
    head_width: int
    atoms: int


@dataclass(frozen=True)
class ImageGrids:
    """The two image sizes that a method with `IMAGE` uses at a threshold scale.

    Attributes:
        larger: Rows and columns of patches.
        smaller: Rows and columns of patches; at most as many patches.
        share: Share of the images that get the larger size, 0 to 1.
    """

    larger: tuple[int, int]
    smaller: tuple[int, int]
    share: float


class Method(Protocol):
    """The contract of a file of this package.

    A method that lists `IMAGE` also has a function `grids(side, rule)`, which returns the `ImageGrids` of an image of
    `side` x `side` patches.
    """

    #: Any of the constants above.
    NEEDS: frozenset[str]
    #: Which blocks are pruned by default.
    PRESET: Preset
    #: Tokens per sample that are added for the pruned ones: 0 or 1.
    MERGED_TOKENS: int

    @property
    def PARAMETERS(self) -> type[Parameters]:  # noqa: N802  a constant of the file
        """Class of the method's parameters; its defaults are what suits the method."""

    def keep(self, inputs: BlockInputs, rule: Rule) -> PruneDecision:
        """Choose the tokens that go on to the feed-forward layer, for each sample by itself."""

    def cost(self, tokens: np.ndarray, sizes: TokenSizes, parameters: Any) -> np.ndarray:
        """Return the multiply-adds of `keep` itself.

        Not included: the scores that `NEEDS` lists.

        Args:
            tokens: Prunable tokens that enter the block, any shape.
            sizes: Sizes of a token.
            parameters: The method's `PARAMETERS`.
        """


def keep_each(method: Method, inputs: BlockInputs, lengths: Sequence[int], rule: Rule) -> PruneDecision:
    """Return what `method.keep` returns, computed sample by sample.

    This is slower, but no multiply-add is spent on padding: fvcore counts the cost of the samples alone.

    Args:
        method: Pruning method.
        inputs: Inputs whose prunable tokens stand first in each sample.
        lengths: Prunable tokens of each input.
        rule: How strongly to prune.
    """
    samples = len(lengths) // inputs.sample_inputs
    found: dict[str, list[Tensor]] = {}
    for sample in range(samples):
        rows = range(sample, len(lengths), samples)
        part = method.keep(_one_sample(inputs, slice(sample, None, samples), max(lengths[row] for row in rows)), rule)
        for name, values in vars(part).items():
            if isinstance(values, Tensor):
                found.setdefault(name, [values] * len(lengths))
                for number, row in enumerate(rows):
                    found[name][row] = values[number, : lengths[row]]
    joined: dict[str, Any] = {name: segments.pad(torch.cat(rows), lengths) for name, rows in found.items()}
    return replace(part, **joined)


def _one_sample(inputs: BlockInputs, rows: slice, length: int) -> BlockInputs:
    """Return the inputs of one sample, without padding."""

    def cut(values: Tensor) -> Tensor:
        return values[rows, :length]

    scores = {name: getattr(inputs, name) for name in BlockInputs.SCORES}
    changed: dict[str, Any] = {name: cut(score) for name, score in scores.items() if score is not None}
    return replace(inputs, mask=cut(inputs.mask), arrange=lambda values: cut(inputs.arrange(values)), **changed)


def names() -> list[str]:
    """Return the names for `--method`: the files of this folder, without those that several methods share."""
    return sorted(file.name.replace("_", "-") for file in pkgutil.iter_modules(__path__) if file.name[0] != "_")


def get(name: str) -> Method:
    """Return the method of that name.

    Raises:
        UsageError: There is no such method.
    """
    if name not in names():
        raise UsageError(f"There is no method {name!r}. Choose one of: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
