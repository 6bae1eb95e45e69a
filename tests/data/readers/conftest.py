"""Annotation files on disk with images around them, and the messages about wrong ones."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from madtp_cli import data
from madtp_cli.data import schemas
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from tests.data.conftest import write_image

__all__ = ["error_text", "layouts", "names", "write"]


def write(file: Path, content: Any, images: Collection[str] = ()) -> Path:
    """Write an annotation file and images below its data folder; return the data folder."""
    folder = file.parent.parent if file.parent.name in ("annotation", "annotations") else file.parent
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for name in images:
        write_image(folder / name)
    return folder


def names(rows: Collection[data.Row]) -> list[str]:
    """Return the file name of each row's only image."""
    found = []
    for row in rows:
        (image,) = row.images
        assert isinstance(image, ImageFile)
        assert image.path.is_file()
        found.append(image.path.name)
    return found


def error_text(path: Path, schema: str, splits: Collection[str] = data.SPLITS) -> str:
    """Return the message about a data set that cannot be used."""
    with pytest.raises(DataError) as caught:
        data.read(path, schema, splits)
    text = str(caught.value)
    assert 2 <= len(text.splitlines()) <= 3
    return text


def layouts(path: Path, schema: str) -> list[str]:
    """Return the layouts that are recognised for a schema."""
    return [reader.LAYOUT for reader in data.matching_readers(path, schemas.get(schema))]
