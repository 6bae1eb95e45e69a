"""How pruning is drawn on an image: pruned patches are pale, kept patches are clear, merged patches have an outline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock

if TYPE_CHECKING:
    import numpy as np

#: Colours of groups, which stay apart for colour-blind readers and on most pictures; used again after the last one.
COLOURS = ("#e69f00", "#0072b2", "#d62728", "#009e73", "#cc79a7", "#56b4e9", "#8c564b", "#6a3d9a", "#7f7f00", "#4d4d4d")
#: The share of a pruned patch that remains visible, and the share of its group's colour.
PALE, TINT = 0.22, 0.16
#: Distance of an outline from the edge of its patches, in patches: outlines of neighbours do not cover each other.
INSET = 0.07

#: A line from (x, y) to (x, y), in patches.
Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class DrawnGroup:
    """A group of merged patches as it is drawn.

    Attributes:
        kept: The kept patch; None for a token that consists of pruned patches only.
        members: The patches.
        colour: Number of its colour.
        outline: The edges of the patches.
        kept_outline: The edges of the kept patch.
    """

    kept: int | None
    members: tuple[int, ...]
    colour: int
    outline: list[Line]
    kept_outline: list[Line]


def drawn_groups(image: ImageInput, block: PrunedBlock) -> list[DrawnGroup]:
    """Return the merged groups of an image after a block. A kept patch has the same colour after every block."""
    colours = _colours(image.blocks)
    return [
        DrawnGroup(
            group.kept,
            group.members,
            colours[_key(group)],
            outline(group.members, image.rows, image.columns),
            [] if group.kept is None else outline([group.kept], image.rows, image.columns, 2.2 * INSET),
        )
        for group in block.merged
    ]


def _colours(blocks: Sequence[PrunedBlock]) -> dict[int, int]:
    """Return the number of the colour of each merged group, the largest groups of the last block first."""
    found: dict[int, int] = {}
    for block in reversed(blocks):
        for group in sorted(block.merged, key=lambda group: -len(group.members)):
            found.setdefault(_key(group), len(found) % len(COLOURS))
    return found


def _key(group: Group) -> int:
    """Return what identifies a group in several blocks: its kept patch, or -1 for pruned patches only."""
    return -1 if group.kept is None else group.kept


def outline(patches: Iterable[int], rows: int, columns: int, inset: float = INSET) -> list[Line]:
    """Return the edges of a set of patches towards all other patches, slightly inside of it.

    >>> outline([0], 1, 1, 0.0)
    [((0.0, 0.0), (1.0, 0.0)), ((0.0, 1.0), (1.0, 1.0)), ((0.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (1.0, 1.0))]
    """
    inside, lines = set(patches), []
    for patch in sorted(inside):
        row, column = divmod(patch, columns)
        above, below = row > 0 and patch - columns in inside, row < rows - 1 and patch + columns in inside
        before, after = column > 0 and patch - 1 in inside, column < columns - 1 and patch + 1 in inside
        left, right = column + inset * (not before), column + 1 - inset * (not after)
        top, bottom = row + inset * (not above), row + 1 - inset * (not below)
        sides = (
            (above, (left, top), (right, top)),
            (below, (left, bottom), (right, bottom)),
            (before, (left, top), (left, bottom)),
            (after, (right, top), (right, bottom)),
        )
        lines += [
            ((float(start[0]), float(start[1])), (float(end[0]), float(end[1])))
            for covered, start, end in sides
            if not covered
        ]
    return lines


def shaded(image: ImageInput, block: PrunedBlock | None, pale: float = 255.0) -> np.ndarray:
    """Return the picture with its pruned patches mixed with a grey value, uint8 [height, width, 3].

    Args:
        image: The image.
        block: The block after which it is shown; None before the first block.
        pale: The grey value, 0 to 255.
    """
    import numpy as np

    pixels = np.asarray(image.picture, dtype=np.float64)
    if block is None:
        return pixels.astype(np.uint8)
    share, colour = np.full(image.rows * image.columns, PALE), np.full((image.rows * image.columns, 3), pale)
    for group in drawn_groups(image, block):
        colour[list(group.members)] += TINT * (np.array(rgb(COLOURS[group.colour])) - pale)
    share[list(block.kept)] = 1
    mask = _spread(share.reshape(image.rows, image.columns, 1), pixels.shape)
    behind = _spread(colour.reshape(image.rows, image.columns, 3), pixels.shape)
    return np.round(mask * pixels + (1 - mask) * behind).astype(np.uint8)


def rgb(colour: str) -> list[int]:
    """Return red, green and blue of a colour.

    >>> rgb("#e69f00")
    [230, 159, 0]
    """
    return list(bytes.fromhex(colour[1:]))


def _spread(patches: np.ndarray, shape: Sequence[int]) -> Any:
    """Return a value for each pixel from a value for each patch, [rows, columns, any]."""
    import numpy as np

    rows, columns = (np.arange(shape[axis]) * patches.shape[axis] // shape[axis] for axis in (0, 1))
    return patches[rows][:, columns]


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


def importance(image: ImageInput) -> np.ndarray | None:
    """Return the importance of each patch before the first block that chose patches, from 0 to 1, [rows, columns].

    None if no block chose patches by their importance.
    """
    import numpy as np

    if not image.blocks or not any(image.blocks[0].weights):
        return None
    weights = np.array([weight or 0.0 for weight in image.blocks[0].weights])
    scaled: np.ndarray = (weights / max(weights.max(), 1e-12)).reshape(image.rows, image.columns)
    return scaled
