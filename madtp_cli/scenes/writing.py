"""Writes the built-in scenes in the layout that BLIP's users have, to be read back like their own data."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from madtp_cli.checkpoint.atomic_write import write_errors_as_output_error, write_folder
from madtp_cli.data.answers import ANSWER_LIST
from madtp_cli.data.dataset import Row
from madtp_cli.errors import UsageError
from madtp_cli.scenes import splits, text_only
from madtp_cli.scenes.generator import SPLITS, Scene, answers

#: The annotation file of each task's splits; NLVR2 calls its validation split "dev".
FILES = {
    "nlvr2": "nlvr_{}.json",
    "vqa": "vqa_{}.json",
    "caption": "coco_karpathy_{}.json",
    "retrieval": "coco_karpathy_{}.json",
}
FOLDERS = ("annotation", "images")

#: Called with the rows written so far and the rows to write.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds.

    `texts` are statements, questions or captions. NLVR2 has the percent that are true, VQA the percent that have the
    commonest answer; `kinds` has of each kind the rows and the same percent.
    """

    rows: int
    texts: int
    true_percent: float | None
    commonest_percent: float | None
    kinds: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Written:
    """What was written, and how many test texts are answered right without images ("all" and by kind)."""

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
    """Write the first rows of each split, whole or not at all.

    Args:
        folder: Becomes annotation/*.json, named as BLIP's, and images/<split>/*.png.
        task: One of `builtin.TASKS`.
        sizes: Rows per split; a split of 0 rows gets no file.
        captions: Captions of an image, for retrieval: 5 or 1.
        overwrite: Replace what an earlier call wrote; nothing else is ever replaced.
        progress: Told of each row.

    Raises:
        UsageError: The scenes have no such task, split or number of captions, or there is nothing to write.
        OutputError: The folder is not empty, or cannot be written.
    """
    if not set(sizes) <= set(SPLITS) or min(sizes.values(), default=0) < 0 or not sum(sizes.values()):
        raise UsageError(f"Nothing to write with sizes {dict(sizes)}.\nGive rows for {', '.join(SPLITS)}, 0 or more.")
    drawn = {split: splits.rows(task, split, sizes[split], captions) for split in SPLITS if sizes.get(split)}
    done, total = 0, sum(map(len, drawn.values()))
    kept: dict[str, list[Row]] = {split: [] for split in drawn}
    with write_errors_as_output_error(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with write_folder(folder, overwrite, _foreign) as place:
        (place / "annotation").mkdir()
        for split, rows in drawn.items():
            (place / "images" / split).mkdir(parents=True)
            records: list[dict[str, object]] = []
            for row in rows:
                records += _write(task, row, place / "images", split, len(kept[split]))
                kept[split].append(row)
                done += 1
                if progress:
                    progress(done, total)
            name = FILES[task].format("dev" if (task, split) == ("nlvr2", "val") else split)
            _write_json(place / "annotation" / name, records)
        if task == "vqa":
            _write_json(place / "annotation" / ANSWER_LIST, answers())
    # Captions have no answer that could be known without the image.
    judged = task in ("nlvr2", "vqa") and {"train", "test"} <= kept.keys()
    without_images = text_only.accuracy(kept["train"], kept["test"]) if judged else {}
    return Written(folder, task, {split: _summary(task, rows) for split, rows in kept.items()}, without_images)


def _write_json(file: Path, content: Sequence[object]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def _write(task: str, row: Row, images: Path, split: str, number: int) -> list[dict[str, object]]:
    """Write a row's images, and give its records."""
    # Behind the last underscore stands the image's number, as in COCO's names.
    stem = f"{split}/{split}-{number:06}-img" if task == "nlvr2" else f"{split}/{split}_{number:06}"
    names = [f"{stem}{side}.png" for side in (0, 1)] if task == "nlvr2" else [f"{stem}.png"]
    for name, scene in zip(names, row.images, strict=True):
        if isinstance(scene, Scene):
            # Level 1 is half as slow as the default and the noise compresses no better.
            Image.fromarray(scene.render()).save(images / name, compress_level=1)
    if task == "nlvr2":
        return [{"sentence": row.text, "label": str(bool(row.label)), "images": names}]
    image: dict[str, object] = {"image": names[0]}
    if task == "vqa":
        asked = {"question": row.text, "question_id": number, "dataset": "vqa"}
        return [image | asked | {"answer": list(row.references)}]
    if split == "train":
        return [image | {"image_id": f"{split}_{number:06}", "caption": caption} for caption in row.references]
    return [image | {"caption": list(row.references)}]


def _summary(task: str, rows: Sequence[Row]) -> SplitSummary:
    by_kind: dict[str, Counter[str | None]] = defaultdict(Counter)
    if task in ("nlvr2", "vqa"):
        for row in rows:
            by_kind[row.kind or "other"][text_only.answer(row)] += 1
    kinds = {kind: (given.total(), _percent(task, given)) for kind, given in sorted(by_kind.items())}
    percent = _percent(task, sum(by_kind.values(), Counter()))
    texts = sum(len(row.references) for row in rows) if task in ("caption", "retrieval") else len(rows)
    return SplitSummary(
        len(rows),
        texts,
        percent if task == "nlvr2" else None,
        percent if task == "vqa" else None,
        kinds,
    )


def _percent(task: str, given: Counter[str | None]) -> float:
    """Percent of the answers that are "true" in NLVR2, the commonest one in VQA."""
    number = given["true"] if task == "nlvr2" else max(given.values(), default=0)
    return 100 * number / max(given.total(), 1)


def _foreign(folder: Path) -> str | None:
    """Why a folder is not replaced: it holds more than what is written here."""
    others = sorted({path.name for path in folder.iterdir()} - set(FOLDERS))
    return f"it also holds {', '.join(others[:3])}, not from here" if others else None
