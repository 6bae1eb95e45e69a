"""What a data set holds, before anything is spent on it: the rows of each task, and whether every image can be used."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

from madtp_cli import data
from madtp_cli.data import pixels
from madtp_cli.data.dataset import Dataset, ImageSource, Row
from madtp_cli.data.embedded import Absent
from madtp_cli.errors import DataError, UsageError
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import (
    CaptionCount,
    DataReport,
    DuplicatePart,
    ImagesPart,
    RowsPart,
    SamplePart,
    TaskPart,
)
from madtp_cli.scenes.generator import Scene

#: Rows shown, and the most names or answers listed.
SHOWN, LISTED = 3, 5
#: Decoding leaves Python's lock, so threads use the cores; a disk gains nothing from more.
_MOST_THREADS = 8


def survey(
    path: Path,
    progress: ProgressReporter,
    *,
    task: str | None = None,
    image_root: Path | None = None,
    limit: int | None = None,
) -> DataReport:
    """Say what a data set is and can serve, and decode its images.

    Images that are missing or cannot be decoded are counted; whatever else is wrong is an error, unless
    another task can use the data.

    Args:
        path: As for `data.read`, but no built-in scenes.
        listener: Told of each image.
        task: Only this one; every task is tried if None.
        image_root: Folder of the images, if they do not lie around `path`.
        limit: At most so many images of each split are decoded.

    Raises:
        DataError: No task can be served.
        UsageError: There is no such task.
    """
    if task is not None and task not in data.TASKS:
        raise UsageError(f"There is no task {task!r}.\nChoose one of: {', '.join(data.TASKS)}.")
    place = data.existing(path, image_root)
    found, notes = _readable(place, [task] if task else data.TASKS, image_root)
    images: dict[str, list[ImageSource]] = {}
    for dataset in found.values():
        for split, rows in dataset.splits.items():
            images.setdefault(split, []).extend(image for row in rows for image in row.images)
    distinct = {split: list(dict.fromkeys(of_split)) for split, of_split in images.items()}
    looked = _look(distinct, limit, progress)
    return DataReport(
        path=str(path),
        tasks={name: _task_part(dataset, data.fitting(place, name)[0].LAYOUT) for name, dataset in found.items()},
        images={split: _images_part(of_split, looked) for split, of_split in distinct.items()},
        duplicates=_duplicates(distinct, looked),
        notes=list(dict.fromkeys([*notes, *(note for dataset in found.values() for note in dataset.notes)])),
    )


def refuse_unusable(report: DataReport) -> None:
    """Raise a DataError if images of a report are missing or cannot be decoded: no run would take the data."""
    parts = report.images.values()
    missing, unreadable = sum(part.missing for part in parts), sum(part.unreadable for part in parts)
    if missing or unreadable:
        raise DataError(
            f"{report.path} cannot be used as it is: images missing: {missing:,}, unreadable: {unreadable:,}.\n"
            "Put them there, or remove their rows; if they lie elsewhere, give --image-root."
        )


def _readable(path: Path, tasks: Sequence[str], image_root: Path | None) -> tuple[dict[str, Dataset], list[str]]:
    """The data sets of the tasks that can be served, and why others that were recognised cannot."""
    found: dict[str, Dataset] = {}
    failed: dict[str, DataError] = {}
    for task in tasks:
        try:
            found[task] = data.read(path, task, image_root=image_root, missing_ok=True)
        except DataError as error:
            failed[task] = error
    recognised = {task: error for task, error in failed.items() if data.fitting(path, task)}
    if not found:
        raise next(iter(recognised.values()), data.unfit(path, tasks))
    return found, [f"not for {task}: {str(error).splitlines()[0]}" for task, error in recognised.items()]


def _look(
    images: dict[str, list[ImageSource]], limit: int | None, progress: ProgressReporter
) -> dict[ImageSource, tuple[str, str | None]]:
    """Of the images that are there, up to the limit: the hash of the bytes, and why it cannot be decoded."""
    chosen: dict[ImageSource, None] = {}
    for of_split in images.values():
        chosen.update(dict.fromkeys([image for image in of_split if not isinstance(image, Absent)][:limit]))
    progress.start("Decoding images", len(chosen))
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    looked = {}
    try:
        for image, verdict in zip(chosen, pool.map(_verdict, chosen), strict=True):
            looked[image] = verdict
            progress.advance(len(looked))
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for all that is planned
        progress.finish()
    return looked


def _verdict(image: ImageSource) -> tuple[str, str | None]:
    if isinstance(image, Scene):
        return repr(image), None
    try:
        content = image.read_bytes() if isinstance(image, Path) else image.read()
        pixels.decode(image)
    except OSError as error:
        return str(image), f"Image {image} cannot be read: {error.strerror or error}"
    except DataError as error:
        return str(image), str(error).splitlines()[0]
    return hashlib.blake2b(content, digest_size=16).hexdigest(), None


def _images_part(images: Sequence[ImageSource], looked: dict[ImageSource, tuple[str, str | None]]) -> ImagesPart:
    missing = [str(image) for image in images if isinstance(image, Absent)]
    verdicts = [looked[image] for image in images if image in looked]
    complaints = [complaint for _, complaint in verdicts if complaint]
    return ImagesPart(
        images=len(images),
        missing=len(missing),
        checked=len(verdicts),
        unreadable=len(complaints),
        missing_first=missing[:LISTED],
        unreadable_first=complaints[:LISTED],
    )


def _duplicates(
    images: dict[str, list[ImageSource]], looked: dict[ImageSource, tuple[str, str | None]]
) -> list[DuplicatePart]:
    """Images that stand in two splits: the same file, or one with the same bytes if both were checked."""
    keyed = {
        split: {looked[image][0] if image in looked else str(image): image for image in of_split}
        for split, of_split in images.items()
    }
    found = []
    for one, other in combinations(keyed, 2):
        shared = [image for key, image in keyed[one].items() if key in keyed[other]]
        if shared:
            first = [str(image) for image in shared[:LISTED]]
            found.append(DuplicatePart(splits=(one, other), images=len(shared), first=first))
    return found


def _task_part(dataset: Dataset, layout: str) -> TaskPart:
    first = next(((split, rows) for split, rows in dataset.splits.items() if rows), ("", []))
    return TaskPart(
        layout=layout,
        splits={split: _rows_part(dataset.task, rows) for split, rows in dataset.splits.items()},
        samples=[_sample(first[0], row) for row in first[1][:SHOWN]],
    )


def _rows_part(task: str, rows: Sequence[Row]) -> RowsPart:
    if task == "nlvr2":
        return RowsPart(rows=len(rows), true_percent=_percent(sum(bool(row.label) for row in rows), len(rows)))
    if task == "vqa":
        return RowsPart(
            rows=len(rows), commonest_answers=_commonest(answer for row in rows for answer in row.references)
        )
    numbers = [len(row.references) for row in rows]
    count = CaptionCount(least=min(numbers), mean=sum(numbers) / len(numbers), most=max(numbers))
    return RowsPart(rows=len(rows), captions_per_image=count)


def _commonest(answers: Iterable[str]) -> list[tuple[str, float]]:
    counted = Counter(answers)
    return [(answer, _percent(number, counted.total())) for answer, number in counted.most_common(LISTED)]


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _sample(split: str, row: Row) -> SamplePart:
    return SamplePart(
        split=split,
        identifier=row.identifier,
        images=[str(image) for image in row.images],
        text=row.text,
        label=row.label,
        references=list(row.references),
    )
