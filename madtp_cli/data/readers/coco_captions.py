"""COCO's own captions: captions_{train,val}2014.json, and the same for 2017.

{"images": [{"id": ..., "file_name": ...}, ...], "annotations": [{"image_id": ..., "caption": ...}, ...]}. COCO's other
files (instances, key points) are in the same folder and begin in the same way.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing import json_sniffing, records
from madtp_cli.data.parsing.annotation_files import assign_splits, json_files, split_word
from madtp_cli.data.parsing.building import ParsedRow, build_dataset, caption_row
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema

LAYOUT = "COCO captions JSON"


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether a file is an object with images that have file names, and annotations that have captions."""
    return schema == schemas.CAPTIONS and any(map(_matches, json_files(path)))


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out."""
    candidates = json_files(path)
    files, notes = assign_splits(candidates, [file for file in candidates if _matches(file)])
    return build_dataset(
        path,
        schema,
        splits,
        image_root,
        layout=LAYOUT,
        available=files,
        load=lambda split: _load(files[split]),
        notes=notes,
    )


def _matches(file: Path) -> bool:
    head = next(iter(json_sniffing.first_objects(file)), {})
    lists = [head[name] for name in ("images", "annotations") if isinstance(head.get(name), list)]
    if not lists:
        return False
    # The two lists are long: one shows at the beginning of the file, and the other at its end.
    objects = [*(item for items in lists for item in items), *json_sniffing.last_objects(file)]
    fields = [set(item) for item in objects if isinstance(item, dict)]
    return any("file_name" in names for names in fields) and any({"image_id", "caption"} <= names for names in fields)


def _load(file: Path) -> list[ParsedRow]:
    content = records.load_object(file)
    images = records.records_in_list(file, content, "images")
    captions: dict[int, list[str]] = {image.number("id"): [] for image in images}
    for annotation in records.records_in_list(file, content, "annotations"):
        number = annotation.number("image_id")
        if number not in captions:
            raise annotation.error(f"there is no image with the id {number}", "Add it to 'images', or remove the row.")
        captions[number].extend(annotation.texts("caption"))
    return [_parse(image, tuple(captions[image.number("id")])) for image in images]


def _parse(image: Record, captions: tuple[str, ...]) -> ParsedRow:
    # The folders of images are named like the split in the file name: train2014, val2014.
    name, folder = image.text("file_name"), split_word(image.file)
    return caption_row(image, ((f"{folder}/{name}",), (name,)), captions)
