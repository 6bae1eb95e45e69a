"""A column that means something is used or refused, and never left out without a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.errors import DataError
from tests.data.conftest import blip_rows, write_image


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with four images."""
    for number in range(4):
        write_image(tmp_path / f"{number}.png", number)
    return tmp_path


def references(folder: Path, split: str = "test") -> list[tuple[str, ...]]:
    """Return the answers of each row."""
    return [row.references for row in data.read(folder, "questions", [split]).split(split)]


def record(number: int, **fields: object) -> dict[str, object]:
    """Return a question about an image."""
    return {"image": f"{number}.png", "question": "What?", **fields}


TEN = [{"answer": "ring", "answer_confidence": "yes"}] * 9 + [{"answer": "disc", "answer_confidence": "maybe"}]


@pytest.mark.parametrize("file", ["val.jsonl", "vqa_val.json", "mine.jsonl"])
def test_ten_answers_come_before_the_chosen_one(folder, file):
    """VQAv2 on the hub has both; the accuracy is defined by the ten."""
    rows = [record(number, answers=TEN, multiple_choice_answer="ring") for number in (0, 1, 2)]
    text = json.dumps(rows) if file.endswith(".json") else "\n".join(map(json.dumps, rows))
    (folder / file).write_text(text)
    split = "val" if "val" in file else "train"
    assert set(references(folder, split)) == {("ring",) * 9 + ("disc",)}


def test_vizwiz_is_read_as_it_is_published(tmp_path):
    """Each split has a folder of images with equal names, and the answers of the test split are secret."""
    for split in ("train", "val", "test"):
        rows = [record(number, **({} if split == "test" else {"answers": TEN})) for number in (0, 1)]
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/{split}.json").write_text(json.dumps(rows))
        for number in (0, 1):
            write_image(tmp_path / f"{split}/{number}.png", number)
    found = data.read(tmp_path, "questions")
    assert {split: Path(str(rows[1].images[0])).parent.name for split, rows in found.splits.items()} == {
        split: split for split in ("train", "val", "test")
    }
    assert found.split("val")[0].references == ("ring",) * 9 + ("disc",)
    assert found.split("test")[0].references == ()
    assert any("no answers" in note for note in found.notes)
    single = data.read(tmp_path / "annotations/val.json", "questions", ["val"], tmp_path)
    assert len(single.split("val")) == 2


def test_a_test_table_may_lack_answers(folder):
    """As in a JSON file; a validation table without answers is no data set."""
    (folder / "test.csv").write_text("image,question\n0.png,What?\n")
    found = data.read(folder, "questions")
    assert found.split("test")[0].references == ()
    assert any("no answers" in note for note in found.notes)
    (folder / "test.csv").rename(folder / "val.csv")
    with pytest.raises(DataError, match="no annotations for questions"):
        data.read(folder, "questions")


def test_a_number_is_its_digits(folder):
    """The answer to "how many" is a number in JSON, and a text in a table."""
    (folder / "vqa_test.json").write_text(json.dumps([record(0, answer=[0, 2, 2.5]), record(1, answer=3)]))
    assert references(folder) == [("0", "2", "2.5"), ("3",)]
    (folder / "vqa_test.json").unlink()
    (folder / "test.csv").write_text("image,question,answer\n0.png,What?,0\n")
    assert references(folder) == [("0",)]
    (folder / "answer_list.json").write_text('["yes", 2]')
    (folder / "test.csv").unlink()
    (folder / "vqa_test.json").write_text(json.dumps([record(0, answer="yes")]))
    assert data.read(folder, "questions").answers == ("yes", "2")


def test_numbered_columns_of_answers_are_joined(folder):
    """A table of ten annotators has a column for each."""
    (folder / "test.csv").write_text("image,question,answer_1,answer_2,answer_3\n0.png,What?,a,b,\n")
    assert references(folder) == [("a", "b")]


@pytest.mark.parametrize("column", ["split", "Split", "data_split", "subset", "partition", "set", "fold"])
def test_a_split_column_has_several_names(folder, column):
    """Otherwise the test samples are used for training."""
    rows = [f"{number}.png,x,{split}\n" for number, split in enumerate(("train", "val", "test"))]
    (folder / "all.csv").write_text(f"image,caption,{column}\n" + "".join(rows))
    assert {split: len(rows) for split, rows in data.read(folder, "captions").splits.items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }


def test_a_column_that_may_be_a_split_needs_names_of_splits(folder):
    """A "set" may also be a set of photographs."""
    (folder / "test.csv").write_text("image,caption,set\n0.png,x,holiday\n1.png,x,train\n")
    assert len(data.read(folder, "captions").split("test")) == 2


def test_the_name_of_a_file_and_its_split_column_must_agree(folder):
    """One of them is wrong, and which cannot be guessed."""
    (folder / "train.csv").write_text("image,caption,split\n0.png,x,train\n1.png,x,test\n")
    with pytest.raises(DataError, match="row 2: the row is for test, and the name of the file says train"):
        data.read(folder, "captions")


def test_a_statement_of_another_split_is_refused(write_blip):
    """BLIP's statements are recognised by their content, with a field of splits or without."""
    rows = [{**row, "split": split} for row, split in zip(blip_rows("test", 2), ("test", "train"), strict=True)]
    with pytest.raises(DataError, match="row 2: the row is for train, and the name of the file says test"):
        data.read(write_blip({"test": rows}), "statements")


@pytest.mark.parametrize("column", ["weight", "weights", "sample_weight", "answer_weights", "Loss Weight"])
@pytest.mark.parametrize("file", ["test.csv", "vqa_test.json"])
def test_weights_are_refused(folder, column, file):
    """Rows that count differently would all count the same. Equal weights change nothing."""
    rows = [record(number, answer="a", **{column: weight}) for number, weight in ((0, "1"), (1, "0.5"))]

    def write() -> None:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        (folder / file).write_text("\n".join(lines) + "\n" if file.endswith("csv") else json.dumps(rows))

    write()
    with pytest.raises(DataError, match="holds weights"):
        data.read(folder, "questions")
    rows[1][column] = "1"
    write()
    assert references(folder) == [("a",), ("a",)]
