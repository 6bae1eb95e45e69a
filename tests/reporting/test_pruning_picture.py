"""Pictures of the pruning: what is pale, what has an outline, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from madtp_cli.reporting import pruning_picture
from madtp_cli.reporting.html import svg
from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock

#: 2 x 3 patches: patch 1 joined patch 0, patch 3 stands alone, patches 4 and 5 are one merged token, patch 2 is gone.
BLOCK = PrunedBlock(1, (Group(0, (0, 1)), Group(3, (3,)), Group(None, (4, 5))), (0.5, 0.1, None, 0.2, 0.1, 0.1), 4)


@pytest.fixture
def image() -> ImageInput:
    """A black image of 6 x 4 pixels."""
    return ImageInput(Image.new("RGB", (6, 4)), 2, 3, [BLOCK])


def test_only_pruned_patches_are_pale(image) -> None:
    """Kept patches show the pixels of the image; the others are mixed with white."""
    pixels = pruning_picture.shaded(image, BLOCK)
    assert pixels.shape == (4, 6, 3)
    black = [[bool((pixels[2 * row, 2 * column] == 0).all()) for column in range(3)] for row in range(2)]
    assert black == [[True, False, False], [True, False, False]]
    assert (pixels[0, 4] == round(255 * (1 - pruning_picture.PALE))).all()  # gone: no group, no tint
    assert (pruning_picture.shaded(image, None) == np.zeros((4, 6, 3))).all()


def test_groups_of_one_patch_have_no_outline(image) -> None:
    """Only merged groups do; the kept patch of a group has one of its own."""
    first, merged = pruning_picture.drawn_groups(image, BLOCK)
    assert (first.kept, first.members, merged.kept, merged.members) == (0, (0, 1), None, (4, 5))
    assert first.colour != merged.colour
    assert first.kept_outline
    assert merged.kept_outline == []


def test_an_outline_surrounds_its_patches() -> None:
    """There is no line between two patches of the group; without inset each line is on the grid."""
    lines = pruning_picture.outline([0, 1], 2, 3, inset=0.0)
    assert ((1.0, 0.0), (1.0, 1.0)) not in lines
    assert len(lines) == 6


def test_a_kept_patch_keeps_its_colour(image) -> None:
    """A reader follows it from block to block."""
    later = PrunedBlock(3, (Group(0, (0, 1, 3)), Group(None, (4, 5))), BLOCK.weights, 3)
    both = ImageInput(image.picture, 2, 3, [BLOCK, later])
    colours = [
        {group.kept: group.colour for group in pruning_picture.drawn_groups(both, block)} for block in both.blocks
    ]
    assert colours[0] == colours[1]


def test_the_summary_counts_each_patch_once(image) -> None:
    """A screen reader reads it instead of the picture."""
    assert pruning_picture.summary(image, BLOCK) == (
        "2 of 6 patches are kept, 1 pruned patches joined 1 of them, 2 pruned patches are merged into one token, "
        "1 pruned patches are gone"
    )


def test_the_shape_of_the_page_covers_the_pruned_patches(image) -> None:
    """Patches 1, 2, 4 and 5: two rectangles."""
    assert svg.pruned(image, BLOCK) == "M1 0h2v1h-2zM1 1h2v1h-2z"
