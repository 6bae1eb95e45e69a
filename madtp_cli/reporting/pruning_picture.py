"""How pruning is drawn on an image: pruned patches are pale, kept patches are clear, merged patches have an outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

#: Colours of groups, which stay apart for colour-blind readers and on most pictures; used again after the last one.
COLOURS = ("#e69f00", "#0072b2", "#d62728", "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#6a3d9a", "#7f7f00", "#4d4d4d")
#: The share of a pruned patch that remains visible, and the share of its group's colour in what covers it.
PALE, TINT = 0.22, 0.16
#: Side of a layer over a picture, in pixels, and the part of a patch's side that is the thickness of an outline.
SIDE, THICKNESS = 192, 1 / 9


def layer(image: ImageInput, block: PrunedBlock, pale: int = 255) -> Image:
    """Return what is drawn over a picture, as a small image with few colours and with transparency.

    Pruned patches are covered with a mixture of a grey value and the colour of their group. Groups of several patches
    have an outline, and the kept patch of such a group has a second, thicker one inside.

    Args:
        image: The image.
        block: The block after which it is shown.
        pale: The grey value, 0 to 255.
    """
    import numpy as np
    from PIL import Image as Images

    size = max(8, SIDE // image.columns)
    width = max(1, round(size * THICKNESS))
    owner, colour = _by_patch(image, block)
    kept = np.isin(np.arange(owner.size), list(block.kept)).reshape(owner.shape)
    # The palette has nothing, then for no colour and each colour what covers a pruned patch, then the lines.
    cells = _enlarged(np.where(kept, 0, 1 + colour), size)
    lines = _enlarged(2 + len(COLOURS) + colour, size)
    grouped = colour > 0
    cells = np.where(_edges(owner, grouped, size, 0, width), lines, cells)
    alone = np.arange(owner.size).reshape(owner.shape)
    inner = _edges(alone, grouped & kept, size, width + 1, width + size // 16)
    drawn = Images.fromarray(np.where(inner, lines, cells).astype(np.uint8))
    covers = [[round((1 - TINT) * pale + TINT * part) for part in rgb(shade)] for shade in COLOURS]
    palette = [[0, 0, 0], [pale] * 3, *covers, [0, 0, 0], *map(rgb, COLOURS)]
    drawn.putpalette([part for entry in palette for part in entry])
    alpha = [0, *[round(255 * (1 - PALE))] * (1 + len(COLOURS)), *[255] * (1 + len(COLOURS))]
    drawn.info["transparency"] = bytes(alpha[: len(palette)])
    return drawn


def shaded(image: ImageInput, block: PrunedBlock | None, pale: int = 255) -> Image:
    """Return the picture with its layer, RGB; None for the picture before the first block."""
    if block is None:
        return image.picture
    over = layer(image, block, pale).convert("RGBA")
    side = max(over.width, image.picture.width), max(over.height, image.picture.height)
    picture = image.picture.convert("RGBA").resize(side)
    picture.alpha_composite(over.resize(side, resample=0))
    return picture.convert("RGB")


def _by_patch(image: ImageInput, block: PrunedBlock) -> tuple[np.ndarray, np.ndarray]:
    """Return for each patch the number of its group, and that of its colour from 1, 0 for none; [rows, columns]."""
    import numpy as np

    owner = np.full(image.rows * image.columns, -1)
    colour, colours = np.zeros_like(owner), _colours(image.blocks)
    for number, group in enumerate(block.groups):
        owner[list(group.members)] = number
        if len(group.members) > 1:
            colour[list(group.members)] = 1 + colours[_key(group)]
    shape = (image.rows, image.columns)
    return owner.reshape(shape), colour.reshape(shape)


def _edges(owner: np.ndarray, drawn: np.ndarray, size: int, start: int, width: int) -> np.ndarray:
    """Return the pixels of the outlines of groups, bool; `start` is their distance from the edge of a patch."""
    import numpy as np

    inside = np.pad(owner, 1, constant_values=-2)
    local = np.arange(size)
    low, high = (local >= start) & (local < start + width), (local < size - start) & (local >= size - start - width)
    reach = (local >= start) & (local < size - start)
    found = np.zeros((owner.shape[0] * size, owner.shape[1] * size), dtype=bool)
    for other, rows, columns in (
        (inside[:-2, 1:-1], low, reach),
        (inside[2:, 1:-1], high, reach),
        (inside[1:-1, :-2], reach, low),
        (inside[1:-1, 2:], reach, high),
    ):
        found |= np.kron(drawn & (other != owner), rows[:, None] & columns[None])
    return found


def _enlarged(values: np.ndarray, size: int) -> np.ndarray:
    import numpy as np

    return np.kron(values, np.ones((size, size), dtype=values.dtype))


def _colours(blocks: Sequence[PrunedBlock]) -> dict[int, int]:
    """Return the number of the colour of each merged group, the largest groups of the last block first.

    A kept patch has the same colour after every block.
    """
    found: dict[int, int] = {}
    for block in reversed(blocks):
        for group in sorted(block.merged, key=lambda group: -len(group.members)):
            found.setdefault(_key(group), len(found) % len(COLOURS))
    return found


def _key(group: Group) -> int:
    """Return what identifies a group in several blocks: its kept patch, or -1 for pruned patches only."""
    return -1 if group.kept is None else group.kept


def rgb(colour: str) -> list[int]:
    """Return red, green and blue of a colour.

    >>> rgb("#e69f00")
    [230, 159, 0]
    """
    return list(bytes.fromhex(colour[1:]))


def summary(image: ImageInput, block: PrunedBlock) -> str:
    """Describe an image after a block in words: how many patches were kept, and where the pruned ones went."""
    patches, kept = image.rows * image.columns, len(block.kept)
    inside = sum(len(group.members) for group in block.groups)
    targets = [group for group in block.merged if group.kept is not None]
    parts = [f"{kept} of {patches} patches are kept"]
    if targets:
        joined = sum(len(group.members) - 1 for group in targets)
        parts.append(f"{joined} pruned patches joined {len(targets)} of them")
    alone = sum(len(group.members) for group in block.groups if group.kept is None)
    if alone:
        parts.append(f"{alone} pruned patches are merged into one token")
    if patches - inside:
        parts.append(f"{patches - inside} pruned patches are gone")
    return ", ".join(parts)


def importance(image: ImageInput) -> Image | None:
    """Return the importance of the patches in the first block that chose patches: a grey pixel each, bright: important.

    None if no block chose patches by their importance.
    """
    import numpy as np

    if not image.blocks or not any(image.blocks[0].weights):
        return None
    from PIL import Image as Images

    weights = np.array([weight or 0.0 for weight in image.blocks[0].weights]).reshape(image.rows, image.columns)
    return Images.fromarray(np.round(255 * weights / max(weights.max(), 1e-12)).astype(np.uint8))
