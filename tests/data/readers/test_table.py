"""Tables of images and texts are read by the content of their columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from tests.data.conftest import blip_rows, write_image

CAPTIONS = 'image,caption\n1.png,A dog.\n1.png,"A cat, too."\n2.png,Mice.\n'


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with four images, into which tests write tables."""
    for number in range(1, 5):
        write_image(tmp_path / f"{number}.png", number)
    return tmp_path


def rows(path: Path, schema: str = "captions", split: str = "test", **more) -> list[tuple[object, ...]]:
    """Return the image names, the text and the references of each row of a split."""
    found = data.read(path, schema, [split], **more).split(split)
    return [(*[Path(str(image)).name for image in row.images], row.text, row.references) for row in found]


@pytest.mark.parametrize(
    "text",
    [
        CAPTIONS,
        "\ufeff" + CAPTIONS.replace("\n", "\r\n"),
        "filepath\ttitle\n1.png\tA dog.\n1.png\tA cat, too.\n2.png\tMice.\n",
        "image_name| comment_number| comment\n1.png| 0| A dog.\n1.png| 1| A cat, too.\n2.png| 0| Mice.\n",
        "id;text;file_name\n7;A dog.;1.png\n8;A cat, too.;1.png\n9;Mice.;2.png\n",
        'image,caption_1,caption_2\n1.png,A dog.,"A cat, too."\n2.png,Mice.,\n',
        'raw,filename\n"[""A dog."", ""A cat, too.""]",1.png\n"[""Mice.""]",2.png\n',
        "raw,filename\n\"['A dog.', 'A cat, too.']\",1.png\n['Mice.'],2.png\n",
        '{"file_name": "1.png", "text": "A dog."}\n{"file_name": "1.png", "text": "A cat, too."}\n'
        '{"file_name": "2.png", "text": "Mice."}\n',
        '[{"img": "1.png", "sentences": ["A dog.", "A cat, too."]}, {"img": "2.png", "sentences": "Mice."}]',
    ],
    ids=["csv", "excel", "open_clip", "kaggle", "semicolons", "numbered", "json-cell", "python-cell", "lines", "list"],
)
def test_the_captions_of_an_image_are_one_row_in_every_format(folder, text):
    """A caption that is scored against only one of the references of its image would get a lower score."""
    (folder / "my_test.txt").write_text(text, newline="")
    assert rows(folder / "my_test.txt") == [
        ("1.png", "A dog.", ("A dog.", "A cat, too.")),
        ("2.png", "Mice.", ("Mice.",)),
    ]


def test_the_answers_to_a_question_are_one_row(folder):
    """The answers of ten annotators belong to one question, which counts once."""
    (folder / "test.csv").write_text("image,question,answer\n1.png,What?,dog\n1.png,Where?,here\n1.png,What?,cat\n")
    assert rows(folder, "questions") == [("1.png", "What?", ("dog", "cat")), ("1.png", "Where?", ("here",))]
    (folder / "test.csv").unlink()
    record = {"image": "2.png", "question": "How many?", "answers": [{"answer": "two", "answer_id": 1}, 3]}
    (folder / "test.jsonl").write_text(json.dumps(record))
    assert rows(folder, "questions") == [("2.png", "How many?", ("two", "3"))]


@pytest.mark.parametrize(
    "header",
    [
        "left,right,sentence,label",
        "img_left,img_right,statement,truth",
        "image0,image1,text,label",
        "im1,im2,text,label",
    ],
)
def test_the_names_of_two_image_columns_give_their_sides(folder, header):
    """A statement about the left image is not about the right one."""
    (folder / "test.csv").write_text(f"{header}\n1.png,2.png,Left is a dog.,True\n3.png,4.png,No.,0\n")
    assert rows(folder, "statements")[0] == ("1.png", "2.png", "Left is a dog.", ())
    assert [row.label for row in data.read(folder, "statements", ["test"]).split("test")] == [1, 0]
    names = header.split(",")
    swapped = ",".join([names[1], names[0], *names[2:]])
    (folder / "test.csv").write_text(f"{swapped}\n1.png,2.png,Left is a dog.,True\n")
    assert rows(folder, "statements")[0][:2] == ("2.png", "1.png")


def test_a_split_column_divides_a_table(folder):
    """Karpathy's restval is a part of train, as in published results."""
    splits = ["test", "restval", "validation", "Train"]
    lines = [f"{number}.png,Caption {number}.,{split}\n" for number, split in enumerate(splits, 1)]
    (folder / "all.csv").write_text("image,caption,split\n" + "".join(lines))
    found = data.read(folder, "captions")
    texts = {split: [row.text for row in rows] for split, rows in found.splits.items()}
    assert texts == {"train": ["Caption 2.", "Caption 4."], "val": ["Caption 3."], "test": ["Caption 1."]}
    assert found.notes == []
    assert list(data.read(folder, "captions", ["val"]).splits) == ["val"]
    (folder / "all.csv").write_text("image,caption,split\n1.png,x,somewhere\n")
    with pytest.raises(DataError, match="row 1: split 'somewhere' is unknown"):
        data.read(folder, "captions")


def test_a_table_without_a_split_is_train_with_a_note(folder):
    """The note says how to evaluate on it."""
    (folder / "mine.csv").write_text("image,caption\n" + "".join(f"{i}.png,x\n" for i in (1, 2, 3, 4)))
    found = data.read(folder, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1}
    assert found.notes == [
        "the name of mine.csv contains no split name: "
        "all rows are train; to evaluate on them, give --split train or val",
        "no validation split: 1 of 4 train rows held out; no image is in both splits",
    ]
    assert data.read(folder, "captions", ["train"]).splits == {"train": found.split("train")}


def test_the_split_is_in_the_name_of_the_file_or_the_folder(tmp_path):
    """Hugging Face's image folders hold a metadata file per split, which names images relative to its own folder."""
    for split, number in (("train", 1), ("validation", 2), ("test", 3)):
        write_image(tmp_path / split / f"{number}.png")
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\n{number}.png,In {split}.\n")
    found = data.read(tmp_path, "captions")
    assert {split: rows[0].text for split, rows in found.splits.items()} == {
        "train": "In train.",
        "val": "In validation.",
        "test": "In test.",
    }
    assert found.split("val")[0].images == (ImageFile(tmp_path / "validation/2.png"),)
    assert len({rows[0].identifier for rows in found.splits.values()}) == 3


def test_images_may_be_below_the_image_root(folder, tmp_path_factory):
    """The table may name them by absolute paths, as open_clip's tables do."""
    elsewhere = tmp_path_factory.mktemp("table")
    (elsewhere / "test.csv").write_text(f"image,caption\n1.png,x\n{folder}/2.png,y\n")
    assert [row[:2] for row in rows(elsewhere / "test.csv", image_root=folder)] == [("1.png", "x"), ("2.png", "y")]
    with pytest.raises(DataError, match="leaves the data folder"):
        rows(elsewhere / "test.csv")


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png"])
def test_a_path_outside_the_folder_is_an_error(folder, name):
    """Tables come from strangers."""
    (folder / "in").mkdir()
    write_image(folder / "in/2.png")
    (folder / "in/test.csv").write_text(f"image,caption\n2.png,x\n{name},y\n")
    with pytest.raises(DataError, match=r"test\.csv, row 2: image path .* leaves the data folder"):
        rows(folder / "in")


def test_the_image_column_is_the_one_whose_files_exist(folder):
    """A column of download addresses also has names that end in .png."""
    (folder / "test.csv").write_text("source,local,caption\nhttp://a.invalid/9.png,1.png,x\nold/8.png,2.png,y\n")
    assert [row[0] for row in rows(folder)] == ["1.png", "2.png"]
    (folder / "plain").mkdir()
    write_image(folder / "COCO_1.png")
    (folder / "COCO_1.png").rename(folder / "COCO_1")
    (folder / "test.csv").write_text("key,caption\nCOCO_1,x\n")
    assert rows(folder) == [("COCO_1", "x", ("x",))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,caption,text\n1.png,a,b\n", "several columns may hold the caption: caption, text (columns: image, cap"),
        ("a,b,caption\n1.png,2.png,x\n", "several columns may hold the image: a, b (columns: a, b, caption)"),
        ("1.png,A dog.\n2.png,A cat.\n", "begins with a row and has no header"),
        ("image,caption\n1.png,A dog, a cat.\n", "row 1: 3 cells for 2 columns (image, caption)"),
        ("image,caption\n1.png,x\n2.png,\n", "row 2: field 'caption' must be a text"),
        ("image,caption\n1.png,x\n,y\n", "row 2: field 'image' must be a text"),
        ("image,caption\n1.png,x\n9.png,y\n", "1 of 2 images named in"),
    ],
)
def test_an_unclear_or_wrong_table_is_an_error_with_its_position(folder, text, message):
    """A guessed column would train on wrong texts without a message."""
    (folder / "test.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        rows(folder)
    assert message in str(caught.value)
    assert "test.csv" in str(caught.value)
    assert 2 <= len(str(caught.value).splitlines()) <= 3


def test_two_tables_for_one_split_are_an_error(folder):
    """Which of them the user means cannot be guessed. A table without a split in its name is left out with a note."""
    for name in ("a_test.csv", "b_test.csv"):
        (folder / name).write_text(CAPTIONS)
    with pytest.raises(DataError, match=r"Several tables belong to the test split \(.*a_test.csv, .*b_test.csv\)"):
        rows(folder)
    (folder / "b_test.csv").rename(folder / "more.csv")
    assert data.read(folder, "captions").notes == ["more.csv not used: its name contains no split name"]


def test_other_layouts_take_precedence_over_tables(write_blip, folder):
    """A list of downloads next to the annotations is a table too."""
    write_blip({"test": blip_rows("test", 2)})
    (folder / "test.csv").write_text("left,right,sentence,label\n1.png,2.png,x,1\n")
    assert data.read(folder, "statements").split("test")[0].text == "There are 0 dogs."
    assert rows(folder / "test.csv", "statements")[0][2] == "x"


def test_texts_and_images_are_not_tables(tmp_path):
    """A text has commas too, and an image is not text."""
    (tmp_path / "readme.csv").write_text("Dear reader, hello\nbye\n")
    write_image(tmp_path / "1.png")
    for path in (tmp_path, tmp_path / "readme.csv", tmp_path / "1.png"):
        with pytest.raises(DataError, match="holds no annotations for captions in a known layout"):
            data.read(path, "captions")


def test_json_lines_with_the_fields_of_blip_need_no_split_in_their_name(folder):
    """Most people use the field names `image` and `caption`."""
    (folder / "mine.jsonl").write_text("".join(f'{{"image": "{i}.png", "caption": "x"}}\n' for i in (1, 2, 3)))
    assert {split: len(rows) for split, rows in data.read(folder, "captions").splits.items()} == {"train": 2, "val": 1}
