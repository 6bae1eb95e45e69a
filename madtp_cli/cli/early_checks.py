"""Checks of paths and names before torch is imported, so that a wrong one fails at once.

The functions that do the work check the same with the same functions, for callers from Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from madtp_cli import processes
from madtp_cli.config import CompressSettings, RunSettings, choices
from madtp_cli.config.gates import GateSettings
from madtp_cli.config.user_paths import refuse_url
from madtp_cli.errors import DataError


def check_run(checkpoint: Path | None, settings: RunSettings) -> None:
    """Check the paths of a run: its output, its checkpoint and its data.

    Raises:
        MadtpError: What the run would raise later.
    """
    if isinstance(settings, CompressSettings) and checkpoint is not None:
        from madtp_cli.checkpoint import output_place
        from madtp_cli.pipelines import tracking

        inputs = (checkpoint, settings.data, settings.image_root, settings.tokenizer)
        output = settings.output_for(checkpoint)
        output_place.check(output, inputs, overwrite=settings.overwrite, resume=settings.resume)
        tracking.require_installed(settings.tracker)
    if isinstance(settings, GateSettings):
        from madtp_cli.pipelines.gating import require_files

        require_files(settings)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if settings.data is not None:
        from madtp_cli.data import find_data

        find_data(settings.data, settings.image_root)


def check_checkpoint(checkpoint: Path) -> None:
    """Check that a checkpoint exists, or that its name is in the cache.

    Raises:
        CheckpointError: It does not exist.
    """
    from madtp_cli.checkpoint.locating import locate

    locate(checkpoint)


def check_export(params: Mapping[str, Any]) -> None:
    """Check the format, the file and the checkpoint of `madtp export`.

    Raises:
        MadtpError: What the export would raise later.
    """
    processes.require_one("export")
    from madtp_cli.checkpoint.atomic_write import check_output_file

    check_choice("format", params["name"])
    check_output_file(params["file"], params["overwrite"])
    check_checkpoint(params["checkpoint"])


def check_images(images: Sequence[Path]) -> None:
    """Check that image files exist.

    Raises:
        DataError: One does not.
    """
    for image in images:
        refuse_url(image, DataError)
        if not image.is_file():
            raise DataError(f"There is no image file {image}.\nGive the path of an image.")


def check_own_file(file: Path, overwrite: bool) -> None:
    """Check that a file can be written; one that madtp wrote may be replaced.

    Raises:
        OutputError: It cannot be written.
    """
    from madtp_cli.checkpoint import own_files

    own_files.check(file, overwrite)


def check_choice(option: str, value: str | None) -> None:
    """Check the value of an option that is not a setting of a run.

    Raises:
        UsageError: It is not one of the choices.
    """
    if value is not None:
        choices.require(f"--{option}", value, choices.of(option))
