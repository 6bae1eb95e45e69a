"""Captions as Flickr30k and Flickr8k publish them: `1000092795.jpg#0<TAB>Two young guys ...`.

The file names no splits. Lists beside it do, one image a line, in files called train.txt, val.txt and test.txt.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from madtp_cli.data import records, tables
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record
from madtp_cli.data.tables import Table
from madtp_cli.errors import DataError

LAYOUT = "Flickr30k captions (.token)"

_LINE = re.compile(r"([^\t#]+)#\d+\t+(\S.*)")


def recognises(path: Path, task: str) -> bool:
    """Whether the first line of a file is an image, the number of a caption, and the caption."""
    return task in ("caption", "retrieval") and bool(_files(path))


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there.

    Raises:
        DataError: A line is no caption, or several files have such lines and tell no split.
    """
    files = _files(path)
    claims = [records.split_named(file.stem) for file in files]
    if len(set(claims)) < len(files):
        names = ", ".join(str(file) for file in files[:3])
        raise DataError(f"Several files hold captions: {names}.\nGive one of them, or move the others away.")
    lists = _lists(files[0].parent) if claims == [None] else {}
    notes = [f"splits by {', '.join(file.name for file in lists.values())}; other images left out"] if lists else []
    split_of = {name: split for split, file in lists.items() for name in _names(file)}
    found = [
        Table(file, split, partial(_load, file, split_of if lists else None))
        for file, split in zip(files, claims, strict=True)
    ]
    return tables.assemble(path, task, splits, image_root, layout=LAYOUT, tables=found, notes=notes)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if _opens_with_a_caption(path) else []
    folders = [path, *(path / place for place in records.PLACES)]
    named = sorted(file for folder in folders for file in folder.glob("*.token*") if file.is_file())
    return [file for file in named if _opens_with_a_caption(file)]


def _opens_with_a_caption(file: Path) -> bool:
    with file.open("rb") as stream:
        return bool(_LINE.match(stream.readline(10_000).decode("utf-8-sig", errors="replace")))


def _load(file: Path, splits: dict[str, str] | None) -> Sequence[Record]:
    """The captions of a file, one record each; with `splits` only those of the images in it."""
    found = []
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nFetch it again.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            words = _LINE.fullmatch(line.strip())
            record = Record(file, number, dict(image=words[1], caption=words[2]) if words else {})
            if not words:
                raise record.error("it is no caption", "Write image.jpg#0, a tab and the caption.")
            split = None if splits is None else splits.get(Path(words[1]).stem)
            if split:
                record.fields["split"] = split
            if split or splits is None:
                found.append(record)
    if not found:
        raise DataError(f"{file} has no caption of the images in the lists beside it.\nCheck the lists.")
    return found


def _lists(folder: Path) -> dict[str, Path]:
    named = {records.split_named(file.stem): file for file in sorted(folder.glob("*.txt")) if ".token" not in file.name}
    return {split: file for split, file in named.items() if split}


def _names(file: Path) -> list[str]:
    """The images of a list, without the ends of their names, which lists may leave out."""
    lines = file.read_text("utf-8-sig", errors="replace").split("\n")
    return [Path(line.strip()).stem for line in lines if line.strip()]
