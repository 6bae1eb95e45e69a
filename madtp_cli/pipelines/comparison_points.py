"""The points of a comparison as files: a point that is there, made of the same inputs, is not computed again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

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
        point = compute().model_copy(update={"inputs": self.inputs})
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
            if number := sum(1 for _ in (self.folder / FOLDER).glob("*.json")):
                finished = f"{number} finished point{'s are' if number > 1 else ' is'}"
                error.add_note(f"{finished} in {self.folder / FOLDER}. The same command computes only the others.")
            raise

    def _read(self, file: Path) -> ComparisonPoint:
        try:
            point = ComparisonPoint.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ResumeError(f"{file} is no point of a comparison.\nRemove it, or choose another folder.") from error
        changed = sorted(name for name in self.inputs if point.inputs.get(name) != self.inputs[name])
        if changed:
            raise ResumeError(
                f"{file} was made with {' and '.join(f'another {name}' for name in changed)}.\n"
                "Choose another folder with --output, or remove that one."
            )
        return point


def point_name(method: str, budget: BudgetRequest, seed: int) -> str:
    """Return the name of a point, which is that of its file."""
    return re.sub(r"[^\w.-]", "_", f"{method}-{budget.text}-{seed}")


def check_folder(folder: Path) -> None:
    """Check that results can be written to a folder.

    Raises:
        OutputError: A file is in its place.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder.\nChoose another folder with --output.")


def open_points(source: Path, session: Session, settings: CompareSettings) -> PointFiles:
    """Create the folder of the results if it is missing, and return its points."""
    folder = settings.output_for(source)
    with write_errors_as_output_error(folder):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    options = json.dumps(settings.of_all_points(), sort_keys=True)
    inputs = {
        "checkpoint": hashing.sha256(locate(source)),
        "processor": run_record.of_processor(session),
        "data set": _of_data(session),
        "setting": hashing.of_lines([options]),
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
