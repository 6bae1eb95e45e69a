"""Tokens of smaller images, for methods that change the image instead of pruning tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.methods import ImageGrids

#: Modulus of the number that decides which size an image gets.
MODULUS = 65_536
#: Levels of a pixel per unit of the normalised pixel values.
LEVELS = 1000


def image_numbers(pixel_values: Tensor) -> Tensor:
    """Return a number from 0 to 1 for each image, [images], that depends on its pixels alone.

    A sum of whole numbers is exact, so the number does not depend on the other images of a batch.
    """
    levels = (pixel_values.detach().float() * LEVELS).round().long()
    return (levels.flatten(1).sum(1) * 40_503 % MODULUS).float() / MODULUS


def embed(
    embeddings: Callable[..., Tensor], pixel_values: Tensor, grids: ImageGrids, side: int, *, padded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Embed each image in one of two sizes.

    Args:
        embeddings: The embedding layer of a tower, with the argument `interpolate_pos_encoding` of transformers.
        pixel_values: [images, 3, height, width].
        grids: The two sizes and the share of the images that get the larger one.
        side: Rows and columns of patches of a dense image.
        padded: Compute both sizes of all images and choose afterwards, as exporters need it.

    Returns:
        The tokens, [images, longest, width]; which of them are real, bool [images, longest]; and for each real token
        the index of the token at the same place in the dense image, [all real tokens].
    """
    is_larger = image_numbers(pixel_values) < grids.share
    parts = [(grids.larger, is_larger), (grids.smaller, ~is_larger)]
    if grids.larger == grids.smaller:
        parts = [(grids.larger, torch.ones_like(is_larger))]
    parts = parts if padded else [part for part in parts if bool(part[1].any())]
    patches = pixel_values.shape[-1] // side
    blocks = [
        _embedded(embeddings, pixel_values if padded else pixel_values[chosen], grid, patches) for grid, chosen in parts
    ]
    longest = blocks[0].shape[1]
    block = blocks[0].new_zeros(pixel_values.shape[0], longest, blocks[0].shape[2])
    mask = torch.zeros_like(block[:, :, 0], dtype=torch.bool)
    positions = torch.zeros_like(mask, dtype=torch.long)
    for (grid, chosen), tokens in zip(parts, blocks, strict=True):
        missing = longest - tokens.shape[1]
        longer = functional.pad(tokens, (0, 0, 0, missing))
        block = torch.where(chosen[:, None, None], longer, block) if padded else block.index_put((chosen,), longer)
        real = torch.arange(longest, device=mask.device) < tokens.shape[1]
        mask = torch.where(chosen[:, None], real, mask)
        dense = functional.pad(dense_positions(grid, side, tokens.shape[1] - grid[0] * grid[1]), (0, missing))
        positions = torch.where(chosen[:, None], dense.to(mask.device), positions)
    return block, mask, positions if padded else positions[mask]


def _embedded(embeddings: Callable[..., Tensor], pixel_values: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    size = [grid[0] * patch, grid[1] * patch]
    resized = functional.interpolate(pixel_values, size, mode="bicubic", antialias=True, align_corners=False)
    return embeddings(resized, interpolate_pos_encoding=True)


def dense_positions(grid: tuple[int, int], side: int, first: int) -> Tensor:
    """Return for each token of a smaller image the index of the token at the same place in the dense image.

    Args:
        grid: Rows and columns of patches.
        side: Rows and columns of patches of the dense image.
        first: Tokens before those of the patches; they are the same in both.

    >>> dense_positions((2, 2), 4, 1).tolist()
    [0, 6, 8, 14, 16]
    """
    rows, columns = (((2 * torch.arange(number) + 1) * side) // (2 * number) for number in grid)
    return torch.cat([torch.arange(first), first + (rows[:, None] * side + columns).flatten()])
