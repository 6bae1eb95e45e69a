"""The command `data`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def captions() -> Path:
    """A table of three images; the last image is missing, and one caption contains a terminal escape code."""
    folder = Path("photos")
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (5, 3), (number, 7, 9)).save(folder / f"{number}.png")
    rows = ["1.png,A dog.", "1.png,A cat.", "2.png,\x1b[2Jmice", "3.png,Gone."]
    (folder / "test.csv").write_text("\n".join(["image,caption", *rows]))
    return folder


def test_missing_images_give_exit_code_3_and_a_complete_document(madtp, captions):
    """A pipeline stops because of the exit code and finds the reason in the JSON."""
    done = madtp("data", captions, "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert (report["schema_version"], report["command"], report["path"]) == (1, "data", "photos")
    assert report["tasks"].keys() == {"caption", "embedding", "retrieval"}
    assert report["tasks"]["caption"]["splits"]["test"]["rows"] == 3
    assert report["images"]["test"] | {"missing_first": 0} == {
        "images": 3, "missing": 1, "checked": 2, "unreadable": 0, "missing_first": 0, "unreadable_first": [],
    }  # fmt: skip
    assert "images missing: 1, unreadable: 0" in done.stderr
    error = json.loads(done.stderr.splitlines()[-1])
    assert (error["code"], error["kind"]) == (3, "DataError")


def test_the_table_shows_rows_images_and_samples(madtp, captions):
    """Escape codes in captions do not reach the terminal."""
    (captions / "test.csv").write_text((captions / "test.csv").read_text().replace("3.png", "2.png"))
    done = madtp("data", captions)
    assert done.exit_code == 0, done.stderr
    for text in ("table with an image column", "caption, retrieval", "captions per image", "0 of 2 checked",
                 "A dog. (A cat.)", "[2Jmice"):  # fmt: skip
        assert text in done.stdout
    of_images = [line for line in done.stdout.splitlines() if line.startswith("embedding: ")]
    assert [line.rpartition("/")[2] for line in of_images] == ["1.png", "2.png"]
    assert "\x1b" not in done.stdout
    assert "Decoding images" in done.stderr
    assert madtp("data", captions, "-q").stderr == ""


def test_the_files_of_madtp_scenes_can_be_checked(madtp, dataset):
    """`madtp scenes` writes the layout of BLIP."""
    done = madtp("data", dataset, "--task", "nlvr2", "--limit", 4)
    assert done.exit_code == 0, done.stderr
    assert "BLIP annotation JSON" in done.stdout
    assert re.search(r"true +\d+\.\d %", done.stdout)
    assert "0 of 4 checked" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 3, "There is no file or folder nowhere"),
        ((".",), 3, "holds no annotations"),
        ((".", "--task", "chess"), 2, "--task: 'chess' cannot be used."),
        ((".", "--limit", "0"), 2, "--limit"),
        ((".", "--image-root", "nowhere"), 3, "There is no folder nowhere"),
    ],
)
def test_an_error_leaves_stdout_empty(madtp, arguments, code, message):
    """A script must not find half a document there."""
    done = madtp("data", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
