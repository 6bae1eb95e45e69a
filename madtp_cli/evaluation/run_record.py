"""The record of a run: its settings, versions and the fingerprints of its inputs."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from madtp_cli import __version__, processes
from madtp_cli.checkpoint import hashing, number_format
from madtp_cli.checkpoint.locating import locate
from madtp_cli.config import CompressSettings
from madtp_cli.config.effects import INPUT_PATHS, WITHOUT_EFFECT
from madtp_cli.data.dataset import ImageSource
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.evaluation import batching, number_formats
from madtp_cli.evaluation.session import Session
from madtp_cli.reporting.record import RecordPart, SettingPart

#: Libraries whose version can change the result.
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow")


def record(source: Path, session: Session, settings: CompressSettings) -> RecordPart:
    """Return the record of a run of `madtp compress` before its result is known."""
    reproducible, condition = conditions(session.compute.device, processes.count())
    return RecordPart(
        command_line=[word for word in settings.command_line if word != "--resume"],
        settings={
            name: SettingPart(
                value=value,
                origin=settings.origins.get(name, "default"),
                affects_weights=name not in WITHOUT_EFFECT | INPUT_PATHS,
            )
            for name, value in _resolved(source, session, settings).items()
        },
        versions={
            "madtp": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        threads=torch.get_num_threads(),
        inputs={
            "checkpoint": hashing.sha256(locate(source)),
            "processor": of_processor(session),
            "data": hashing.of_lines(_data_lines(session, settings)),
        },
        reproducible=reproducible,
        conditions=[condition],
    )


def conditions(device: torch.device, number: int) -> tuple[bool, str]:
    """Return whether a run can be repeated to the bit, and what that depends on or why it cannot.

    Args:
        device: The device of the run.
        number: Number of processes.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu" and number == 1:
        return True, (
            f"The same versions, {threads} {'thread' if threads == 1 else 'threads'} and a CPU that torch uses as "
            f"{number_formats.cpu()} give the same weights to the bit. Elsewhere they differ by rounding."
        )
    where = f"On {device}" if number == 1 else f"In {number} processes on {device}"
    return False, f"{where} sums have no fixed order, so the weights of two runs differ by rounding."


def _resolved(source: Path, session: Session, settings: CompressSettings) -> dict[str, object]:
    """Return the values of the settings, with the defaults that depend on the checkpoint or the machine."""
    values: dict[str, object] = settings.model_dump(mode="json", exclude={"resume"})
    saved_in = number_format.FORMATS.get(settings.save_dtype, session.stored)
    found: dict[str, object] = {
        "task": session.task.name,
        "device": str(session.compute.device),
        "dtype": number_format.name_of(session.compute.dtype),
        "save_dtype": number_format.name_of(saved_in),
        "output": str(settings.output_for(source)),
    }
    if settings.epochs is None:
        found["steps"] = settings.number_of_steps(0)
    return values | found


def of_processor(session: Session) -> str:
    """Return the fingerprint of the image settings and the tokenizer, wherever they came from."""
    with tempfile.TemporaryDirectory() as folder:
        session.processor.save_pretrained(folder)
        return hashing.sha256(Path(folder))


def _data_lines(session: Session, settings: CompressSettings) -> Iterator[str]:
    """Yield a text for each row that the run can use; the built-in scenes are part of the version of madtp."""
    yield f"{session.data.schema} {session.task.name}"
    for split in dict.fromkeys(("train", "val", settings.split)):
        rows = batching.rows(session, split)
        yield f"{split} {len(rows)}"
        if settings.data is None:
            continue
        root = str(settings.data.resolve())
        for row in rows:
            images = [_image(image, root) for image in row.images]
            yield repr((row.identifier, images, row.text, row.label, row.kind, row.references))


def _image(image: ImageSource, root: str) -> str:
    """Return the name and the size of an image; the folder of the data set may have moved."""
    if isinstance(image, ImageFile):
        return f"{image.path.name} {image.path.stat().st_size}"
    return str(image).replace(root, "")
