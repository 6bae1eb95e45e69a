"""Writes the built-in scenes in the layout that BLIP's users have, to be read back like their own data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from madtp_cli.data import builtin, text_only
from madtp_cli.data.rows import Row
from madtp_cli.data.scenes import SPLITS, Scene
from madtp_cli.errors import UsageError
from madtp_cli.output import write_whole, writing

FILES = {"train": "nlvr_train.json", "val": "nlvr_dev.json", "test": "nlvr_test.json"}
FOLDERS = ("annotation", "images")

#: Called with the rows written so far and the rows to write.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds: rows, percent that are true, and of each kind rows and percent true."""

    rows: int
    true_percent: float
    kinds: dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Written:
    """What was written, and how well the test sentences are judged without images ("all" and by kind)."""

    folder: Path
    splits: dict[str, SplitSummary]
    text_only: dict[str, text_only.TextOnly]


def write_scenes(
    folder: Path,
    task: str,
    sizes: Mapping[str, int],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write the first rows of each split, whole or not at all.

    Args:
        folder: Becomes annotation/nlvr_*.json and images/<split>/*.png.
        task: Only "nlvr2" so far.
        sizes: Rows per split; a split of 0 rows gets no file.
        overwrite: Replace what an earlier call wrote; nothing else is ever replaced.
        progress: Told of each row.

    Raises:
        UsageError: The scenes have no such task or split, or there is nothing to write.
        OutputError: The folder is not empty, or cannot be written.
    """
    if not set(sizes) <= set(SPLITS) or min(sizes.values(), default=0) < 0 or not sum(sizes.values()):
        raise UsageError(f"Nothing to write with sizes {dict(sizes)}.\nGive rows for {', '.join(SPLITS)}, 0 or more.")
    drawn = {split: builtin.rows(task, split, sizes[split]) for split in SPLITS if sizes.get(split)}
    done, total = 0, sum(map(len, drawn.values()))
    kept: dict[str, list[Row]] = {split: [] for split in drawn}
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(folder, overwrite, _foreign) as place:
        (place / "annotation").mkdir()
        for split, rows in drawn.items():
            (place / "images" / split).mkdir(parents=True)
            records: list[dict[str, object]] = []
            for row in rows:
                records.append(_write(row, place / "images", split, len(records)))
                kept[split].append(row)
                done += 1
                if progress:
                    progress(done, total)
            (place / "annotation" / FILES[split]).write_text(json.dumps(records, indent=1) + "\n", "utf-8")
    without_images = text_only.accuracy(kept["train"], kept["test"]) if {"train", "test"} <= kept.keys() else {}
    return Written(folder, {split: _summary(rows) for split, rows in kept.items()}, without_images)


def _write(row: Row, images: Path, split: str, number: int) -> dict[str, object]:
    names = [f"{split}/{split}-{number:06}-img{side}.png" for side in (0, 1)]
    for name, scene in zip(names, row.images, strict=True):
        if isinstance(scene, Scene):
            # Level 1 is half as slow as the default and the noise compresses no better.
            Image.fromarray(scene.render()).save(images / name, compress_level=1)
    return {"sentence": row.text, "label": str(bool(row.label)), "images": names}


def _summary(rows: Sequence[Row]) -> SplitSummary:
    count, true = (Counter(row.kind or "other" for row in some) for some in (rows, [row for row in rows if row.label]))
    kinds = {kind: (count[kind], 100 * true[kind] / count[kind]) for kind in sorted(count)}
    return SplitSummary(len(rows), 100 * true.total() / len(rows), kinds)


def _foreign(folder: Path) -> str | None:
    """Why a folder is not replaced: it holds more than what is written here."""
    others = sorted({path.name for path in folder.iterdir()} - set(FOLDERS))
    return f"it also holds {', '.join(others[:3])}, not from here" if others else None
