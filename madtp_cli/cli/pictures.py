"""The commands that show results to people: `madtp show` and `madtp report`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from madtp_cli.cli import context, early_checks, results
from madtp_cli.cli import option_groups as groups
from madtp_cli.cli import options as opt
from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError, printable

#: Endings of the files that `madtp show` writes.
SUFFIXES = (".png", ".html")

Images = Annotated[
    list[Path] | None,
    opt.option("Image file of the sample; of two, the left one first. [required]", "--image", panel="Sample"),
]
Texts = Annotated[
    list[str] | None,
    opt.option(
        "Text of the sample: statement, question or caption. In retrieval it can be given several times. "
        "Default: none for captions, otherwise required.",
        "--text",
        panel="Sample",
    ),
]
Dense = Annotated[
    Path | None,
    opt.option(
        "Dense checkpoint to compare with. Default: the one that the folder was made of; if it is not there any more, "
        "the same weights without pruning.",
        "--dense",
        panel="Sample",
    ),
]
File = Annotated[
    Path | None,
    opt.option(
        "File to write: .png or .html. Default: CHECKPOINT-pruning.png. A file of an earlier run is replaced.",
        *("--output", "-o"),
        panel="Output",
    ),
]
AsHtml = Annotated[bool, opt.option("Write one self-contained HTML file.", "--html", panel="Output")]
InTerminal = Annotated[
    bool,
    opt.option("Show small pictures in the terminal; write a file only with -o.", "--terminal", panel="Output"),
]
Overwrite = Annotated[
    bool, opt.option("Replace the file also if madtp did not write it.", "--overwrite", panel="Output")
]

Folders = Annotated[
    list[Path], typer.Argument(help="Folders that `madtp compress` wrote, one or several.", show_default=False)
]
Page = Annotated[
    Path | None,
    opt.option(
        "HTML file to write. Default: report.html in the first folder. A page of an earlier run is replaced.",
        *("--output", "-o"),
        panel="Output",
    ),
]
Pictures = Annotated[
    int | None,
    opt.option(
        "Samples with pictures, of all folders together, 0 to 200; 0 runs no model. [default: 16]",
        "--pictures",
        panel="Output",
        min=0,
        max=200,
    ),
]


@groups.add(groups.READING, groups.COMPUTE, groups.OUTPUT)
def show(
    ctx: typer.Context,
    checkpoint: opt.Checkpoint,
    image: Images = None,
    text: Texts = None,
    dense: Dense = None,
    output: File = None,
    html: AsHtml = False,
    terminal: InTerminal = False,
    overwrite: Overwrite = False,
) -> None:
    """Show which patches of an image and which words each block keeps, where the pruned ones go, and what it costs."""
    settings, progress = context.settings(ctx, RunSettings, early_check=False)
    if not image:
        raise UsageError("--image is missing.\nGive --image FILE, for a pair twice: the left one first.")
    file = _file(checkpoint, output, html, terminal)
    early_checks.check_images(image)
    if file is not None:
        early_checks.check_own_file(file, overwrite)
    early_checks.check_checkpoint(checkpoint)
    context.import_torch(progress)
    from madtp_cli.pipelines import show as pipeline

    sample = pipeline.show(checkpoint, image, text or (), settings, progress, dense)
    if file is not None:
        pipeline.write(sample, file, overwrite)
    context.print_document(
        ctx, results.show.document(sample, file), lambda _, out: results.show.show(sample, file, out, terminal)
    )


@groups.add(groups.PLACE, groups.OUTPUT)
def report(
    ctx: typer.Context,
    folders: Folders,
    output: Page = None,
    pictures: Pictures = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page: is the pruning worth it, which samples changed, and which parts of the images went."""
    ctx.params["checkpoint"] = folders[0]
    settings, progress = context.settings(ctx, RunSettings)
    for folder in folders[1:]:
        early_checks.check_checkpoint(folder)
    if output is not None and output.suffix not in (".html", ".htm"):
        raise UsageError(f"--output: the name {output.name!r} must end with .html.")
    from madtp_cli.pipelines import report as pipeline

    number = pipeline.PICTURES if pictures is None else pictures
    file = pipeline.report(folders, output, settings, progress, pictures=number, overwrite=overwrite)
    context.print_document(ctx, {"file": str(file), "folders": [str(folder) for folder in folders]}, _show_page)


def _show_page(found: Mapping[str, Any], out: Console) -> None:
    out.print(f"Written: {printable(found['file'])}")


def _file(checkpoint: Path, output: Path | None, html: bool, terminal: bool) -> Path | None:
    """Return the file to write, if any.

    Raises:
        UsageError: The ending is not known, or contradicts --html.
    """
    if output is None:
        return None if terminal else Path(f"{checkpoint.resolve().stem}-pruning{'.html' if html else '.png'}")
    if output.suffix not in SUFFIXES or (html and output.suffix != ".html"):
        allowed = ".html" if html else " or ".join(SUFFIXES)
        raise UsageError(f"--output: the name {output.name!r} must end with {allowed}.")
    return output


def register(app: typer.Typer) -> None:
    """Add the commands."""
    sample = 'madtp show blip-madtp --image a.jpg --image b.jpg --text "both have a dog" -o pruning.png'
    app.command(epilog=context.examples(sample))(show)
    pages = ("madtp report blip-madtp", "madtp report blip-half blip-fifth -o both.html")
    app.command(epilog=context.examples(*pages))(report)
