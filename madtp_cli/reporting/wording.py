"""Sentences and names that the figure, the pages and the terminal share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from madtp_cli.reporting.parts import LayerPart
from madtp_cli.reporting.pruned_sample import Answers, PrunedBlock, PrunedSample, TextInput
from madtp_cli.reporting.run_parts import AllocationTrial


def tower_name(tower: str) -> str:
    """Name a tower as people do; reports call the image tower "vision", as its weights do.

    >>> tower_name("vision"), tower_name("text")
    ('image', 'text')
    """
    return "image" if tower == "vision" else tower


def layer_name(layer: LayerPart) -> str:
    """Name a layer; blocks are numbered from 1.

    >>> layer_name(LayerPart(tower="vision", layer="layer 0", gflops=1)), layer_name(
    ...     LayerPart(tower="head", layer="classifier", gflops=1)
    ... )
    ('image block 1', 'head classifier')
    """
    kind, _, number = layer.layer.partition(" ")
    name = f"block {int(number) + 1}" if kind == "layer" and number.isdigit() else layer.layer
    return f"{tower_name(layer.tower)} {name}"


def image_name(number: int, images: int) -> str:
    """Name an image of a sample.

    >>> image_name(0, 1), image_name(0, 2), image_name(1, 2)
    ('image', 'left image', 'right image')
    """
    return "image" if images == 1 else f"{('left', 'right')[number]} image" if images == 2 else f"image {number + 1}"


def answers(given: Answers) -> str:
    """State the answers of both models, and the right one."""
    parts = [f"{given.dense_model}: {given.dense}"]
    if given.pruned is not None:
        parts.append(f"pruned model: {given.pruned}")
    if given.right:
        parts.append(f"label: {given.right}")
    return " · ".join(parts)


def allocation(trials: Sequence[AllocationTrial]) -> str:
    """State the allocation that was chosen; the first trial is the best one.

    >>> allocation([AllocationTrial(embedding_scale=2, rise=6, loss=0.1, threshold_scale=0.02)])
    'Allocation (best of 1): threshold scale x 2 before the first block, then x 1 rising to x 6 in the last block.'
    """
    best = trials[0]
    texts = f" Texts: x {best.text_scale:g}." if best.text_scale else ""
    return (
        f"Allocation (best of {len(trials)}): threshold scale x {best.embedding_scale:g} before the first block, "
        f"then x 1 rising to x {best.rise:g} in the last block.{texts}"
    )


def cost(sample: PrunedSample) -> str:
    """State the GFLOPs of a sample.

    >>> cost_of(0.6, 0.12)
    '0.12 of 0.6 GFLOPs (20.0 %)'
    """
    return cost_of(sample.gflops.dense, sample.gflops.pruned)


def cost_of(dense: float, pruned: float | None) -> str:
    """State the GFLOPs of the dense and the pruned model."""
    if pruned is None:
        return f"{dense:.4g} GFLOPs"
    return f"{pruned:.4g} of {dense:.4g} GFLOPs ({pruned / dense:.1%})".replace("%)", " %)")


#: How to read the pictures.
LEGEND = (
    "Clear patches are kept, pale patches are pruned. A pale patch has the colour of the kept patch that it joined, "
    "which has a thick outline; a kept patch without outline stands for itself alone."
)


def heading(sample: PrunedSample) -> list[str]:
    """State the text, the answers, the cost and the method of a sample in paragraphs."""
    lines = [f"“{sample.text}”"] if sample.text else []
    lines.append(f"{answers(sample.answers)} · {cost(sample)}")
    if sample.method:
        lines.append(f"Method {sample.method}: {sample.rule}. {LEGEND}")
    return lines


def text_lines(text: TextInput, width: int) -> list[str]:
    """Describe a text in lines: its tokens, and after each block that chose tokens what it kept."""
    name = f"{tower_name(text.tower)} tower"
    if not text.blocks:
        return _wrapped(f"{name}, not pruned: {' '.join(text.tokens)}", width)
    lines = _wrapped(f"{name}: {' '.join(text.tokens)}", width)
    for block in text.blocks:
        lines += _wrapped(f"{block.when}: {' '.join(marked(text, block))}", width)
    return lines


def marked(text: TextInput, block: PrunedBlock) -> Sequence[str]:
    """Return the tokens of a text after a block, each with its importance; a pruned one is in brackets."""
    kept = block.kept
    return [_marked(token, block.weights[number], number in kept) for number, token in enumerate(text.tokens)]


def _marked(token: str, weight: float | None, kept: bool) -> str:
    shown = token if weight is None else f"{token}:{weight:.2g}"
    return shown if kept else f"({shown})"


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent="    ")
