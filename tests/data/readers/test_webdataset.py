"""webdataset shards: an image is a position in an archive, which every process can open."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.data.image_sources import ArchivedImage
from madtp_cli.data.pixels import decode
from madtp_cli.errors import DataError


def encoded(shade: int) -> bytes:
    """Return a tiny encoded image with this red."""
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), (shade, 7, 9)).save(stream, "PNG")
    return stream.getvalue()


#: Content of the files of a shard by their names; a mapping is written as JSON.
Files = Mapping[str, bytes | str | Mapping[str, object]]


def write_shard(path: Path, files: Files, mode: Literal["w", "w:gz"] = "w") -> None:
    """Write an archive with these files in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            text = json.dumps(content) if isinstance(content, Mapping) else content
            raw = text if isinstance(text, bytes) else text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def captioned(first: int, number: int) -> dict[str, bytes | str]:
    """Return samples in the form that users of webdataset write."""
    return {
        name: content
        for i in range(first, first + number)
        for name, content in ((f"{i:03}.png", encoded(i)), (f"{i:03}.txt", f"Dog {i}.\nCat {i}.\n"))
    }


def test_the_shards_of_a_split_are_joined(tmp_path):
    """Data are divided into shards only because of their size."""
    for shard in (0, 1):
        write_shard(tmp_path / f"train/{shard:04}.tar", captioned(10 * shard, 3))
    write_shard(tmp_path / "coco-val-0000.tar", captioned(50, 2))
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 6, "val": 2}
    rows = found.split("train")
    assert (rows[4].text, rows[4].references) == ("Dog 11.", ("Dog 11.", "Cat 11."))
    assert len({row.identifier for row in rows}) == 6
    assert [decode(row.images[0]).getpixel((0, 0)) for row in rows] == [(i, 7, 9) for i in (0, 1, 2, 10, 11, 12)]
    assert found.notes == []


def test_an_image_is_pickled_without_its_bytes(tmp_path):
    """Rows are pickled for worker processes; each of them opens the archive."""
    write_shard(tmp_path / "test.tar", captioned(3, 1))
    row = data.read(tmp_path / "test.tar", "captions").split("test")[0]
    image = pickle.loads(pickle.dumps(row)).images[0]
    assert len(pickle.dumps(image)) < 500
    assert decode(image).getpixel((0, 0)) == (3, 7, 9)
    assert str(image) == f"003.png in {tmp_path / 'test.tar'}"


def test_shards_without_split_names_are_train_with_one_note(tmp_path):
    """A thousand shards must not give a thousand notes."""
    for shard in range(3):
        write_shard(tmp_path / f"{shard:04}.tar", captioned(10 * shard, 4))
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 11, "val": 1}
    assert found.notes[0].startswith("the names of 0000.tar and 2 more files contain no split name: all rows are train")
    assert not {*found.split("train")} & {*found.split("val")}


def test_the_fields_of_a_json_file_become_fields_of_the_sample(tmp_path):
    """img2dataset repeats the caption in it; questions and answers are only in JSON files."""
    fields = {"caption": "Dog.", "url": "http://a.invalid/1.png", "key": "1", "image": "1.png"}
    write_shard(tmp_path / "a/test.tar", {"1.json": fields, "1.png": encoded(1), "1.txt": "Dog."})
    row = data.read(tmp_path / "a", "captions").split("test")[0]
    assert (row.references, type(row.images[0])) == (("Dog.",), ArchivedImage)
    question = {"question": "What?", "answers": ["dog", "cat"]}
    write_shard(tmp_path / "b/test.tar", {"1.png": encoded(1), "1.json": question})
    row = data.read(tmp_path / "b", "questions").split("test")[0]
    assert (row.text, row.references) == ("What?", ("dog", "cat"))
    with pytest.raises(DataError, match="no annotations for caption"):
        data.read(tmp_path / "b", "captions")


@pytest.mark.parametrize("sides", [("left", "right"), ("0", "1")])
def test_two_images_of_a_sample_are_a_pair(tmp_path, sides):
    """The text between the first and the last dot of a file name says which image it is."""
    files = {f"7.{side}.png": encoded(shade) for shade, side in enumerate(sides, 1)}
    write_shard(tmp_path / "test.tar", {**files, "7.json": {"sentence": "Two dogs.", "label": "False"}})
    row = data.read(tmp_path, "statements").split("test")[0]
    assert (row.text, row.label) == ("Two dogs.", 0)
    assert [decode(image).getpixel((0, 0)) for image in row.images] == [(1, 7, 9), (2, 7, 9)]


def test_a_broken_or_incomplete_shard_is_named(tmp_path):
    """An interrupted download, a sample without text, and an archive that is deleted before its images are opened."""
    shard = tmp_path / "test.tar"
    write_shard(shard, captioned(0, 5))
    whole = shard.read_bytes()
    for cut, path in ((5_000, tmp_path), (2_000, shard)):
        shard.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"test\.tar is not a complete, uncompressed \.tar archive"):
            data.read(path, "captions")
    write_shard(shard, captioned(0, 1), "w:gz")
    with pytest.raises(DataError, match="or decompress it"):
        data.read(shard, "captions")
    shard.unlink()
    write_shard(shard, {**captioned(0, 1), "1.png": encoded(1)})
    with pytest.raises(DataError, match=r"test\.tar, row 2: field 'caption' is missing"):
        data.read(tmp_path, "captions")
    write_shard(shard, captioned(0, 1))
    image = data.read(tmp_path, "captions").split("test")[0].images[0]
    shard.unlink()
    with pytest.raises(DataError, match=r"Image 000\.png in .*test\.tar cannot be decoded: No such file"):
        decode(image)


def test_images_in_archives_have_no_image_root(tmp_path):
    """The option would be ignored without a message."""
    write_shard(tmp_path / "test.tar", captioned(0, 1))
    with pytest.raises(DataError, match="Leave out --image-root"):
        data.read(tmp_path, "captions", image_root=tmp_path)
