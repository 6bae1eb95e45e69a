"""Captions as Flickr30k and Flickr8k publish them: `1000092795.jpg#0<TAB>Two young guys ...`.

The file contains no splits. Lists in the same folder do, with one image per line: train.txt, val.txt and test.txt, or
Flickr_8k.trainImages.txt, Flickr_8k.devImages.txt and Flickr_8k.testImages.txt.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import beginning, listed, read_text
from madtp_cli.data.parsing import tables
from madtp_cli.data.parsing.annotation_files import ANNOTATION_FOLDERS, split_in_name
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.parsing.tables import Table
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "Flickr30k captions (.token)"

_LINE = re.compile(r"([^\t#]+)#\d+\t+(\S.*)")


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether the first line of a file is an image, the number of a caption, and the caption."""
    return schema == schemas.CAPTIONS and bool(_files(path))


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out.

    Raises:
        DataError: A line is not a caption, or several caption files have the same split or none in their names.
    """
    files = _files(path)
    split_names = [split_in_name(file.stem) for file in files]
    if len(set(split_names)) < len(files):
        names = ", ".join(str(file) for file in files[:3])
        raise DataError(f"Several files hold captions: {names}.\nGive one of them, or move the others away.")
    lists = _image_lists(files[0].parent) if split_names == [None] else {}
    lists_used = ", ".join(file.name for file in lists.values())
    notes = [f"splits from {lists_used}; images in none of them not used"] if lists else []
    split_of = _splits_of_images(lists) if lists else None
    found = [Table(file, split, partial(_load, file, split_of)) for file, split in zip(files, split_names, strict=True)]
    return tables.read_tables(path, schema, splits, image_root, layout=LAYOUT, tables=found, notes=notes)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if _begins_with_caption(path) else []
    folders = [path, *(path / name for name in ANNOTATION_FOLDERS)]
    files = sorted(file for folder in folders for file in listed(folder, (".token", ".token.txt")))
    # Flickr8k has its captions a second time, as word stems.
    return [file for file in files if ".lemma." not in file.name.lower() and _begins_with_caption(file)]


def _begins_with_caption(file: Path) -> bool:
    return bool(_LINE.match(beginning(file, 10_000)[0]))


def _load(file: Path, split_of: Mapping[str, str] | None) -> Sequence[Record]:
    """The captions of a file, one record each; with `split_of`, only those of the images in it."""
    records = []
    for record in _captions(file):
        split = None if split_of is None else split_of.get(Path(record.fields["image"]).stem)
        if split:
            record.fields["split"] = split
        if split or split_of is None:
            records.append(record)
    if not records:
        raise DataError(f"{file} has no captions of the images in the lists next to it.\nCheck the lists.")
    return records


def _captions(file: Path) -> list[Record]:
    records = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip():
            parts = _LINE.fullmatch(line.strip())
            if not parts:
                remedy = "A line must be image.jpg#0, a tab and the caption."
                raise Record(file, number, {}).error("the line is not a caption", remedy)
            records.append(Record(file, number, {"image": parts[1], "caption": parts[2]}))
    return records


def _image_lists(folder: Path) -> dict[str, Path]:
    files = [file for file in listed(folder, (".txt",)) if ".token" not in file.name]
    by_split = {split_in_name(file.stem): file for file in files if not _begins_with_caption(file)}
    return {split: file for split, file in by_split.items() if split}


def _splits_of_images(lists: Mapping[str, Path]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split, file in lists.items():
        for image in _images(file):
            if splits.setdefault(image, split) != split:
                raise DataError(
                    f"{file}: image {image} is also in {lists[splits[image]].name}.\nRemove it from one of the lists."
                )
    return splits


def _images(file: Path) -> list[str]:
    """The images of a list, without the suffixes of their names, which some lists leave out."""
    lines = read_text(file).split("\n")
    return [Path(line.strip()).stem for line in lines if line.strip()]
