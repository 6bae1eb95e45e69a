"""COCO's own captions: captions_{train,val}2014.json, and 2017.

{"images": [{"id": ..., "file_name": ...}, ...], "annotations": [{"image_id": ..., "caption": ...}, ...]}. Its other
files (instances, key points) look the same where they begin, and lie beside them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from madtp_cli.data import json_sniffing, records
from madtp_cli.data.assembling import Draft, Drafted, captioned, gather
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record

LAYOUT = "COCO captions JSON"


def recognises(path: Path, task: str) -> bool:
    """Whether a file is an object with images that have file names, and annotations that have captions."""
    return task in ("caption", "retrieval") and any(map(_fits, records.files(path)))


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there."""
    every = records.files(path)
    files, notes = records.by_split(every, [file for file in every if _fits(file)])
    return gather(
        path,
        task,
        splits,
        image_root,
        layout=LAYOUT,
        there=files,
        drafted=lambda split: _drafted(files[split]),
        notes=notes,
    )


def _fits(file: Path) -> bool:
    head = next(iter(json_sniffing.beginning(file)), {})
    lists = [head[name] for name in ("images", "annotations") if isinstance(head.get(name), list)]
    if not lists:
        return False
    # Of two long lists the beginning shows one and the end the other.
    seen = [set(item) for items in (*lists, json_sniffing.ending(file)) for item in items if isinstance(item, dict)]
    return any("file_name" in item for item in seen) and any({"image_id", "caption"} <= item for item in seen)


def _drafted(file: Path) -> list[Drafted]:
    content = records.load_object(file)
    images = records.part(file, content, "images")
    captions: dict[int, list[str]] = {image.number("id"): [] for image in images}
    for annotation in records.part(file, content, "annotations"):
        number = annotation.number("image_id")
        if number not in captions:
            raise annotation.error(f"there is no image with the id {number}", "Add it to 'images', or remove the row.")
        captions[number].extend(annotation.texts("caption"))
    return [(image, _draft(image, tuple(captions[image.number("id")]))) for image in images]


def _draft(image: Record, captions: tuple[str, ...]) -> Draft:
    # The images lie in folders named like the split in the file's name: train2014, val2014.
    name, folder = image.text("file_name"), records.split_word(image.file)
    return captioned(((f"{folder}/{name}",), (name,)), captions)
