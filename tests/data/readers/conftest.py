"""Annotation files on disk with pictures around them, and what a user reads when they are wrong."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from madtp_cli import data
from madtp_cli.errors import DataError
from tests.data.conftest import picture

__all__ = ["complaint", "names", "write"]


def write(file: Path, content: Any, images: Collection[str] = ()) -> Path:
    """Write an annotation file, and pictures below its data folder, which is given back."""
    folder = file.parent.parent if file.parent.name in ("annotation", "annotations") else file.parent
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    for name in images:
        picture(folder / name)
    return folder


def names(rows: Collection[data.Row]) -> list[str]:
    """The file name of each row's only image."""
    found = []
    for row in rows:
        (image,) = row.images
        assert isinstance(image, Path)
        assert image.is_file()
        found.append(image.name)
    return found


def complaint(path: Path, task: str, splits: Collection[str] = data.SPLITS) -> str:
    """What a user reads about a data set that cannot be used."""
    with pytest.raises(DataError) as caught:
        data.read(path, task, splits)
    text = str(caught.value)
    assert 2 <= len(text.splitlines()) <= 3
    return text
