"""Karpathy's splits: dataset_coco.json, dataset_flickr30k.json and their like, all splits in one file.

{"images": [{"filepath": "val2014", "filename": ..., "split": ..., "sentences": [{"raw": ...}, ...]}, ...]}. The
split "restval" is what was left of COCO's validation images; it belongs to train.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.assembling import Draft, captioned, gather
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record

LAYOUT = "Karpathy's split JSON"
_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


def recognises(path: Path, task: str) -> bool:
    """Whether a file is an object with images that have sentences and a split, file names, or both."""
    return task in ("caption", "retrieval") and records.recognises(path, _fits)


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there."""
    file = records.only(path, _fits)
    images: dict[str, list[Record]] = {}
    for record in records.part(file, records.load_object(file), "images"):
        images.setdefault(_split(record), []).append(record)
    return gather(
        path,
        task,
        splits,
        image_root,
        layout=LAYOUT,
        there=images,
        drafted=lambda split: [(record, _draft(record)) for record in images[split]],
        notes=[],
    )


def _fits(fields: dict[str, Any]) -> bool:
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


def _draft(record: Record) -> Draft:
    name = record.text("filename")
    names = ((f"{record.text('filepath')}/{name}",), (name,)) if record.fields.get("filepath") else ((name,),)
    sentences = record.value("sentences")
    if not isinstance(sentences, list) or not all(
        isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) for sentence in sentences
    ):
        raise record.error("field 'sentences' must be a list of {'raw': words}", "Correct the row, or remove it.")
    return captioned(names, tuple(sentence["raw"] for sentence in sentences if sentence["raw"].strip()))
