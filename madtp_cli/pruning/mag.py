"""Multi-modality alignment guidance (MAG): a dictionary of learnable tokens that both modalities share.

Source: MADTP, arXiv:2403.02991, section on multi-modality alignment guidance. As in the paper's figure, each modality
has one linear layer into the shared space, and all blocks of its tower use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Logit of a token that takes no part. It is finite: a sample without prunable tokens would give NaN otherwise.
LOWEST_LOGIT = -1e30


class AlignmentDictionary(nn.Module):
    """A dictionary of atoms, `dictionary` [size, width], and one projection per tower into its space.

    Args:
        tower_widths: Width of each tower's tokens, by tower name.
        size: Number of atoms (learnable tokens); 100 in the paper.
        width: Width of the shared space; 768 in the paper.
    """

    def __init__(self, tower_widths: Mapping[str, int], size: int, width: int) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(size, width))
        # No bias: it would add the same number to all logits of an atom, and a softmax over tokens ignores that.
        self.projections = nn.ModuleDict(
            {tower: nn.Linear(tower_width, width, bias=False) for tower, tower_width in tower_widths.items()}
        )
        for tower, tower_width in tower_widths.items():
            # The logits of normalised tokens then have variance one.
            nn.init.normal_(self._weight(tower), std=tower_width**-0.5)
        self._folded: dict[str, tuple[Any, Tensor]] = {}

    def folded(self, tower: str) -> Tensor:
        """Return projection and dictionary as one matrix, [tower width, size].

        The logits of normalised tokens x are x @ folded. Projecting each token in each block instead would cost up to
        8 % of a layer. Without gradients the matrix is computed once and cached.
        """
        weight = self._weight(tower)
        if torch.is_grad_enabled():
            return self._fold(weight)
        # A deep copy also copies this cache; the ids distinguish its parameters from the original ones.
        state = (
            id(self.dictionary),
            self.dictionary._version,
            id(weight),
            weight._version,
            weight.device,
            weight.dtype,
        )
        if self._folded.get(tower, (None,))[0] != state:
            self._folded[tower] = (state, self._fold(weight))
        return self._folded[tower][1]

    def _weight(self, tower: str) -> nn.Parameter:
        return cast(nn.Parameter, self.projections[tower].weight)

    def _fold(self, weight: Tensor) -> Tensor:
        return (weight.T @ self.dictionary.T) / self.dictionary.shape[1] ** 0.5

    def project(self, tower: str, pooled: Tensor) -> Tensor:
        """Project pooled tokens [..., tower width] into the shared space, [..., width]."""
        return self.projections[tower](pooled)


def dictionary_attention(logits: Tensor | None, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Return each atom's attention over the prunable tokens of a sample, [batch, longest, atoms].

    The softmax runs over the tokens. The values of a sample without prunable tokens have no meaning but are finite.

    Args:
        logits: Dictionary logits, [batch, longest, atoms].
        mask: bool [batch, longest]; true for prunable tokens.
        temperature: Divides the logits; values below 1 sharpen the attention.
    """
    if logits is None:
        raise ValueError("dictionary attention needs dictionary logits; list the dictionary in NEEDS")
    return (logits.float() / temperature).masked_fill(~mask[:, :, None], LOWEST_LOGIT).softmax(1)


def pool(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the tokens that each atom attends to, [batch, atoms, tower width].

    Args:
        logits: Dictionary logits, [batch, longest, atoms].
        tokens: The normalised tokens that the logits were computed from, [batch, longest, tower width]; 0 for tokens
            that are not prunable.
        mask: bool [batch, longest]; true for prunable tokens.
    """
    return dictionary_attention(logits, mask).transpose(1, 2).to(tokens.dtype) @ tokens


def alignment_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return one minus the cosine of both modalities' pooled features, averaged over batch and atoms.

    >>> round(float(alignment_loss(torch.ones(1, 2, 3), -2 * torch.ones(1, 2, 3))), 4)
    2.0
    """
    return (1 - functional.cosine_similarity(first.float(), second.float(), dim=-1)).mean()
