"""Shapes of a picture of the pruning, as paths of SVG in units of patches."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from madtp_cli.reporting import pruning_picture
from madtp_cli.reporting.pruned_sample import ImageInput, PrunedBlock

if TYPE_CHECKING:
    from madtp_cli.reporting.pruning_picture import Line


def patches(numbers: Iterable[int], columns: int) -> str:
    """Return the path that covers some patches; neighbours in a row are one rectangle.

    >>> patches([0, 1, 3], 2)
    'M0 0h2v1h-2zM1 1h1v1h-1z'
    """
    path = ""
    for row, inside in groupby(sorted(numbers), key=lambda patch: patch // columns):
        for start, length in _runs([patch % columns for patch in inside]):
            path += f"M{start} {row}h{length}v1h-{length}z"
    return path


def _runs(numbers: list[int]) -> Iterable[tuple[int, int]]:
    """Yield the first number and the length of each run of consecutive numbers."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        yield found[0], len(found)


def lines(edges: Iterable[Line]) -> str:
    """Return the path of some lines, which all are horizontal or vertical.

    >>> lines([((0.0, 1.0), (2.0, 1.0)), ((0.5, 0.0), (0.5, 1.0))])
    'M0 1H2M0.5 0V1'
    """
    path = ""
    for (x, y), (to_x, to_y) in edges:
        path += f"M{x:.3g} {y:.3g}" + (f"V{to_y:.3g}" if x == to_x else f"H{to_x:.3g}")
    return path


def pruned(image: ImageInput, block: PrunedBlock) -> str:
    """Return the path that covers the pruned patches."""
    return patches(set(range(image.rows * image.columns)) - block.kept, image.columns)


def colour(group: pruning_picture.DrawnGroup) -> str:
    """Return the colour of a group."""
    return pruning_picture.COLOURS[group.colour]


def importance(image: ImageInput) -> str:
    """Return the importance of the patches as a grey picture, a data URI: bright patches are important."""
    import numpy as np
    from PIL import Image as Images

    values = pruning_picture.importance(image)
    if values is None:
        return ""
    stream = io.BytesIO()
    Images.fromarray(np.round(255 * values).astype(np.uint8)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
