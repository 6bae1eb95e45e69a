"""Karpathy's splits: dataset_coco.json, dataset_flickr30k.json and similar files, each with all splits.

{"images": [{"filepath": "val2014", "filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}. The
split "restval" is the rest of COCO's validation images and is used for training.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing import records
from madtp_cli.data.parsing.annotation_files import any_file_matches, single_file
from madtp_cli.data.parsing.building import ParsedRow, build_dataset, caption_row
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema

LAYOUT = "Karpathy's split JSON"
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether a file is an object with images that have sentences and a split or a file name."""
    return schema == schemas.CAPTIONS and any_file_matches(path, _matches)


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out."""
    file = single_file(path, _matches)
    images: dict[str, list[Record]] = {}
    for record in records.records_in_list(file, records.load_object(file), "images"):
        images.setdefault(_split(record), []).append(record)
    return build_dataset(
        path,
        schema,
        splits,
        image_root,
        layout=LAYOUT,
        available=images,
        load=lambda split: map(_parse, images[split]),
        notes=[],
    )


def _matches(fields: dict[str, Any]) -> bool:
    images = fields.get("images")
    return isinstance(images, list) and any(
        isinstance(image, dict) and "sentences" in image and bool({"split", "filename"} & set(image))
        for image in images
    )


def _split(record: Record) -> str:
    split = record.text("split")
    if split not in _SPLITS:
        raise record.error(f"the split {split!r} is unknown", f"It must be {', '.join(_SPLITS)}.")
    return _SPLITS[split]


def _parse(record: Record) -> ParsedRow:
    name = record.text("filename")
    image_names = ((f"{record.text('filepath')}/{name}",), (name,)) if record.fields.get("filepath") else ((name,),)
    sentences = record.value("sentences")
    if not isinstance(sentences, list) or not all(
        isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) for sentence in sentences
    ):
        raise record.error("field 'sentences' must be a list of {'raw': text}", "Correct or remove the row.")
    captions = tuple(sentence["raw"] for sentence in sentences if sentence["raw"].strip())
    return caption_row(record, image_names, captions)
