"""Writes the built-in scenes in the layout that BLIP's users have, to be read back like their own data."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from madtp_cli.data import builtin, text_only
from madtp_cli.data.rows import Row
from madtp_cli.data.scenes import SPLITS, Scene
from madtp_cli.errors import OutputError, UsageError

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
    with _whole(folder, overwrite) as place:
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


@contextlib.contextmanager
def _whole(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; move it there if all goes well, else remove it."""
    target = folder.resolve()
    new = target.with_name(f".{target.name}.new-{os.getpid()}")
    try:
        _refuse_replacing(target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        yield new
        _move_into_place(new, target)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{folder} cannot be written: {reason}.\nMake room, or choose another folder.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _move_into_place(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _refuse_replacing(folder: Path, overwrite: bool) -> None:
    if folder.is_file():
        raise OutputError(f"{folder} is a file; the output is a folder.\nChoose another name.")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if there and not overwrite:
        raise OutputError(f"{folder} exists and is not empty.\nChoose another folder, or replace it with --overwrite.")
    if not there <= set(FOLDERS):
        others = ", ".join(sorted(there - set(FOLDERS))[:3])
        raise OutputError(f"{folder} is not replaced: it also holds {others}, not from here.\nChoose another folder.")
