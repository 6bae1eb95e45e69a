"""The figure of `madtp show`: which patches and words of a sample each block keeps, and what each layer costs.

It is drawn with matplotlib, as the plots of `madtp report`.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from madtp_cli.reporting import pruning_picture, wording
from madtp_cli.reporting.plotting import figure, require_matplotlib
from madtp_cli.reporting.pruned_sample import ImageInput, PrunedSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of one picture and of the figure at least, height of a line of text and of the plot of costs, in inches.
PICTURE, LEAST, LINE, PLOT = 1.9, 9.0, 0.2, 1.9
#: Characters that fit into one inch.
CHARACTERS = 13


def draw(sample: PrunedSample) -> Figure:
    """Draw a sample: a row of pictures for each image, the texts, and the cost of each layer.

    Raises:
        UsageError: matplotlib is not installed.
    """
    require_matplotlib()
    columns = max((len(image.blocks) for image in sample.images), default=0) + 2
    width = max(LEAST, PICTURE * columns)
    lines = [wrapped for line in wording.heading(sample) for wrapped in textwrap.wrap(line, int(CHARACTERS * width))]
    words = [line for text in sample.texts for line in wording.text_lines(text, int(CHARACTERS * width))]
    heights = [LINE * (len(lines) + 0.6), *[PICTURE + 2.6 * LINE] * len(sample.images)]
    heights += [LINE * (len(words) + 0.6), PLOT]
    drawn = figure(width, sum(heights))
    parts: Any = drawn.subfigures(len(heights), 1, height_ratios=heights)
    for part, text in ((parts[0], lines), (parts[-2], words)):
        part.text(0.01, 0.97, "\n".join(text), va="top", fontsize=9.5, parse_math=False)
    for number, image in enumerate(sample.images):
        _draw_image(parts[1 + number], image, columns, wording.image_name(number, len(sample.images)))
    _draw_costs(parts[-1].subplots(), sample)
    return drawn


def _draw_image(part: Any, image: ImageInput, columns: int, name: str) -> None:
    """Draw the picture, the importance of its patches, and what is left of it after each block."""
    axes = part.subplots(1, columns, squeeze=False)[0]
    patches = image.rows * image.columns
    _show(axes[0], pruning_picture.shaded(image, None), f"{name}\n{patches} patches")
    importance = pruning_picture.importance(image)
    if importance is not None:
        _show(axes[1], importance, f"importance, {image.blocks[0].when}\n(bright: important)")
    first = 1 if importance is None else 2
    for axis, block in zip(axes[first:], image.blocks, strict=False):
        kept = len(block.kept)
        title = f"{block.when}\n{kept} kept, {patches - kept} pruned"
        _show(axis, pruning_picture.shaded(image, block), title)
    for axis in axes[first + len(image.blocks) :]:
        axis.set_visible(False)


def _show(axis: Axes, picture: Any, title: str) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=8.5)
    axis.set(xticks=[], yticks=[])


def _draw_costs(axis: Axes, sample: PrunedSample) -> None:
    """Draw the GFLOPs of each block as bars, in front of those of the dense model, with the tokens that leave it."""
    layers = [layer for layer in sample.layers if layer.tokens_out is not None]
    dense = [layer for layer in sample.dense_layers if layer.tokens_out is not None]
    places = range(len(layers))
    axis.bar(places, [layer.gflops for layer in dense], color="#d0d4dc", label="dense")
    if sample.method:
        axis.bar(places, [layer.gflops for layer in layers], color="#4477aa", width=0.6, label="pruned")
    for place, (layer, all_tokens) in enumerate(zip(layers, dense, strict=True)):
        tokens = f"{layer.tokens_out:.0f} of {all_tokens.tokens_out:.0f}"
        axis.annotate(tokens, (place, all_tokens.gflops), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axis.set_xticks(places, [wording.layer_name(layer) for layer in layers], fontsize=7, rotation=30, ha="right")
    axis.set_ylabel("GFLOPs", fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(y=0.18)
    axis.set_title("GFLOPs of each block for this sample, and the tokens that leave it", fontsize=8.5)
    axis.legend(fontsize=7.5, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
