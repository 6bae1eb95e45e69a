"""The score of `madtp` and `static`: both rank tokens in the same way and differ only in how many they keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from madtp_cli.methods import (
    CLASS_ATTENTION,
    DICTIONARY,
    RECEIVED_ATTENTION,
    BlockInputs,
    Parameters,
    PruneDecision,
    Rule,
    TokenSizes,
)
from madtp_cli.pruning import density_peaks, importance, mag

NEEDS = frozenset({CLASS_ATTENTION, RECEIVED_ATTENTION, DICTIONARY})


@dataclass(frozen=True)
class DensityParameters(Parameters):
    """Parameters of both methods.

    Attributes:
        temperature: Divides the dictionary logits; values below 1 sharpen the attention.
        compared_width: Numbers of a token that are compared at most.
    """

    proportional: bool = True
    queries: int = 32
    temperature: float = 0.2
    compared_width: int = 64


@dataclass(frozen=True)
class DensityScore:
    """The scores of the prunable tokens of a block, each field [batch, longest].

    Attributes:
        score: The root of the importance times the distinctness, see `density_peaks`.
        nearest: The most similar more important token of each token.
        weight: The importance.
        most_important: Whether a token is the most important one of its sample. The chains of nearest more important
            tokens end there, so it always stays.
    """

    score: Tensor
    nearest: Tensor
    weight: Tensor
    most_important: Tensor

    @classmethod
    def of(cls, inputs: BlockInputs, rule: Rule) -> DensityScore:
        """Compute the scores of a block."""
        attention = mag.dictionary_attention(inputs.dictionary_logits, inputs.mask, rule.parameters.temperature)
        scores = inputs.class_attention, inputs.received_attention
        return cls.of_importance(inputs, rule, importance.token_importance(*scores, attention, inputs.mask))

    @classmethod
    def of_importance(cls, inputs: BlockInputs, rule: Rule, weight: Tensor) -> DensityScore:
        """Compute the scores of a block from the importance of its tokens, [batch, longest]."""
        mask = inputs.mask
        values = inputs.token_values(density_peaks.spacing(inputs.tokens.shape[-1], rule.parameters.compared_width))
        score, nearest = density_peaks.distinct_importance(values, weight, mask, exportable=inputs.exportable)
        return cls(score, nearest, weight, density_peaks.is_most_important(nearest, mask))

    def decide(self, kept: Tensor, inputs: BlockInputs) -> PruneDecision:
        """Return the decision that each of the other tokens joins its nearest more important kept token."""
        longest = density_peaks.MOST_TOKENS if inputs.exportable else inputs.mask.shape[1]
        return PruneDecision(density_peaks.resolve_targets(self.nearest, kept, longest), self.weight)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: DensityParameters) -> np.ndarray:
    """Return the multiply-adds of the cosines among the tokens."""
    step = density_peaks.spacing(sizes.width, parameters.compared_width)
    return density_peaks.comparisons(tokens) * len(range(0, sizes.width, step))
