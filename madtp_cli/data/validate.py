"""Checks a data set before anything is spent on it: the rows for each task, and whether every image can be used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from madtp_cli import data
from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset, ImageSource, Row
from madtp_cli.data.images import missing
from madtp_cli.data.parsing import annotation_files
from madtp_cli.data.pixels import decode, without_pillow_warnings
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CutTextsPart, DataReport, DuplicatePart, ImagesPart, SamplePart, TaskPart

#: Number of rows that a report contains, and of images that it names per problem.
SAMPLE_ROWS, NAMED_IMAGES = 3, 5
#: Decoding releases Python's global lock, so threads use all cores; more threads do not help.
_MAX_THREADS = 8


@dataclass(frozen=True)
class _Check:
    """Result of decoding one image: a key that is equal for images with equal pixels, and the error, if any."""

    key: str
    error: str | None = None


#: Returns, by model family, the texts of some rows of a task that are too long.
FindCutTexts = Callable[[str, Sequence[Row]], Mapping[str, Sequence[str]]]

#: The images of each split, each once.
_Images = Mapping[str, Sequence[ImageSource]]


def validate(
    path: Path,
    tasks: Mapping[str, str],
    progress: ProgressReporter,
    *,
    image_root: Path | None = None,
    limit: int | None = None,
    find_cut_texts: FindCutTexts = lambda task, rows: {},
) -> DataReport:
    """Report what a data set is and which tasks can use it, and decode its images.

    Missing and unreadable images are counted. Every other fault is an error, unless another task can use the data.

    Args:
        path, tasks: As for `data.read`; the tasks to try, each with the name of its schema.
        progress: Receives the number of decoded images.
        image_root, limit: The image folder, searched for if None; the most images of each split to decode.
        find_cut_texts: Finds the texts that are too long for a task's models; by default none.

    Raises:
        DataError: No task can use the data.
    """
    path_found = data.find_data(path, image_root)
    wanted = {task: schemas.get(name) for task, name in tasks.items()}
    datasets, notes = _read_for(path_found, wanted, image_root)
    by_split = _images_by_split(datasets.values())
    checks = _check_images(by_split, limit, progress)
    cut_texts = {task: _cut_texts(task, dataset, find_cut_texts) for task, dataset in datasets.items()}
    notes += [note for task, parts in cut_texts.items() for note in _notes_on_cut_texts(task, parts)]
    return DataReport(
        path=str(path),
        tasks={
            task: _task_part(path_found, wanted[task], dataset, cut_texts[task]) for task, dataset in datasets.items()
        },
        images={split: _images_part(of_split, checks) for split, of_split in by_split.items()},
        duplicates=_duplicates(by_split, checks),
        notes=list(dict.fromkeys([*notes, *(note for dataset in datasets.values() for note in dataset.notes)])),
    )


def _images_by_split(datasets: Iterable[Dataset]) -> dict[str, list[ImageSource]]:
    """Return the images of each split, each once."""
    images: dict[str, dict[ImageSource, None]] = {}
    for dataset in datasets:
        for split, rows in dataset.splits.items():
            images.setdefault(split, {}).update(dict.fromkeys(image for row in rows for image in row.images))
    return {split: list(of_split) for split, of_split in images.items()}


def _cut_texts(task: str, dataset: Dataset, find: FindCutTexts) -> dict[str, CutTextsPart]:
    """Return, by model family, the texts of all splits that have more words than a model reads."""
    rows = [row for of_split in dataset.splits.values() for row in of_split]
    texts = sum(len(row.references) or 1 for row in rows)
    return {
        family: CutTextsPart(count=len(cut), texts=texts, first=list(dict.fromkeys(cut))[:SAMPLE_ROWS])
        for family, cut in find(task, rows).items()
    }


def _notes_on_cut_texts(task: str, parts: Mapping[str, CutTextsPart]) -> list[str]:
    return [
        f"{task}: {part.count:,} of {part.texts:,} texts have more words than a {family} reads, and will be cut."
        for family, part in parts.items()
        if part.count
    ]


def require_usable(report: DataReport) -> None:
    """Raise a DataError if images of a report are missing or unreadable: no command accepts such data."""
    parts = report.images.values()
    absent, unreadable = sum(part.missing for part in parts), sum(part.unreadable for part in parts)
    if absent or unreadable:
        raise DataError(
            f"{report.path} cannot be used as it is: images missing: {absent:,}, unreadable: {unreadable:,}.\n"
            "Add these images, or remove their rows; if the images are in another folder, give --image-root."
        )


def _read_for(
    path: Path, wanted: Mapping[str, Schema], image_root: Path | None
) -> tuple[dict[str, Dataset], list[str]]:
    """The data set for each task that can use it, and notes about tasks whose data were recognised but have a fault."""
    results: dict[Schema, Dataset | DataError] = {}
    for task, schema in wanted.items():
        if schema not in results:
            try:
                results[schema] = data.read(path, schema.name, image_root=image_root, task=task, missing_ok=True)
            except DataError as error:
                results[schema] = error
    datasets: dict[str, Dataset] = {}
    faults: dict[str, DataError] = {}
    for task, schema in wanted.items():
        result = results[schema]
        if isinstance(result, Dataset):
            datasets[task] = result
        elif data.matching_readers(path, schema):
            faults[task] = result
    # Images can be used although their annotations have a fault; the user of such data wants to know the fault.
    annotated = {task: schema for task, schema in wanted.items() if not schema.images_alone}
    if not datasets.keys() & annotated and (not datasets or faults or annotation_files.json_files(path)):
        raise next(iter(faults.values()), data.unrecognised(path, annotated or wanted))
    return datasets, [f"not for {task}: {str(fault).splitlines()[0]}" for task, fault in faults.items()]


def _check_images(images: _Images, limit: int | None, progress: ProgressReporter) -> dict[ImageSource, _Check]:
    """Decode the images that exist, at most `limit` of each split."""
    chosen: dict[ImageSource, None] = {}
    for of_split in images.values():
        absent = set(missing(of_split))
        chosen.update(dict.fromkeys([image for image in of_split if image not in absent][:limit]))
    progress.start("Decoding images", len(chosen))
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    checks = {}
    try:
        with without_pillow_warnings():  # for all threads: the filter of warnings is global
            for image, check in zip(chosen, pool.map(_check_image, chosen), strict=True):
                checks[image] = check
                progress.advance(len(checks))
    finally:
        pool.shutdown(cancel_futures=True)  # otherwise Ctrl-C would wait for all images
        progress.finish()
    return checks


def _check_image(image: ImageSource) -> _Check:
    try:
        pixels = decode(image)
    except DataError as error:
        return _Check(str(image), str(error).splitlines()[0])
    digest = hashlib.blake2b(repr(pixels.size).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return _Check(digest.hexdigest())


def _images_part(images: Sequence[ImageSource], checks: Mapping[ImageSource, _Check]) -> ImagesPart:
    absent = missing(images)
    checked = [checks[image] for image in images if image in checks]
    errors = [check.error for check in checked if check.error]
    return ImagesPart(
        images=len(images),
        missing=len(absent),
        checked=len(checked),
        unreadable=len(errors),
        missing_first=[str(image) for image in absent[:NAMED_IMAGES]],
        unreadable_first=errors[:NAMED_IMAGES],
    )


def _duplicates(images: _Images, checks: Mapping[ImageSource, _Check]) -> list[DuplicatePart]:
    """Images that are in two splits: the same source, or equal pixels if both were checked."""
    keyed = {
        split: {checks[image].key if image in checks else str(image): image for image in of_split}
        for split, of_split in images.items()
    }
    duplicates = []
    for first, second in combinations(keyed, 2):
        shared = [str(image) for key, image in keyed[first].items() if key in keyed[second]]
        if shared:
            part = DuplicatePart(splits=[first, second], images=len(shared), first=shared[:NAMED_IMAGES])
            duplicates.append(part)
    return duplicates


def _task_part(path: Path, schema: Schema, dataset: Dataset, cut: dict[str, CutTextsPart]) -> TaskPart:
    split, rows = next(((split, rows) for split, rows in dataset.splits.items() if rows), ("", []))
    return TaskPart(
        layout=data.matching_readers(path, schema)[0].LAYOUT,
        splits={split: schema.summarise(rows) for split, rows in dataset.splits.items()},
        samples=[_sample_part(split, row) for row in rows[:SAMPLE_ROWS]],
        cut_texts=cut,
    )


def _sample_part(split: str, row: Row) -> SamplePart:
    return SamplePart(
        split=split,
        identifier=row.identifier,
        images=[str(image) for image in row.images],
        text=row.text,
        label=row.label,
        references=list(row.references),
    )
