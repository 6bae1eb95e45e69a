"""MAG: a dictionary of learnable tokens that both modalities share, and their alignment.

Source: MADTP, arXiv:2403.02991, section on multi-modality alignment guidance. The paper's
figure has one linear layer per modality into the shared space, used by every block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from madtp_cli.pruning import segments


class AlignmentDictionary(nn.Module):
    """`dictionary` [size, width] and one projection into its space per tower.

    Args:
        tower_widths: Width of each tower's tokens, by tower name.
        size: Number of learnable tokens, called atoms; 100 in the paper.
        width: Width of the shared space; 768 in the paper.
    """

    def __init__(self, tower_widths: Mapping[str, int], size: int, width: int) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(size, width))
        # No bias: it would shift all of an atom's logits alike, which no softmax over tokens sees.
        self.projections = nn.ModuleDict(
            {tower: nn.Linear(tower_width, width, bias=False) for tower, tower_width in tower_widths.items()}
        )
        for tower, tower_width in tower_widths.items():
            # Normalised tokens then meet each atom with logits of variance one.
            nn.init.normal_(self._weight(tower), std=tower_width**-0.5)
        self._kept: dict[str, tuple[Any, Tensor]] = {}

    def folded(self, tower: str) -> Tensor:
        """Projection and dictionary in one matrix, [tower width, size].

        Projecting each token in each block would cost up to 8 % of a layer. The logits of
        normalised tokens x are x @ folded. Without gradients it is made once and kept.
        """
        weight = self._weight(tower)
        if torch.is_grad_enabled():
            return self._fold(weight)
        # The identities tell a copy's parameters from those it was copied from.
        state = (
            id(self.dictionary),
            self.dictionary._version,
            id(weight),
            weight._version,
            weight.device,
            weight.dtype,
        )
        if self._kept.get(tower, (None,))[0] != state:
            self._kept[tower] = (state, self._fold(weight))
        return self._kept[tower][1]

    def _weight(self, tower: str) -> nn.Parameter:
        return cast(nn.Parameter, self.projections[tower].weight)

    def _fold(self, weight: Tensor) -> Tensor:
        return (weight.T @ self.dictionary.T) / self.dictionary.shape[1] ** 0.5

    def project(self, tower: str, pooled: Tensor) -> Tensor:
        """Pooled tokens in the shared space, [..., width]."""
        return self.projections[tower](pooled)


def pool(logits: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
    """What each atom attends to in each sample, [batch, size, tower width].

    Args:
        logits: Packed dictionary logits, [total, size].
        tokens: Packed tokens, normalised as for the logits, [total, tower width].
        lengths: Tokens of each sample.
    """
    # Finite, or a sample without a token would pool NaN.
    attention = segments.pad(logits.float(), lengths, torch.finfo(torch.float32).min).softmax(1)
    return attention.transpose(1, 2).to(tokens.dtype) @ segments.pad(tokens, lengths)


def alignment_loss(first: Tensor, second: Tensor) -> Tensor:
    """One minus the cosine of both modalities' pooled features, mean over batch and atoms.

    >>> round(float(alignment_loss(torch.ones(1, 2, 3), -2 * torch.ones(1, 2, 3))), 4)
    2.0
    """
    return (1 - functional.cosine_similarity(first.float(), second.float(), dim=-1)).mean()
