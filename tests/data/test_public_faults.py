"""Data as other people have them, after reports about other tools: each is read, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.data.dataset import Row
from madtp_cli.errors import DataError
from tests.data.conftest import write_image


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with four images in `images`, into which tests write annotations."""
    for number in range(4):
        write_image(tmp_path / f"images/{number}.png", number)
    return tmp_path


def read(path: Path, schema: str = "captions", split: str = "test", **more) -> list[Row]:
    """Return the rows of one split."""
    return list(data.read(path, schema, [split], **more).split(split))


def refused(path: Path, schema: str = "captions", **more) -> str:
    """Return the message about data that cannot be used."""
    with pytest.raises(DataError) as caught:
        data.read(path, schema, **more)
    assert 2 <= len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_tab_separated_captions_are_not_quoted(folder):
    """A caption that begins with a quote was merged with the following ones."""
    texts = ['"big" red ring', '"new sign', "a cat", "a dog"]
    lines = [f"images/{number}.png\t{text}\n" for number, text in enumerate(texts)]
    (folder / "test.tsv").write_text("image\tcaption\n" + "".join(lines))
    assert [row.text for row in read(folder)] == texts


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ('images/0.png,a\nimages/1.png,"b\nimages/2.png,c\n', 2),
        ('images/0.png,"a\nimages/1.png,"b\nimages/2.png,c\n', 1),
        ('images/0.png,"a\nimages/1.png,b"\nimages/2.png,c\n', 1),
        ('images/0.png,a\nimages/1.png,"big" ring\n', 2),
        ("images/0.png,a\nimages/1.png,b,c\n", 2),
        ("images/0.png,a\nimages/1.png\n", 2),
    ],
    ids=["unclosed", "reopened", "merged", "half quoted", "too long", "too short"],
)
def test_a_wrong_row_of_a_table_is_named(folder, rows, row):
    """Otherwise several captions become one, and their images are left out."""
    (folder / "test.csv").write_text("image,caption\n" + rows)
    assert f"test.csv, row {row}: " in refused(folder / "test.csv")


def test_two_columns_of_one_name_are_refused(folder):
    """One of them would be left out."""
    (folder / "test.csv").write_text("image,caption,caption\nimages/0.png,a,b\n")
    assert "several columns named 'caption'" in refused(folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["test.csv", "test.tsv", "test.jsonl", "my_test.json", "test.token"])
def test_files_in_utf_16_are_read(folder, encoding, name):
    """Spreadsheet programs write their "Unicode text" like this."""
    record = {"image": "images/0.png", "caption": "ein Vögelchen"}
    text = {
        ".csv": "image,caption\n{image},{caption}\n",
        ".tsv": "image\tcaption\n{image}\t{caption}\n",
        ".token": "{image}#0\t{caption}\n",
    }.get(Path(name).suffix, "").format(**record) or json.dumps([record], ensure_ascii=False)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (folder / name).write_bytes((mark + text).encode(encoding))
    assert [row.text for row in read(folder)] == ["ein Vögelchen"]


@pytest.mark.parametrize("name", ["test.csv", "test.json"])
@pytest.mark.parametrize("path", ["images\\0.png", "{}/images/0.png", ".\\images\\0.png"])
def test_paths_mean_the_same_in_json_and_in_tables(folder, name, path):
    """Backslashes are written on Windows; an absolute path below the data folder stays below it."""
    path = path.format(folder)
    text = f"image,caption\n{path},a\n" if name.endswith("csv") else json.dumps([{"image": path, "caption": "a"}])
    (folder / name).write_text(text)
    assert Path(str(read(folder)[0].images[0])).samefile(folder / "images/0.png")


def test_an_absolute_path_below_the_image_root_is_taken(folder, tmp_path_factory):
    """Also if the image root is given through a symbolic link."""
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(folder)
    file = link.parent / "my_test.json"
    file.write_text(json.dumps([{"image": f"{folder}/images/0.png", "caption": "a"}]))
    assert len(read(file, image_root=folder)) == 1
    assert len(read(file, image_root=link)) == 1
    assert "leaves the data folder" in refused(file)


@pytest.mark.parametrize(
    ("path", "why"), [("C:\\x\\0.png", "leaves"), ("https://a.invalid/0.png", "downloads nothing")]
)
def test_paths_of_other_machines_are_refused_by_name(folder, path, why):
    """They are not missing files."""
    (folder / "my_test.json").write_text(json.dumps([{"image": path, "caption": "a"}]))
    assert why in refused(folder)


def test_flickr8k_is_divided_by_its_own_lists(tmp_path):
    """Its lists are named in camel case, and a second file repeats the captions as word stems."""
    parts = {"trainImages": [0, 1, 2], "devImages": [3], "testImages": [4, 5]}
    captions = "".join(f"{number}.jpg#{k}\tCaption {k}.\n" for number in range(6) for k in (0, 1))
    (tmp_path / "Flickr8k.token.txt").write_text(captions)
    (tmp_path / "Flickr8k.lemma.token.txt").write_text(captions.lower())
    for name, numbers in parts.items():
        (tmp_path / f"Flickr_8k.{name}.txt").write_text("".join(f"{number}.jpg\n" for number in numbers))
    for number in range(6):
        write_image(tmp_path / f"Flicker8k_Dataset/{number}.jpg", number)
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1, "test": 2}
    (tmp_path / "Flickr_8k.devImages.txt").write_text("3.jpg\n4.jpg\n")
    assert "image 4 is also in" in refused(tmp_path)


def test_files_of_macos_are_passed_over(tmp_path):
    """An archive that macOS wrote has such a file for each file."""
    for number in range(3):
        write_image(tmp_path / f"test/{number}.png", number)
        (tmp_path / f"test/{number}.txt").write_text("a dog")
        for suffix in ("png", "txt"):
            (tmp_path / f"test/._{number}.{suffix}").write_bytes(b"\0\5\x16\7Mac OS X\xff\xfe")
    assert len(read(tmp_path)) == 3
    (tmp_path / "annotation").mkdir()
    (tmp_path / "annotation/._nlvr_test.json").write_bytes(b"\0\5\x16\7")
    assert len(read(tmp_path)) == 3
    assert "macOS" in refused(tmp_path / "annotation/._nlvr_test.json")


@pytest.mark.parametrize("name", ["data", "annotations", "annotation"])
@pytest.mark.parametrize("images", [".", "images", "test", "pictures"])
@pytest.mark.parametrize("file", ["my_test.json", "test.csv"])
def test_a_data_folder_may_have_the_name_of_an_annotation_folder(tmp_path, name, images, file):
    """Its images are in it, and not beside it."""
    folder = tmp_path / name
    write_image(folder / images / "0.png")
    path = "pictures/0.png" if images == "pictures" else "0.png"
    text = f"image,caption\n{path},a\n" if file.endswith("csv") else json.dumps([{"image": path, "caption": "a"}])
    (folder / file).write_text(text)
    assert str(read(folder)[0].images[0]).endswith("0.png")


@pytest.mark.parametrize(
    "name", ["data.zip", "train.csv.gz", "rows.xlsx", "rows.pkl", "rows.h5", "rows.tfrecord", "rows.xml", "rows.arrow"]
)
def test_other_forms_of_data_are_refused_by_name(tmp_path, name):
    """The message "no annotations" would send the user to look for a fault in the annotations."""
    (tmp_path / name).write_bytes(b"PK\3\4 anything")
    assert name in refused(tmp_path)
    assert name in refused(tmp_path / name)
