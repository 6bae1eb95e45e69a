"""Compress vision-language models by pruning tokens that the result does not need (MADTP, arXiv:2403.02991).

The functions here do what the commands of `madtp` do, and return the reports that the commands print with `--json`.
Their keyword arguments are the settings of the command line, written with underscores. `MADTP_*` variables and config
files do not apply to them. Importing this package does not load torch.

    import madtp_cli

    report = madtp_cli.compress("blip.pt", gflops_budget=0.2, output="blip-madtp")
    print(report.quality.change)
    model, processor = madtp_cli.load("blip-madtp")
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from madtp_cli.pipelines.pages_from_python import report, show
from madtp_cli.pipelines.python_wording import in_python, with_python_names
from madtp_cli.pipelines.rerun_from_python import rerun

if TYPE_CHECKING:
    from typing import Unpack

    from madtp_cli.checkpoint.loading import LoadedCheckpoint
    from madtp_cli.checkpoint.processors import Processor
    from madtp_cli.config.keywords import CompareKeywords, CompressKeywords, EvalKeywords, PointKeywords
    from madtp_cli.models.prunable import Prunable
    from madtp_cli.progress import ProgressReporter
    from madtp_cli.reporting.comparison import CompareReport
    from madtp_cli.reporting.plan import PlanReport
    from madtp_cli.reporting.schema import (
        CheckReport,
        CompressReport,
        EvalReport,
        ExportReport,
        ProfileReport,
    )

__all__ = [
    "__version__",
    "check",
    "compare",
    "compress",
    "evaluate",
    "export",
    "load",
    "plan",
    "profile",
    "report",
    "rerun",
    "show",
]

__version__ = "0.1.0"


@with_python_names
def load(
    source: str | Path,
    *,
    tokenizer: str | Path | None = None,
    head_width: int | str | Mapping[str, int] | None = None,
    activation: Literal["gelu", "quick_gelu"] | None = None,
    weights: Literal["raw", "ema"] | None = None,
    image_size: int | None = None,
    gflops_budget: str | float | None = None,
    task: str | None = None,
) -> tuple[Prunable, Processor]:
    """Load a model, dense or pruned, and its processor, in evaluation mode on the CPU.

    Args:
        source: A checkpoint file or folder, or the name of a model of the Hugging Face hub that is in the local cache.
        tokenizer, head_width, activation, weights: As in `export`.
        image_size: Side of the image in pixels. The position embeddings are resized to it. Default: the checkpoint's.
        gflops_budget: Another budget of a checkpoint that was compressed for a range: 0.4, "40%" or "26.5G".
        task: Another task for the checkpoint; "embedding" takes the image tower alone.

    Raises:
        CheckpointError: The checkpoint cannot be read or used; the message says what to do.
        UsageError, BudgetError: The image size is no multiple of the patch size, or the budget cannot be set.
    """
    from madtp_cli.checkpoint import loading
    from madtp_cli.config import head_widths
    from madtp_cli.pipelines.keyword_arguments import to_budget

    loaded = loading.load(
        Path(source),
        tokenizer=None if tokenizer is None else Path(tokenizer),
        head_width=head_widths.parse(head_width),
        activation=activation,
        weights=weights,
        image_size=image_size,
        gflops_budget=to_budget(gflops_budget),
        task=task,
    )
    _log_notes(loaded, source)
    return loaded.model, loaded.processor


def _log_notes(loaded: LoadedCheckpoint, source: str | Path) -> None:
    for note in loaded.notes:
        # The notes of the inspection state assumptions; a note that only loading adds is about tensors left out.
        level = logging.INFO if note in loaded.inspection.notes else logging.WARNING
        logging.getLogger(__name__).log(level, "%s: %s", source, in_python(note))


@with_python_names
def compress(
    source: str | Path, *, progress: bool | ProgressReporter = False, **settings: Unpack[CompressKeywords]
) -> CompressReport:
    """Bring a checkpoint to a FLOPs budget and save it as a folder, like `madtp compress`.

    Args:
        source: As in `load`.
        progress: True shows progress bars; a reporter receives the progress.
        settings: `gflops_budget` is required: a share of the dense GFLOPs (0.2 or "20%") or GFLOPs per sample
            ("26.5G"). `config.CompressSettings` describes all settings.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import CompressSettings
    from madtp_cli.pipelines import compress, keyword_arguments

    resolved = keyword_arguments.to_settings(CompressSettings, settings)
    return compress.compress(Path(source), resolved, keyword_arguments.to_reporter(progress))


@with_python_names
def compare(
    source: str | Path, *, progress: bool | ProgressReporter = False, **settings: Unpack[CompareKeywords]
) -> CompareReport:
    """Compare pruning methods at equal GFLOPs and write the results to a folder, like `madtp compare`.

    Args:
        source: As in `load`, a dense checkpoint.
        progress: True shows progress bars; a reporter receives the progress.
        settings: Methods, budgets, seeds and data; `config.CompareSettings` describes all settings.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import CompareSettings
    from madtp_cli.pipelines import compare, keyword_arguments

    resolved = keyword_arguments.to_settings(CompareSettings, settings)
    return compare.compare(Path(source), resolved, keyword_arguments.to_reporter(progress))


@with_python_names
def evaluate(
    source: str | Path, *, progress: bool | ProgressReporter = False, **settings: Unpack[EvalKeywords]
) -> EvalReport:
    """Measure the quality and the cost of a checkpoint on labelled samples, like `madtp eval`.

    Args:
        source: As in `load`.
        progress: True shows progress bars; a reporter receives the progress.
        settings: Data, device and gates; `config.EvalSettings` describes all settings.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import EvalSettings
    from madtp_cli.pipelines import evaluate, keyword_arguments

    resolved = keyword_arguments.to_settings(EvalSettings, settings)
    return evaluate.evaluate(Path(source), resolved, keyword_arguments.to_reporter(progress))


@with_python_names
def check(
    source: str | Path, *, progress: bool | ProgressReporter = False, **settings: Unpack[EvalKeywords]
) -> CheckReport:
    """Compare the figures of a report with bounds, like `madtp check`.

    Args:
        source: A folder of `compress`, or a file with a report; with `data` a checkpoint, which is then measured.
        progress: True shows progress bars; a reporter receives the progress.
        settings: The gates, such as `max_drop=1`; `config.EvalSettings` describes all settings.

    Returns:
        The verdicts. `passed` is false if a gate failed; that is no error here.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import EvalSettings
    from madtp_cli.pipelines import check, keyword_arguments

    resolved = keyword_arguments.to_settings(EvalSettings, settings)
    return check.check(Path(source), resolved, keyword_arguments.to_reporter(progress))


@with_python_names
def plan(
    command: Literal["compress", "eval"], source: str | Path, progress: bool | ProgressReporter = False, **settings: Any
) -> PlanReport:
    """Check a run and estimate its time, memory and disk, like `--dry-run`; it takes the settings of the command.

    Raises:
        MadtpError: What the run would raise at its start.
    """
    from madtp_cli.pipelines import planning

    return planning.from_keywords(command, Path(source), settings, progress)


@with_python_names
def profile(
    source: str | Path | None = None,
    *,
    arch: str | None = None,
    text_tokens: int | None = None,
    batch_sizes: Sequence[int] = (),
    fvcore_check: bool = True,
    progress: bool | ProgressReporter = False,
    **settings: Unpack[PointKeywords],
) -> ProfileReport:
    """Count the GFLOPs and tokens of a checkpoint by tower and layer, and time it, like `madtp profile`.

    Args:
        source: As in `load`; None with `arch`.
        arch: The name of a published architecture instead of a checkpoint, such as "blip-nlvr-base".
        text_tokens: Count one text of this length instead of the data's; for dense models only.
        batch_sizes: Also time the forward passes of these batch sizes.
        fvcore_check: Compare the count with fvcore, which takes most of the time; without it `gflops.fvcore` is None.
        progress: True shows progress bars; a reporter receives the progress.
        settings: Data and device; `config.PointSettings` describes all settings.

    Raises:
        MadtpError: A subclass of it. A keyword that is not a setting is a UsageError.
    """
    from madtp_cli.config import PointSettings
    from madtp_cli.pipelines import keyword_arguments, profile

    resolved = keyword_arguments.to_settings(
        PointSettings, settings, ("arch", "text_tokens", "batch_sizes", "fvcore_check")
    )
    path, reporter = None if source is None else Path(source), keyword_arguments.to_reporter(progress)
    return profile.profile(
        path,
        resolved,
        reporter,
        arch=arch,
        text_tokens=text_tokens,
        batch_sizes=batch_sizes,
        fvcore_check=fvcore_check,
    )


@with_python_names
def export(
    source: str | Path,
    file: str | Path,
    *,
    format: str | None = None,
    overwrite: bool = False,
    tokenizer: str | Path | None = None,
    head_width: int | str | Mapping[str, int] | None = None,
    activation: Literal["gelu", "quick_gelu"] | None = None,
    weights: Literal["raw", "ema"] | None = None,
    match_token: Literal["enc", "cls"] | None = None,
    gflops_budget: str | float | None = None,
    progress: bool | ProgressReporter = False,
) -> ExportReport:
    """Write a checkpoint as one file that runs without this package, and check the file, like `madtp export`.

    Args:
        source: As in `load`.
        file, format: The file to write, .onnx or .pt2; "onnx" or "torch-export", by the ending of the file if None.
        overwrite, gflops_budget, progress: Replace the file if it exists; as in `load`; as in `compress`.
        tokenizer, head_width, activation, weights, match_token: Settings of the checkpoint, see `config.RunSettings`.

    Raises:
        MadtpError: A subclass of it.
    """
    from madtp_cli.config import PointSettings
    from madtp_cli.pipelines import export, keyword_arguments

    reading = dict(tokenizer=tokenizer, head_width=head_width, activation=activation, weights=weights)
    given = reading | dict(match_token=match_token, gflops_budget=gflops_budget)
    settings, reporter = keyword_arguments.to_settings(PointSettings, given), keyword_arguments.to_reporter(progress)
    return export.export(Path(source), Path(file), settings, format, reporter, overwrite=overwrite)
