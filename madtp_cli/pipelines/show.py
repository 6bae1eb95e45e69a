"""madtp show: run one sample, and draw which patches and words each block keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from madtp_cli import processes, tasks
from madtp_cli.checkpoint import own_files
from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import RunSettings
from madtp_cli.data import Dataset, Row, schemas
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import source_model
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.pruned_samples import Viewer
from madtp_cli.evaluation.session import load_checkpoint
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting import html, pruning_figure
from madtp_cli.reporting.pruned_sample import PrunedSample
from madtp_cli.tasks import ComparingTask, ModelTask, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Name of the same model with pruning switched off, in messages.
SWITCHED_OFF = "the same weights without pruning"
#: Pixels per inch of a PNG.
DPI = 130


def show(
    source: Path,
    images: Sequence[Path],
    texts: Sequence[str],
    settings: RunSettings,
    progress: ProgressReporter | None = None,
    dense: Path | None = None,
) -> PrunedSample:
    """Run one sample through the pruned and the dense model.

    Args:
        source: A checkpoint, pruned or dense.
        images: The image files of the sample, the left one first.
        texts: Its text; several to choose from where the task compares an image with texts.
        settings: Device, number format, and how to read the checkpoint.
        progress: Receives the progress.
        dense: The dense checkpoint to compare with. Default: the checkpoint that the folder was made of; if that is
            not known or not there, the same weights without pruning.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    processes.require_one("show")
    progress = progress or ProgressReporter()
    compute = ComputeConfig.of(settings.device, settings.dtype)
    loaded = load_checkpoint(source, settings, progress)
    nothing = Dataset(tasks.get(loaded.model.config.task).schema, "", {})
    task = tasks.prepared(loaded.model.config.task, loaded.processor, nothing, config=loaded.model.config)
    row = _row(task, images, texts)
    model = loaded.model.to(compute.device)
    reference, name = _dense(source, model, settings, dense)
    progress.start("Running the sample", 0)
    sample = Viewer(model, loaded.processor, task, compute, reference.to(compute.device), name).view(row)
    progress.finish()
    return sample


def write(sample: PrunedSample, file: Path, overwrite: bool = False) -> None:
    """Write the figure of a sample as .png, or its page as .html.

    Raises:
        OutputError: The file cannot be written.
        UsageError: A package is missing.
    """
    if file.suffix == ".html":
        own_files.write_text(file, html.sample_page(sample), overwrite)
        return
    drawn, metadata = figure(sample), {"Software": own_files.MARK}
    own_files.write(file, lambda new: drawn.savefig(new, format="png", dpi=DPI, metadata=metadata), overwrite)


def figure(sample: PrunedSample) -> Figure:
    """Return the figure of a sample.

    Raises:
        UsageError: matplotlib is not installed.
    """
    return pruning_figure.draw(sample)


def _dense(source: Path, model: Prunable, settings: RunSettings, dense: Path | None) -> tuple[Prunable, str]:
    """Return the dense model to compare with, and what it is."""
    if not model.pruning and dense is None:
        return model, "the dense model"
    found = source_model.find(source, settings, dense, model.config.task)
    if found is None or found[0].config.task != model.config.task:
        return dense_teacher(model), SWITCHED_OFF
    return dense_teacher(found[0]), f"dense model {found[1]}"


def _row(task: Task, images: Sequence[Path], texts: Sequence[str]) -> Row:
    """Return the sample.

    Raises:
        UsageError: The number of images or texts does not fit the task.
    """
    schema, number = schemas.get(task.schema), len(images)
    if number != schema.images:
        raise UsageError(
            f"--image is given {number} times, but a sample of the task {task.name} has {schema.images} "
            f"image{'s' * (schema.images > 1)}.\nGive --image {'LEFT --image RIGHT' if schema.images > 1 else 'FILE'}."
        )
    if schema.images_alone:
        if texts:
            raise UsageError(f"A sample of the task {task.name} has no text.\nLeave out --text.")
        return Row(images[0].name, tuple(ImageFile(path) for path in images), "")
    if not texts and not (schema.has_captions and isinstance(task, ModelTask)):
        raise UsageError(
            f'--text is missing: a sample of the task {task.name} has a {schema.text.name}.\nGive --text "..."'
        )
    if len(texts) > 1 and not isinstance(task, ComparingTask):
        raise UsageError(
            f"--text is given {len(texts)} times, but the task {task.name} has one text.\nGive one --text."
        )
    references = tuple(texts) if schema.has_captions else ()
    sources = tuple(ImageFile(path) for path in images)
    return Row(images[0].name, sources, texts[0] if texts else "", references=references)
