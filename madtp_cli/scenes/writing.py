"""Writes the built-in scenes as files in BLIP's annotation layout, which the readers read like a user's own data.

Images without texts have no annotation files.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.checkpoint.atomic_write import write_errors_as_output_error, write_folder
from madtp_cli.data.dataset import SPLITS, Row
from madtp_cli.data.parsing.answers import ANSWER_LIST
from madtp_cli.errors import UsageError
from madtp_cli.scenes import splits, text_only
from madtp_cli.scenes.generator import answers

#: Names of the annotation files of each task that has texts; NLVR2 calls its validation split "dev".
FILES = {
    "nlvr2": "nlvr_{}.json",
    "vqa": "vqa_{}.json",
    "caption": "coco_karpathy_{}.json",
    "retrieval": "coco_karpathy_{}.json",
}
FOLDERS = ("annotation", "images")

#: Called with the number of rows written so far and the number of all rows.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds.

    Args:
        rows: Number of rows.
        texts: Number of statements, questions or captions.
        true_percent: Percent of the statements that are true, for NLVR2.
        commonest_percent: Percent of the questions that have the most frequent answer, for VQA.
        kinds: For each kind of statement or question, the number of rows and the same percentage.
    """

    rows: int
    texts: int
    true_percent: float | None
    commonest_percent: float | None
    kinds: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Written:
    """What was written, and the accuracy on its test split without the images ("all" and by kind)."""

    folder: Path
    task: str
    splits: dict[str, SplitSummary]
    text_only: dict[str, text_only.TextOnly]


def write_scenes(
    folder: Path,
    task: str,
    sizes: Mapping[str, int],
    *,
    captions: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write the first rows of each split; an interrupted call leaves no files.

    Args:
        folder: Receives annotation/*.json, named as BLIP's files, and images/<split>/*.png.
        task: One of `scenes.TASKS`.
        sizes: Rows per split; a split of 0 rows gets no file.
        captions: Captions per image, for retrieval: 5 or 1.
        overwrite: Replace what an earlier call wrote; other folders are never replaced.
        progress: Called after each row.

    Raises:
        UsageError: The scenes have no such task, split or number of captions, or there is nothing to write.
        OutputError: The folder is not empty, or cannot be written.
    """
    if not set(sizes) <= set(SPLITS) or min(sizes.values(), default=0) < 0 or not sum(sizes.values()):
        raise UsageError(f"Nothing to write with sizes {dict(sizes)}.\nGive rows for {', '.join(SPLITS)}, 0 or more.")
    rows = {split: splits.rows(task, split, sizes[split], captions) for split in SPLITS if sizes.get(split)}
    with write_errors_as_output_error(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with write_folder(folder, overwrite, _reason_to_keep) as temporary:
        written = _write_rows(temporary, task, rows, progress)
    # Captions have no single right answer that could be predicted without the image.
    has_answers = task in ("nlvr2", "vqa") and {"train", "test"} <= written.keys()
    without_images = text_only.accuracy(written["train"], written["test"]) if has_answers else {}
    return Written(
        folder, task, {split: _summary(task, of_split) for split, of_split in written.items()}, without_images
    )


def _write_rows(
    folder: Path, task: str, rows: Mapping[str, Sequence[Row]], progress: Progress | None
) -> dict[str, list[Row]]:
    """Write all files of a data set, and return the rows that were generated for it."""
    if task in FILES:
        (folder / "annotation").mkdir()
    total = sum(map(len, rows.values()))
    written: dict[str, list[Row]] = {}
    done = 0
    for split, of_split in rows.items():
        (folder / "images" / split).mkdir(parents=True)
        records: list[dict[str, object]] = []
        written[split] = []
        for row, of_row in _write_images(folder / "images", task, split, of_split):
            written[split].append(row)
            records += of_row
            done += 1
            if progress:
                progress(done, total)
        if task in FILES:
            name = FILES[task].format("dev" if (task, split) == ("nlvr2", "val") else split)
            _write_json(folder / "annotation" / name, records)
    if task == "vqa":
        _write_json(folder / "annotation" / ANSWER_LIST, answers())
    return written


def _write_json(file: Path, content: Sequence[object]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _write_images(
    folder: Path, task: str, split: str, rows: Sequence[Row]
) -> Iterator[tuple[Row, list[dict[str, object]]]]:
    """Write the images of each row, then yield the row and its annotation records."""
    for number, row in enumerate(rows):
        # The number of the image follows the last underscore, as in the names of COCO's images.
        stem = f"{split}/{split}-{number:06}-img" if task == "nlvr2" else f"{split}/{split}_{number:06}"
        names = [f"{stem}{side}.png" for side in (0, 1)] if task == "nlvr2" else [f"{stem}.png"]
        for name, source in zip(names, row.images, strict=True):
            # Level 1 is twice as fast as the default, and pictures with noise do not become smaller at higher levels.
            source.open().save(folder / name, compress_level=1)
        yield row, _records(task, row, names, split, number)


def _records(task: str, row: Row, names: Sequence[str], split: str, number: int) -> list[dict[str, object]]:
    """The annotation records of a row: one, or one per caption in the train split."""
    if task == "nlvr2":
        return [{"sentence": row.text, "label": str(bool(row.label)), "images": names}]
    image: dict[str, object] = {"image": names[0]}
    if task == "vqa":
        question = {"question": row.text, "question_id": number, "dataset": "vqa"}
        return [image | question | {"answer": list(row.references)}]
    if split == "train":
        return [image | {"image_id": f"{split}_{number:06}", "caption": caption} for caption in row.references]
    return [image | {"caption": list(row.references)}]


def _summary(task: str, rows: Sequence[Row]) -> SplitSummary:
    by_kind: dict[str, Counter[str | None]] = defaultdict(Counter)
    if task in ("nlvr2", "vqa"):
        for row in rows:
            by_kind[row.kind or "other"][text_only.answer(row)] += 1
    kinds = {kind: (counts.total(), _percent(task, counts)) for kind, counts in sorted(by_kind.items())}
    percent = _percent(task, sum(by_kind.values(), Counter()))
    texts = len(rows) if task in ("nlvr2", "vqa") else sum(len(row.references) for row in rows)
    return SplitSummary(
        rows=len(rows),
        texts=texts,
        true_percent=percent if task == "nlvr2" else None,
        commonest_percent=percent if task == "vqa" else None,
        kinds=kinds,
    )


def _percent(task: str, counts: Counter[str | None]) -> float:
    """Percent of the answers that are "true" for NLVR2, or the most frequent one for VQA."""
    number = counts["true"] if task == "nlvr2" else max(counts.values(), default=0)
    return 100 * number / max(counts.total(), 1)


def _reason_to_keep(folder: Path) -> str | None:
    """Why a folder must not be replaced: it holds files that this module does not write."""
    others = sorted({path.name for path in folder.iterdir()} - set(FOLDERS))
    return f"it also holds {', '.join(others[:3])}, which madtp did not write" if others else None
