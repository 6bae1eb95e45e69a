"""Pictures of the pruning: what is pale, what has an outline, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from madtp_cli.reporting import pruning_picture
from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock

#: 2 x 3 patches: patch 1 joined patch 0, patch 3 stands alone, patches 4 and 5 are one merged token, patch 2 is gone.
BLOCK = PrunedBlock(1, (Group(0, (0, 1)), Group(3, (3,)), Group(None, (4, 5))), (0.5, 0.1, None, 0.2, 0.1, 0.1), 4)


@pytest.fixture
def image() -> ImageInput:
    """A black image of 6 x 4 pixels."""
    return ImageInput(Image.new("RGB", (6, 4)), 2, 3, [BLOCK])


def colours_of(image: ImageInput, block: PrunedBlock) -> list[list[tuple[int, ...]]]:
    """Return the colour in the middle of each patch, red, green, blue and alpha."""
    layer: Any = pruning_picture.layer(image, block).convert("RGBA")
    size = layer.width // image.columns
    return [[layer.getpixel((size * c + size // 2, size * r + size // 2)) for c in range(3)] for r in range(2)]


def test_only_pruned_patches_are_pale(image) -> None:
    """Kept patches are not covered; the others are, in a mixture of white and the colour of their group."""
    covered = colours_of(image, BLOCK)
    assert [[patch[3] > 0 for patch in row] for row in covered] == [[False, True, True], [False, True, True]]
    assert covered[0][2][:3] == (255, 255, 255)  # gone: it is in no group
    assert covered[0][1] != covered[1][1] == covered[1][2]
    assert pruning_picture.shaded(image, None) is image.picture


def test_merged_groups_have_an_outline(image) -> None:
    """Patches 0 and 1 share one, with no line between them; patch 3 stands alone and has none."""
    layer: Any = pruning_picture.layer(image, BLOCK).convert("RGBA")
    size = layer.width // 3
    alpha = layer.getchannel("A").load()
    top, left = alpha[size // 2, 0], alpha[0, size // 2]
    assert (top, left) == (255, 255)
    assert layer.getpixel((size // 2, 0))[:3] in {
        tuple(pruning_picture.rgb(shade)) for shade in pruning_picture.COLOURS
    }
    assert alpha[size - 1, size // 2] < 255
    assert all(alpha[x, y] == 0 for x in range(size) for y in range(size, 2 * size))  # patch 3
    inner = max(1, round(size * pruning_picture.THICKNESS)) + 2
    assert alpha[size // 2, inner] == 255  # the thick outline of the kept patch
    assert alpha[size + size // 2, inner] < 255


def test_a_kept_patch_keeps_its_colour(image) -> None:
    """A reader follows it from block to block."""
    later = PrunedBlock(3, (Group(0, (0, 1, 3)), Group(None, (4, 5))), BLOCK.weights, 3)
    both = ImageInput(image.picture, 2, 3, [BLOCK, later])
    before, after = colours_of(both, BLOCK), colours_of(both, later)
    assert before[0][1] == after[0][1] == after[1][0]
    assert before[1][1:] == after[1][1:]


def test_the_summary_counts_each_patch_once(image) -> None:
    """A screen reader reads it instead of the picture."""
    assert pruning_picture.summary(image, BLOCK) == (
        "2 of 6 patches are kept, 1 pruned patches joined 1 of them, 2 pruned patches are merged into one token, "
        "1 pruned patches are gone"
    )


def test_the_importance_is_a_pixel_for_each_patch(image) -> None:
    """The most important patch is white, a protected one is black; without weights there is no picture."""
    shown = pruning_picture.importance(image)
    assert shown is not None
    assert list(shown.tobytes()) == [255, 51, 0, 102, 51, 51]
    unscored = PrunedBlock(1, BLOCK.groups, (None,) * 6, 4)
    assert pruning_picture.importance(ImageInput(image.picture, 2, 3, [unscored])) is None
