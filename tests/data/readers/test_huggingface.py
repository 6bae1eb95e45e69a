"""Hugging Face data sets on disk, with a replacement for the package `datasets`, which has 270 MB.

The replacement stores rows as JSON where the package stores them as Arrow, next to the same descriptions of them.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.data.pixels import decode
from madtp_cli.errors import DataError

FEATURES = {
    "image": {"_type": "Image"},
    "caption": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
}


class Table:
    """The part of `datasets.Dataset` that the reader uses."""

    def __init__(self, rows: list[dict[str, Any]], split: str | None = None, decoded: bool = True) -> None:
        """Store rows."""
        self.rows, self.split, self.decoded = rows, split, decoded

    @property
    def column_names(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.rows[0])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return one row; fails if an image column would be decoded."""
        row = self.rows[number]
        images = [name for name, value in row.items() if isinstance(value, dict)]
        assert not (self.decoded and images), "an image column was decoded"
        encoded = {
            name: {**row[name], "bytes": row[name]["bytes"] and bytes.fromhex(row[name]["bytes"])} for name in images
        }
        return row | encoded

    def remove_columns(self, names: list[str]) -> Table:
        """Return a table without these columns."""
        return Table([{name: row[name] for name in row if name not in names} for row in self.rows])

    def select_columns(self, names: list[str]) -> Table:
        """Return a table with only these columns."""
        return Table([{name: row[name] for name in names} for row in self.rows])

    def cast_column(self, name: str, feature: Any) -> Table:
        """Return a table in which a column has another type."""
        return Table(self.rows, decoded=feature.decode)

    @staticmethod
    def from_file(path: str) -> Table:
        """Return the rows of one file."""
        return Table(json.loads(Path(path).read_text()))


def load_from_disk(path: str) -> Table | dict[str, Table]:
    """Return what `save_to_disk` wrote: one table, or one per split."""
    folder = Path(path)
    if (folder / "dataset_dict.json").exists():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        return {name: Table.from_file(str(folder / name / "data.arrow")) for name in names}
    table = Table.from_file(str(folder / "data.arrow"))
    table.split = json.loads((folder / "state.json").read_text())["_split"]
    return table


@pytest.fixture
def package(monkeypatch) -> None:
    """Install the replacement for `datasets`."""
    fake = SimpleNamespace(
        load_from_disk=load_from_disk,
        Dataset=Table,
        Image=lambda decode: SimpleNamespace(decode=decode),
        concatenate_datasets=lambda tables: Table([row for table in tables for row in table.rows]),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)


def row(shade: int, path: str | None = None) -> dict[str, Any]:
    """Return one row: an image with this red and two captions."""
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), (shade, 7, 9)).save(stream, "PNG")
    image = {"bytes": None if path else stream.getvalue().hex(), "path": path}
    return {"image": image, "caption": [f"Dog {shade}.", f"Cat {shade}."]}


def write(file: Path, rows: list[dict[str, Any]], features: object = FEATURES) -> None:
    """Write a table with its description next to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    (file.parent / "dataset_info.json").write_text(json.dumps({"features": features}))


def save(folder: Path, **splits: int) -> Path:
    """Write a data set as `DatasetDict.save_to_disk` does, with this many rows per split."""
    for number, (split, size) in enumerate(splits.items()):
        write(folder / split / "data.arrow", [row(10 * number + i) for i in range(size)])
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


@pytest.mark.usefixtures("package")
def test_a_saved_data_set_keeps_its_splits(tmp_path):
    """Its images stay in its files until a worker opens them."""
    found = data.read(save(tmp_path, train=3, validation=1, test=2), "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1, "test": 2}
    sample = found.split("test")[1]
    assert (sample.text, sample.references) == ("Dog 21.", ("Dog 21.", "Cat 21."))
    assert len(pickle.dumps(sample)) < 1_000
    assert decode(pickle.loads(pickle.dumps(sample)).images[0]).getpixel((0, 0)) == (21, 7, 9)
    assert str(sample.images[0]) == f"image of test row 2 in {tmp_path}"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("split", "found"), [(None, {"train": 9, "val": 1}), ("test", {"test": 10})])
def test_a_saved_table_keeps_its_split(tmp_path, split, found):
    """`load_dataset(..., split="test").save_to_disk()` stores the split; a table without a split is train."""
    write(tmp_path / "data.arrow", [row(i) for i in range(10)])
    (tmp_path / "state.json").write_text(json.dumps({"_split": split}))
    read = data.read(tmp_path, "captions")
    assert {name: len(rows) for name, rows in read.splits.items()} == found
    assert all(decode(rows[0].images[0]).size == (5, 3) for rows in read.splits.values())
    assert any("contains no split name" in note for note in read.notes) == (split is None)


@pytest.mark.usefixtures("package")
def test_a_cached_data_set_is_found_by_its_name(tmp_path, monkeypatch):
    """Nothing is downloaded: a data set that is not in the cache is an error."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    folder = tmp_path / "owner___my_pairs/default/0.0.0/abc"
    write(folder / "my_pairs-train-00000-of-00002.arrow", [row(i) for i in range(6)])
    write(folder / "my_pairs-train-00001-of-00002.arrow", [row(i) for i in range(6, 10)])
    write(folder / "my_pairs-test.arrow", [row(50)])
    found = data.read(Path("owner/My-Pairs"), "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 9, "val": 1, "test": 1}
    assert found.split("test")[0].text == "Dog 50."
    with pytest.raises(DataError, match="There is no file or folder owner/other"):
        data.read(Path("owner/other"), "captions")
    write(tmp_path / "owner___my_pairs/second/0.0.0/abc/my_pairs-test.arrow", [row(50)])
    with pytest.raises(DataError, match="owner/My-Pairs is in the cache 2 times"):
        data.read(Path("owner/My-Pairs"), "captions")


@pytest.mark.usefixtures("package")
def test_an_image_that_is_only_a_path_must_be_in_the_folder(tmp_path):
    """A data set from elsewhere could name any file of this machine."""
    folder = tmp_path / "set"
    Image.new("RGB", (5, 3), (9, 9, 9)).save(tmp_path / "secret.png")
    write(folder / "data.arrow", [row(1, str(tmp_path / "secret.png")), row(1, str(folder / "in.png"))])
    (folder / "state.json").write_text(json.dumps({"_split": "test"}))
    Image.new("RGB", (5, 3), (1, 7, 9)).save(folder / "in.png")
    outside, inside = (row.images[0] for row in data.read(folder, "captions").split("test"))
    assert decode(inside).getpixel((0, 0)) == (1, 7, 9)
    with pytest.raises(DataError, match="leaves the data folder"):
        decode(outside)


def test_without_the_package_the_error_gives_the_install_command(tmp_path, monkeypatch):
    """The layout is recognised without the package."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"-m pip install datasets"):
        data.read(save(tmp_path, test=1), "captions")


@pytest.mark.usefixtures("package")
def test_the_columns_decide_the_schema(tmp_path):
    """Questions are not captions, and rows without an image cannot be used."""
    save(tmp_path / "a", test=1)
    with pytest.raises(DataError, match="no annotations for questions"):
        data.read(tmp_path / "a", "questions")
    string = {"dtype": "string", "_type": "Value"}
    features = {"image": FEATURES["image"], "question": string, "answers": string}
    fields = {"image": row(1)["image"], "question": "What?", "answers": ["dog", "cat"]}
    write(tmp_path / "b/data.arrow", [fields], features)
    (tmp_path / "b/state.json").write_text('{"_split": "test"}')
    assert data.read(tmp_path / "b", "questions").split("test")[0].references == ("dog", "cat")
    write(tmp_path / "b/data.arrow", [fields], {"question": string, "answers": string})
    with pytest.raises(DataError, match="no annotations for questions"):
        data.read(tmp_path / "b", "questions")
