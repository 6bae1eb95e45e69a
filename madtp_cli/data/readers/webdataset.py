"""webdataset shards: .tar archives in which files of one name but different ends are a sample, 7.jpg and 7.txt.

Read with Python's own tarfile: what it needs of a shard is where each image begins, so rows can be shuffled,
counted and set aside like any others, which webdataset's streams cannot. Compressed shards have no such places.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from madtp_cli.data import columns, tables
from madtp_cli.data.columns import IMAGE_SUFFIXES
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.embedded import ArchivedImage
from madtp_cli.data.records import Record
from madtp_cli.data.tables import Table, split_of
from madtp_cli.errors import DataError

LAYOUT = "webdataset shards (.tar)"

_TEXTS = {"txt", "text", "caption"}


def recognises(path: Path, task: str) -> bool:
    """Whether the first sample of the first shard has an image and the task's fields."""
    for shard in _shards(path)[:1]:
        try:
            fields = next((record.fields for record in _samples(shard)), {})
        except DataError:
            return not path.is_dir()  # whoever gives an archive itself learns what is wrong with it
        return columns.may_serve(task, list(fields), columns.image_columns([fields], lambda name: False))
    return False


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there.

    Raises:
        DataError: A shard is broken, or a sample lacks something; or `image_root` is given.
    """
    if image_root is not None:
        raise DataError(f"The images of {path} lie in its archives, not in {image_root}.\nLeave out --image-root.")
    found = [Table(shard, split_of(shard, path), partial(_load, shard)) for shard in _shards(path)]
    return tables.assemble(path, task, splits, None, layout=LAYOUT, tables=found)


def _shards(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if tarfile.is_tarfile(path) else []
    return sorted(file for folder in (path, *tables.split_folders(path)) for file in folder.glob("*.tar"))


def _load(shard: Path) -> list[Record]:
    found = list(_samples(shard))
    if not found:
        raise DataError(f"{shard} is empty.\nFetch or write it again, or remove it.")
    return found


def _samples(shard: Path) -> Iterator[Record]:
    """The samples of a shard; files of one sample follow each other."""
    key, fields, number = "", dict[str, Any](), 0
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, kind = file.partition(".")
                if not member.isreg() or not stem or not kind:
                    continue
                if f"{folder}/{stem}" != key and fields:
                    number += 1
                    yield Record(shard, number, fields)
                    fields = {}
                key = f"{folder}/{stem}"
                _add(fields, kind, archive, member, shard)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{shard} is no whole uncompressed .tar archive: {error}.\nFetch it again, or unpack what compresses it."
        ) from error
    if fields:
        yield Record(shard, number + 1, fields)


def _add(fields: dict[str, Any], kind: str, archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> None:
    """Add one file of a sample: "left.jpg" is the field left, "jpg" image; a JSON file's fields are the sample's."""
    name, _, end = kind.lower().rpartition(".")
    if f".{end}" in IMAGE_SUFFIXES:
        # Numbers alone, as 0.jpg and 1.jpg, number the images.
        field = f"image{name}" if not name or name.isdigit() else name
        fields[field] = ArchivedImage(shard, member.name, member.offset_data, member.size)
    elif end in _TEXTS or end == "json":
        stream = archive.extractfile(member)
        text = stream.read().decode("utf-8-sig", errors="replace") if stream else ""
        if end != "json":
            fields[name or "caption"] = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            # img2dataset repeats the caption and the image's name in it: the files themselves go first.
            for field, value in _object(shard, member, text).items():
                fields.setdefault(field, value)


def _object(shard: Path, member: tarfile.TarInfo, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{member.name} in {shard} is no JSON.\nFetch or write the shard again.") from error
    return found if isinstance(found, dict) else {}
