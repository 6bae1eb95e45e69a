"""The result of `madtp show`: answers and costs, and small pictures for terminals that can show colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from madtp_cli.cli.results import _shared
from madtp_cli.errors import printable
from madtp_cli.reporting import pruning_picture, wording
from madtp_cli.reporting.pruned_sample import ImageInput, PrunedBlock, PrunedSample

#: Columns of a small picture and between two of them; a character shows two pixels, one above the other.
WIDTH, GAP = 24, 2
#: Width of a terminal that is not known.
USUAL_WIDTH = 80
#: Grey value behind pruned patches: dark and light terminals differ from it.
PALE = 128


def document(sample: PrunedSample, file: Path | None) -> dict[str, Any]:
    """Return the content of the JSON document."""
    images = [
        {
            "rows": image.rows,
            "columns": image.columns,
            "blocks": [
                {"block": block.number, "tokens": block.tokens, "groups": [asdict(group) for group in block.groups]}
                for block in image.blocks
            ],
        }
        for image in sample.images
    ]
    texts = [{"tower": text.tower, "tokens": list(text.tokens)} for text in sample.texts]
    return {
        "file": None if file is None else str(file),
        "text": sample.text,
        "answers": asdict(sample.answers),
        "gflops": sample.gflops.model_dump(),
        "images": images,
        "texts": texts,
        "layers": [layer.model_dump() for layer in sample.layers],
    }


def show(sample: PrunedSample, file: Path | None, out: Console, pictures: bool) -> None:
    """Print what the sample is and costs; with `pictures` also its images.

    A terminal without colours gets only the sentences.
    """
    for line in wording.heading(sample)[: 2 if sample.text else 1]:
        out.print(printable(line))
    if pictures and out.color_system is not None:
        for number, image in enumerate(sample.images):
            name = wording.image_name(number, len(sample.images))
            for row in _pictures(image, name, min(out.width, USUAL_WIDTH * 2)):
                out.print(row, no_wrap=True, crop=False)
    else:
        for line in _sentences(sample):
            out.print(line)
    for text in sample.texts:
        for line in wording.text_lines(text, USUAL_WIDTH):
            out.print(printable(line))
    out.print(_table(sample))
    if file is not None:
        out.print(f"Written: {printable(str(file))}")


def _sentences(sample: PrunedSample) -> Iterator[str]:
    for number, image in enumerate(sample.images):
        for block in image.blocks:
            name = wording.image_name(number, len(sample.images))
            yield f"{name}, {block.when}: {pruning_picture.summary(image, block)}"


def _table(sample: PrunedSample) -> Any:
    table = _shared.table("", "layer", "tokens in", "tokens out", "GFLOPs", "dense")
    for layer, dense in zip(sample.layers, sample.dense_layers, strict=True):
        tokens = ["" if value is None else f"{value:.4g}" for value in (layer.tokens_in, layer.tokens_out)]
        table.add_row(wording.layer_name(layer), *tokens, f"{layer.gflops:.4g}", f"{dense.gflops:.4g}")
    return table


def _pictures(image: ImageInput, name: str, width: int) -> Iterator[Text]:
    """Yield the lines of the small pictures of an image, as many next to each other as fit."""
    blocks: list[PrunedBlock | None] = [None, *image.blocks]
    at_once = max(1, (width + GAP) // (WIDTH + GAP))
    for start in range(0, len(blocks), at_once):
        part = blocks[start : start + at_once]
        yield Text((" " * GAP).join(_title(name, block).ljust(WIDTH) for block in part).rstrip())
        columns = [_half_blocks(pruning_picture.shaded(image, block, PALE)) for block in part]
        for lines in zip(*columns, strict=True):
            yield Text(" " * GAP).join(lines)


def _title(name: str, block: PrunedBlock | None) -> str:
    return name if block is None else f"{block.when}: {len(block.kept)} patches"


def _half_blocks(picture: Any) -> Sequence[Text]:
    """Return the lines of a picture: each character is an upper half with its own background."""
    small = picture.resize((WIDTH, WIDTH))
    lines = []
    for row in range(0, WIDTH, 2):
        line = Text()
        for column in range(WIDTH):
            above, below = (Color.from_rgb(*small.getpixel((column, row + half))) for half in (0, 1))
            line.append("▀", Style(color=above, bgcolor=below))
        lines.append(line)
    return lines
