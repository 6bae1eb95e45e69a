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
        blocks: Number of blocks of each tower, to give each block its own projection with bias, as the released MADTP
            code does for CLIP; None for one projection per tower.
    """

    def __init__(
        self, tower_widths: Mapping[str, int], size: int, width: int, blocks: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(torch.randn(size, width))
        self.width, self.per_block = width, blocks is not None
        self._folded: dict[tuple[str, int], tuple[Any, Tensor, Tensor | None]] = {}
        self.projections = nn.ModuleDict(
            {
                # No bias: it adds the same number to all logits of an atom, and a softmax over tokens ignores that.
                tower: nn.Linear(tower_width, width, bias=False)
                if blocks is None
                else nn.ModuleList(nn.Linear(tower_width, width) for _ in range(blocks[tower]))
                for tower, tower_width in tower_widths.items()
            }
        )
        for layer in self.projections.modules():
            if isinstance(layer, nn.Linear):
                # The logits of normalised tokens then have variance one.
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def folded(self, tower: str, block: int = 0) -> Tensor:
        """Return projection and dictionary of a block as one matrix, [tower width, size].

        The logits of normalised tokens x are x @ folded. Projecting each token in each block instead would cost up to
        8 % of a layer. Without gradients the matrix is computed once and cached.
        """
        return self._fold(tower, block)[0]

    def folded_bias(self, tower: str, block: int = 0) -> Tensor | None:
        """Return what the bias of a block's projection adds to the logits, [size]; None without a bias."""
        return self._fold(tower, block)[1]

    def _fold(self, tower: str, block: int) -> tuple[Tensor, Tensor | None]:
        layer = self._layer(tower, block)
        if torch.is_grad_enabled():
            return self._product(layer)
        # A deep copy also copies this cache; the ids distinguish its parameters from the original ones.
        parameters = [self.dictionary, *layer.parameters()]
        state = [(id(part), part._version, part.device, part.dtype) for part in parameters]
        key = (tower, block if self.per_block else 0)
        if self._folded.get(key, (None,))[0] != state:
            self._folded[key] = (state, *self._product(layer))
        return self._folded[key][1:]

    def _product(self, layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
        scale = self.dictionary.shape[1] ** 0.5
        bias = None if layer.bias is None else (self.dictionary @ layer.bias) / scale
        return (layer.weight.T @ self.dictionary.T) / scale, bias

    def _layer(self, tower: str, block: int) -> nn.Linear:
        projection = self.projections[tower]
        return cast(nn.Linear, projection[block] if isinstance(projection, nn.ModuleList) else projection)

    def project_block(self, tower: str, block: int, pooled: Tensor) -> Tensor:
        """Project pooled tokens of one block, if each block has its own projection; otherwise return them."""
        return self._layer(tower, block)(pooled) if self.per_block else pooled

    def project(self, tower: str, pooled: Tensor) -> Tensor:
        """Project pooled tokens [..., tower width] into the shared space, [..., width], if no block has done so."""
        return pooled if self.per_block else self._layer(tower, 0)(pooled)


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
