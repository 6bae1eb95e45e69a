"""webdataset shards: .tar archives in which the files of one sample differ only in their suffix, 7.jpg and 7.txt.

They are read with Python's tarfile. The position of each image in its shard is enough, so that rows can be shuffled,
counted and held out like all others, which the streams of the package webdataset do not allow. Compressed shards have
no such positions.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from madtp_cli import processes
from madtp_cli.data import sharing
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import LimitError, listed, require_size
from madtp_cli.data.image_sources import ArchivedImage
from madtp_cli.data.parsing import columns, tables
from madtp_cli.data.parsing.columns import IMAGE_SUFFIXES
from madtp_cli.data.parsing.records import Record, half_character
from madtp_cli.data.parsing.tables import Table, split_of
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "webdataset shards (.tar)"

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_TEXT_SUFFIXES = {"txt", "text", "caption"}


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether the first sample of the first shard has an image and the fields of the schema."""
    for shard in _shards(path)[:1]:
        if shard.name.lower().endswith(_COMPRESSED):
            return True  # reading it reports what to do
        try:
            fields = next((record.fields for record in _samples(shard)), {})
        except DataError as error:
            # Reading reports what is wrong. A broken archive beside other annotations may be no part of the data.
            return isinstance(error, LimitError) or not path.is_dir()
        return columns.can_hold(schema, list(fields), columns.image_columns([fields], lambda name: False))
    return False


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out.

    Raises:
        DataError: A shard is broken, a sample is incomplete, or `image_root` is given.
    """
    if image_root is not None:
        raise DataError(f"The images of {path} are in its archives, not in {image_root}.\nLeave out --image-root.")
    compressed = [shard for shard in _shards(path) if shard.name.lower().endswith(_COMPRESSED)]
    if compressed:
        raise DataError(
            f"{compressed[0]} is compressed, so the position of its images is not known.\n"
            "Decompress all such shards to .tar files, with gunzip, bunzip2, unxz or zstd -d."
        )
    found = [Table(shard, split_of(shard, path), partial(_load, shard)) for shard in _shards(path)]
    if processes.count() > 1:
        found = _shared_tables(path)
    return tables.read_tables(path, schema, splits, None, layout=LAYOUT, tables=found)


def _shards(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.name.lower().endswith(_COMPRESSED) or tarfile.is_tarfile(path) else []
    folders = (path, *tables.split_folders(path))
    return sorted(file for folder in folders for file in listed(folder, (".tar", *_COMPRESSED)))


def _shared_tables(path: Path) -> list[Table]:
    """Return one table per shard of all processes; its owner reads it, and the others receive its records."""
    names = [str(shard.relative_to(path)) if shard != path else shard.name for shard in _shards(path)]
    owners = sharing.assign(processes.gathered([names]))
    shards = {name: path / name if path.is_dir() else path for name in owners}
    return [
        Table(shards[name], split_of(shards[name], path), partial(_load_shared, shards[name], owner))
        for name, owner in owners.items()
    ]


def _load_shared(shard: Path, owner: int) -> list[Record]:
    mine = _load(shard) if owner == processes.rank() else []
    for record in mine:
        for name, value in record.fields.items():
            if isinstance(value, ArchivedImage):
                record.fields[name] = replace(value, owner=owner)
    return processes.gathered(mine)


def _load(shard: Path) -> list[Record]:
    records = list(_samples(shard))
    if not records:
        raise DataError(f"{shard} is empty.\nDownload or write it again, or remove it.")
    return records


def _samples(shard: Path) -> Iterator[Record]:
    """The samples of a shard; the files of one sample follow each other."""
    key, fields, number, size = "", dict[str, Any](), 0, shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, suffixes = file.partition(".")
                if not member.isreg() or not stem or not suffixes or folder.split("/")[0] == "__MACOSX":
                    continue
                if f"{folder}/{stem}" != key and fields:
                    number += 1
                    yield Record(shard, number, fields)
                    fields = {}
                key = f"{folder}/{stem}"
                if member.offset_data + member.size > size:
                    raise EOFError(f"it ends inside {member.name}")
                _add_file(fields, suffixes, archive, member, shard)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{shard} is not a complete, uncompressed .tar archive: {error}.\nDownload it again, or decompress it."
        ) from error
    if fields:
        yield Record(shard, number + 1, fields)


def _add_file(
    fields: dict[str, Any], suffixes: str, archive: tarfile.TarFile, member: tarfile.TarInfo, shard: Path
) -> None:
    """Add one file of a sample to its fields.

    "left.jpg" becomes the field "left", and "jpg" the field "image". The fields of a JSON file become fields of the
    sample.
    """
    name, _, suffix = suffixes.lower().rpartition(".")
    if f".{suffix}" in IMAGE_SUFFIXES:
        # A number alone, as in 7.0.jpg and 7.1.jpg, is the number of the image.
        field = f"image{name}" if not name or name.isdigit() else name
        fields[field] = ArchivedImage(shard, member.name, member.offset_data, member.size)
    elif suffix in _TEXT_SUFFIXES or suffix == "json":
        require_size(member.size, "TEXT_BYTES", f"{member.name} in {shard}")
        stream = archive.extractfile(member)
        text = stream.read().decode("utf-8-sig", errors="replace") if stream else ""
        if suffix != "json":
            fields[name or "caption"] = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            # img2dataset repeats the caption and the name of the image in the JSON file; the other files come first.
            for field, value in _parse_object(shard, member, text).items():
                fields.setdefault(field, value)


def _parse_object(shard: Path, member: tarfile.TarInfo, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{member.name} in {shard} is not JSON.\nDownload or write the shard again.") from error
    if half := half_character(content):
        raise DataError(f"{member.name} in {shard} has half of a character, {half}.\nCorrect or remove the sample.")
    return content if isinstance(content, dict) else {}
