"""Hugging Face data sets on disk, with a stand-in for the package `datasets`, which weighs 270 MB.

The stand-in keeps rows in JSON where the package keeps Arrow, beside the same descriptions of them.
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
    """The part of `datasets.Dataset` that is used."""

    def __init__(self, rows: list[dict[str, Any]], split: str | None = None, decoded: bool = True) -> None:
        """Hold rows."""
        self.rows, self.split, self.decoded = rows, split, decoded

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows[0])

    def __len__(self) -> int:
        """Rows there are."""
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """One row; an image column that is still to be decoded must not be asked for."""
        row = self.rows[number]
        assert not (self.decoded and "image" in row), "decoded in the wrong place"
        return {
            name: {**value, "bytes": value["bytes"] and bytes.fromhex(value["bytes"])} if name == "image" else value
            for name, value in row.items()
        }

    def remove_columns(self, names: list[str]) -> Table:
        """All columns but these."""
        return Table([{name: row[name] for name in row if name not in names} for row in self.rows])

    def select_columns(self, names: list[str]) -> Table:
        """Only these columns."""
        return Table([{name: row[name] for name in names} for row in self.rows])

    def cast_column(self, name: str, feature: Any) -> Table:
        """Give a column another type."""
        return Table(self.rows, decoded=feature.decode)

    @staticmethod
    def from_file(path: str) -> Table:
        """Rows of one file."""
        return Table(json.loads(Path(path).read_text()))


def load_from_disk(path: str) -> Table | dict[str, Table]:
    """What `save_to_disk` wrote: one table, or one for each split."""
    folder = Path(path)
    if (folder / "dataset_dict.json").exists():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        return {name: Table.from_file(str(folder / name / "data.arrow")) for name in names}
    table = Table.from_file(str(folder / "data.arrow"))
    table.split = json.loads((folder / "state.json").read_text())["_split"]
    return table


@pytest.fixture
def package(monkeypatch) -> None:
    """Install the stand-in."""
    fake = SimpleNamespace(
        load_from_disk=load_from_disk,
        Dataset=Table,
        Image=lambda decode: SimpleNamespace(decode=decode),
        concatenate_datasets=lambda tables: Table([row for table in tables for row in table.rows]),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)


def row(shade: int, path: str | None = None) -> dict[str, Any]:
    """One row: a picture of this red and two captions."""
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), (shade, 7, 9)).save(stream, "PNG")
    image = {"bytes": None if path else stream.getvalue().hex(), "path": path}
    return {"image": image, "caption": [f"Dog {shade}.", f"Cat {shade}."]}


def write(file: Path, rows: list[dict[str, Any]], features: object = FEATURES) -> None:
    """A table and its description beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    (file.parent / "dataset_info.json").write_text(json.dumps({"features": features}))


def save(folder: Path, **splits: int) -> Path:
    """As `DatasetDict.save_to_disk` does, so many rows of each split."""
    for number, (split, size) in enumerate(splits.items()):
        write(folder / split / "data.arrow", [row(10 * number + i) for i in range(size)])
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_a_saved_data_set_is_read_by_its_own_splits(tmp_path, task):
    """Its images stay in its files until a worker asks for them."""
    found = data.read(save(tmp_path, train=3, validation=1, test=2), task)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1, "test": 2}
    sample = found.split("test")[1]
    assert (sample.text, sample.references) == ("Dog 21.", ("Dog 21.", "Cat 21."))
    assert len(pickle.dumps(sample)) < 1_000
    assert decode(pickle.loads(pickle.dumps(sample)).images[0]).getpixel((0, 0)) == (21, 7, 9)
    assert str(sample.images[0]) == f"image of test row 2 in {tmp_path}"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("split", "found"), [(None, {"train": 9, "val": 1}), ("test", {"test": 10})])
def test_one_saved_table_is_the_split_it_came_from(tmp_path, split, found):
    """`load_dataset(..., split="test").save_to_disk()` remembers; what was never split is train."""
    write(tmp_path / "data.arrow", [row(i) for i in range(10)])
    (tmp_path / "state.json").write_text(json.dumps({"_split": split}))
    read = data.read(tmp_path, "caption")
    assert {name: len(rows) for name, rows in read.splits.items()} == found
    assert all(decode(rows[0].images[0]).size == (5, 3) for rows in read.splits.values())
    assert any("tells no split" in note for note in read.notes) == (split is None)


@pytest.mark.usefixtures("package")
def test_a_cached_data_set_is_found_by_its_name(tmp_path, monkeypatch):
    """Nothing is fetched: what is not in the cache is not there."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    place = tmp_path / "owner___my_pairs/default/0.0.0/abc"
    write(place / "my_pairs-train-00000-of-00002.arrow", [row(i) for i in range(6)])
    write(place / "my_pairs-train-00001-of-00002.arrow", [row(i) for i in range(6, 10)])
    write(place / "my_pairs-test.arrow", [row(50)])
    found = data.read(Path("owner/My-Pairs"), "caption")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 9, "val": 1, "test": 1}
    assert found.split("test")[0].text == "Dog 50."
    with pytest.raises(DataError, match="There is no file or folder owner/other"):
        data.read(Path("owner/other"), "caption")
    write(tmp_path / "owner___my_pairs/second/0.0.0/abc/my_pairs-test.arrow", [row(50)])
    with pytest.raises(DataError, match="owner/My-Pairs is in the cache 2 times"):
        data.read(Path("owner/My-Pairs"), "caption")


@pytest.mark.usefixtures("package")
def test_an_image_that_is_only_a_path_must_lie_in_the_folder(tmp_path):
    """A data set from elsewhere could name any file of this machine."""
    place = tmp_path / "set"
    Image.new("RGB", (5, 3), (9, 9, 9)).save(tmp_path / "secret.png")
    write(place / "data.arrow", [row(1, str(tmp_path / "secret.png")), row(1, str(place / "in.png"))])
    (place / "state.json").write_text(json.dumps({"_split": "test"}))
    Image.new("RGB", (5, 3), (1, 7, 9)).save(place / "in.png")
    outside, inside = (row.images[0] for row in data.read(place, "caption").split("test"))
    assert decode(inside).getpixel((0, 0)) == (1, 7, 9)
    with pytest.raises(DataError, match="leaves the data folder"):
        decode(outside)


def test_without_the_package_the_command_that_installs_it_is_given(tmp_path, monkeypatch):
    """What it is can be told without it."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'madtp\[datasets\]'"):
        data.read(save(tmp_path, test=1), "caption")


@pytest.mark.usefixtures("package")
def test_columns_decide_what_a_data_set_serves(tmp_path):
    """Questions are no captions, and rows without an image are nothing."""
    save(tmp_path / "a", test=1)
    with pytest.raises(DataError, match="no annotations for vqa"):
        data.read(tmp_path / "a", "vqa")
    string = {"dtype": "string", "_type": "Value"}
    features = {"image": FEATURES["image"], "question": string, "answers": string}
    asked = {"image": row(1)["image"], "question": "What?", "answers": ["dog", "cat"]}
    write(tmp_path / "b/data.arrow", [asked], features)
    (tmp_path / "b/state.json").write_text('{"_split": "test"}')
    assert data.read(tmp_path / "b", "vqa").split("test")[0].references == ("dog", "cat")
    write(tmp_path / "b/data.arrow", [asked], {"question": string, "answers": string})
    with pytest.raises(DataError, match="no annotations for vqa"):
        data.read(tmp_path / "b", "vqa")
