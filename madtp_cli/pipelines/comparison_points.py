"""The points of a comparison as files: a point that is there, made of the same inputs, is not computed again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from madtp_cli import methods
from madtp_cli.checkpoint import hashing
from madtp_cli.checkpoint.atomic_write import write_errors_as_output_error, write_file
from madtp_cli.checkpoint.locating import locate
from madtp_cli.config import BudgetRequest
from madtp_cli.config.compare_settings import CompareSettings
from madtp_cli.errors import OutputError, ResumeError
from madtp_cli.evaluation import batching, run_record
from madtp_cli.evaluation.session import Session
from madtp_cli.reporting.comparison import ComparisonPoint
from madtp_cli.reporting.plain_text import safe_json

#: Names of two of the inputs.
DATA, SETTINGS = "data set", "setting"
#: Folder of the points within the folder of the results.
FOLDER = "points"


@dataclass(frozen=True)
class PointFiles:
    """The points of one comparison.

    Attributes:
        folder: Folder of the results.
        inputs: Fingerprints of what every point depends on, by name.
    """

    folder: Path
    inputs: dict[str, str]

    def get(self, name: str, compute: Callable[[], ComparisonPoint]) -> ComparisonPoint:
        """Return a point: from its file, or computed and written.

        Raises:
            ResumeError: The file is of other inputs, or cannot be read.
            OutputError: It cannot be written.
        """
        file = self.folder / FOLDER / f"{name}.json"
        if file.exists():
            return self._read(file)
        point = compute()
        point = point.model_copy(update={"inputs": self.inputs, "count": len(point.scores)})
        with write_file(file, overwrite=True) as new:
            new.write_text(safe_json(point.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        return point

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Add a note to every error that leaves points: where they are, and how to go on."""
        try:
            yield
        except ResumeError:
            raise
        except BaseException as error:
            if number := sum(map(self._is_finished, (self.folder / FOLDER).glob("*.json"))):
                finished = f"{number} finished point{'s are' if number > 1 else ' is'}"
                error.add_note(f"{finished} in {self.folder / FOLDER}. The same command computes only the others.")
            raise

    def check(self, names: Iterable[str]) -> None:
        """Check that the points with these names, where they exist, are of the same inputs.

        Raises:
            ResumeError: A file is of other inputs, or cannot be read.
        """
        for name in names:
            if (file := self.folder / FOLDER / f"{name}.json").exists():
                self._read(file)

    def _is_finished(self, file: Path) -> bool:
        try:
            self._read(file)
        except ResumeError:
            return False
        return True

    def _read(self, file: Path) -> ComparisonPoint:
        try:
            point = ComparisonPoint.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ResumeError(
                f"{file} is damaged, or is no point of a comparison.\nRemove it, and it is computed again."
            ) from error
        if changed := _differences(point.inputs, self.inputs):
            raise ResumeError(
                f"{file} was made with {' and '.join(changed)}.\n"
                f"Choose another folder with --output, or remove the folder {file.parent}."
            )
        return point


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what has changed: settings with both values, and the names of other inputs."""
    changed = [name for name in now if before.get(name) != now[name]]
    if SETTINGS not in changed:
        return [f"another {name}" for name in changed]
    try:
        old, new = json.loads(before.get(SETTINGS, "")), json.loads(now[SETTINGS])
        settings = [name for name in new if old.get(name) != new[name]]
    except (ValueError, AttributeError):  # a fingerprint, as earlier versions wrote it
        return [f"another {name}" for name in changed]
    # With another limit, other rows of the same data are used.
    others = [name for name in changed if name != SETTINGS and not (name == DATA and "limit" in settings)]
    texts = [f"--{name.replace('_', '-')} {_value(old.get(name))} (now {_value(new[name])})" for name in settings]
    return [*(f"another {name}" for name in others), *texts]


def _value(value: object) -> str:
    return "not given" if value is None else str(value)


def seeds_of(settings: CompareSettings, method: str) -> Sequence[int]:
    """Return the seeds that a method is run with: the first one alone if no seed changes its result.

    Without fine-tuning, the seed changes nothing but the dictionary.
    """
    seeds = settings.all_seeds()
    trained = settings.point(method, BudgetRequest.parse(1), settings.seed).number_of_steps(1) > 0
    return seeds if trained or methods.DICTIONARY in methods.get(method).NEEDS else seeds[:1]


def point_name(method: str, budget: BudgetRequest, seed: int) -> str:
    """Return the name of a point, which is that of its file."""
    return re.sub(r"[^\w.-]", "_", f"{method}-{budget.text}-{seed}")


def check_folder(folder: Path) -> None:
    """Check that results can be written to a folder.

    Raises:
        OutputError: A file is in its place, or the folder has files but no points of a comparison.
    """
    for path in (folder, folder / FOLDER):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file, not a folder.\nChoose another folder with --output.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FOLDER).is_dir():
        raise OutputError(
            f"{folder} is not empty, and madtp compare did not write it.\nChoose another folder with --output."
        )


def open_points(source: Path, session: Session, settings: CompareSettings, *, create: bool = True) -> PointFiles:
    """Return the points of a comparison.

    Args:
        source: The checkpoint.
        session: Its session.
        settings: The settings of the comparison.
        create: Whether to create the folder of the results if it is missing.

    Raises:
        OutputError: The folder cannot be written, or has other files.
    """
    folder = settings.output_for(source)
    with write_errors_as_output_error(folder):
        check_folder(folder)
        if create:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    # Settings that mean the same are equal: a default, and the value that it has here.
    steps = settings.point("madtp", BudgetRequest.parse(1), settings.seed).number_of_steps(1)
    device, dtype = session.compute.device.type, str(session.compute.dtype).removeprefix("torch.")
    same = {"task": session.task.name, "steps": steps, "device": device, "dtype": dtype}
    options = json.dumps({**settings.of_all_points(), **same}, sort_keys=True)
    inputs = {
        "checkpoint": hashing.sha256(locate(source)),
        "processor": run_record.of_processor(session),
        DATA: _of_data(session),
        SETTINGS: options,
    }
    return PointFiles(folder, inputs)


def _of_data(session: Session) -> str:
    """Return the fingerprint of all rows that are used: texts, labels and the names of the images."""
    splits = dict.fromkeys(["train", "val", session.settings.split])
    return hashing.of_lines(
        repr((split, row.identifier, [str(image) for image in row.images], row.text, row.label, row.references))
        for split in splits
        for row in batching.rows(session, split)
    )
