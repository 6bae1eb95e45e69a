"""Parquet files as the Hugging Face hub stores them, read with `pyarrow`."""

from __future__ import annotations

import io
import pickle
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.data.pixels import decode
from madtp_cli.errors import DataError
from tests.data.conftest import write_image


def stored(shade: int) -> dict[str, Any]:
    """Return an image as Hugging Face stores it in a row."""
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), (shade, 7, 9)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": f"{shade}.png"}


def write(file: Path, rows: Sequence[Mapping[str, Any]], group: int = 2) -> None:
    """Write a file with row groups of this size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), file, row_group_size=group)


def test_the_files_of_a_split_are_joined(tmp_path):
    """The hub divides a split into files, in the folder `data`, and a file into row groups."""
    rows = [{"image": stored(number), "caption": [f"Dog {number}."]} for number in range(7)]
    write(tmp_path / "data/train-00000-of-00002.parquet", rows[:3])
    write(tmp_path / "data/train-00001-of-00002.parquet", rows[3:5])
    write(tmp_path / "data/validation-00000-of-00001.parquet", rows[5:])
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 5, "val": 2}
    for number, row in enumerate([*found.split("train"), *found.split("val")]):
        image = pickle.loads(pickle.dumps(row.images[0]))
        assert row.text == f"Dog {number}."
        assert decode(image).getpixel((0, 0)) == (number, 7, 9)


def test_images_may_be_bytes_or_names_of_files(tmp_path):
    """Other programs write a column of bytes, or a table of paths."""
    write(tmp_path / "a/test.parquet", [{"image": stored(1)["bytes"], "question": "What?", "answers": ["x", "y"]}])
    row = data.read(tmp_path / "a", "questions").split("test")[0]
    assert row.references == ("x", "y")
    assert decode(row.images[0]).getpixel((0, 0)) == (1, 7, 9)
    write_image(tmp_path / "b/images/1.png")
    write(tmp_path / "b/test.parquet", [{"file_name": "images/1.png", "caption": "x"}])
    assert str(data.read(tmp_path / "b/test.parquet", "captions").split("test")[0].images[0]).endswith("1.png")


def test_without_the_package_the_error_gives_the_install_command(tmp_path, monkeypatch):
    """The command is for the environment that runs."""
    write(tmp_path / "test.parquet", [{"image": stored(1), "caption": "x"}])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=re.escape(f"{sys.executable} -m pip install pyarrow")):
        data.read(tmp_path, "captions")


def test_broken_files_are_an_error(tmp_path):
    """The usual cause is an interrupted download, or a pointer file of Git LFS."""
    write(tmp_path / "test.parquet", [{"image": stored(1), "caption": "x"}])
    content = (tmp_path / "test.parquet").read_bytes()
    for part in (content[: len(content) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        (tmp_path / "test.parquet").write_bytes(part)
        with pytest.raises(DataError, match=r"test\.parquet is no complete Parquet file"):
            data.read(tmp_path, "captions")
