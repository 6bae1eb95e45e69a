"""`madtp_cli.show` and `madtp_cli.report`: the pages and figures of results, for callers from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from madtp_cli.pipelines.python_wording import with_python_names

if TYPE_CHECKING:
    from typing import Unpack

    from matplotlib.figure import Figure

    from madtp_cli.config.keywords import RunKeywords
    from madtp_cli.progress import ProgressReporter


@with_python_names
def show(
    source: str | Path,
    *,
    images: Sequence[str | Path],
    text: str | Sequence[str] = (),
    output: str | Path | None = None,
    overwrite: bool = False,
    dense: str | Path | None = None,
    progress: bool | ProgressReporter = False,
    **settings: Unpack[RunKeywords],
) -> Figure:
    """Draw which patches and words of a sample each block keeps, like `madtp show`.

    Args:
        source: As in `load`.
        images: Image files; of two, the left one first.
        text: The text of the sample; in retrieval it may be a list of texts.
        output, overwrite: File to write too, .png or .html, and whether to replace one that madtp did not write.
        dense: Dense checkpoint to compare with. Default: the one that the folder was made of, or, if it is not there
            any more, the same weights without pruning.
        progress: True shows progress bars; a reporter receives the progress.
        settings: Device, and how to read the checkpoint; `config.RunSettings` describes all settings.

    Returns:
        A figure of matplotlib.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import RunSettings
    from madtp_cli.pipelines import keyword_arguments, show

    own = ("images", "text", "output", "overwrite", "dense")
    resolved = keyword_arguments.to_settings(RunSettings, settings, own)
    texts, paths = [text] if isinstance(text, str) else list(text), [Path(image) for image in images]
    reference, reporter = None if dense is None else Path(dense), keyword_arguments.to_reporter(progress)
    sample = show.show(Path(source), paths, texts, resolved, reporter, reference)
    if output is not None:
        show.write(sample, Path(output), overwrite)
    return show.figure(sample)


@with_python_names
def report(
    *folders: str | Path,
    output: str | Path | None = None,
    pictures: int = 16,
    overwrite: bool = False,
    progress: bool | ProgressReporter = False,
    **settings: Unpack[RunKeywords],
) -> Path:
    """Write one HTML page about folders that `compress` wrote, like `madtp report`, and return its path.

    Args:
        folders: The folders.
        output: The file; `report.html` in the first folder if None.
        pictures: Samples with pictures, of all folders together; 0 runs no model.
        overwrite: Replace a file that madtp did not write.
        progress: True shows progress bars; a reporter receives the progress.
        settings: Where the data are now, and the device; `config.RunSettings` describes all settings.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import RunSettings
    from madtp_cli.pipelines import keyword_arguments, report

    own = ("output", "pictures", "overwrite")
    return report.report(
        [Path(folder) for folder in folders],
        None if output is None else Path(output),
        keyword_arguments.to_settings(RunSettings, settings, own),
        keyword_arguments.to_reporter(progress),
        pictures=pictures,
        overwrite=overwrite,
    )
