"""`data` as people and scripts use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def captions() -> Path:
    """A table of three images, the last of which is missing, and a caption that would move the cursor."""
    folder = Path("mine")
    folder.mkdir()
    for number in (1, 2):
        Image.new("RGB", (5, 3), (number, 7, 9)).save(folder / f"{number}.png")
    rows = ["1.png,A dog.", "1.png,A cat.", "2.png,\x1b[2Jmice", "3.png,Gone."]
    (folder / "test.csv").write_text("\n".join(["image,caption", *rows]))
    return folder


def test_json_is_one_document_and_missing_images_are_exit_3(madtp, captions):
    """A pipeline stops on the code and reads the reason."""
    done = madtp("data", captions, "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert (report["schema_version"], report["command"], report["path"]) == (1, "data", "mine")
    assert report["tasks"].keys() == {"caption", "retrieval"}
    assert report["tasks"]["caption"]["splits"]["test"]["rows"] == 3
    assert report["images"]["test"] | {"missing_first": 0} == {
        "images": 3, "missing": 1, "checked": 2, "unreadable": 0, "missing_first": 0, "unreadable_first": [],
    }  # fmt: skip
    assert "images missing: 1, unreadable: 0" in done.stderr
    assert len(done.stderr[done.stderr.index("Error: ") :].splitlines()) == 2


def test_a_person_reads_a_table(madtp, captions):
    """And somebody else's captions cannot speak to the terminal."""
    (captions / "test.csv").write_text((captions / "test.csv").read_text().replace("3.png", "2.png"))
    done = madtp("data", captions)
    assert done.exit_code == 0, done.stderr
    for words in ("table with an image column", "caption, retrieval rows", "2 (captions per image: 2)",
                  "0 of 2 checked", "A dog. (A cat.)", "[2Jmice"):  # fmt: skip
        assert words in done.stdout
    assert "\x1b" not in done.stdout
    assert "Decoding images" in done.stderr
    assert madtp("data", captions, "-q").stderr == ""


def test_data_that_commands_wrote_can_be_surveyed(madtp, dataset):
    """`madtp scenes` writes BLIP's layout; both answers are as likely."""
    done = madtp("data", dataset, "--task", "nlvr2", "--limit", 4)
    assert done.exit_code == 0, done.stderr
    assert "BLIP annotation JSON" in done.stdout
    assert "% true" in done.stdout
    assert "0 of 4 checked" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("nowhere",), 3, "There is no file or folder nowhere"),
        ((".",), 3, "holds no annotations"),
        ((".", "--task", "chess"), 2, "There is no task 'chess'"),
        ((".", "--limit", "0"), 2, "--limit"),
        ((".", "--image-root", "nowhere"), 3, "There is no folder nowhere"),
    ],
)
def test_what_cannot_be_surveyed_leaves_stdout_empty(madtp, words, code, message):
    """Design section 5."""
    done = madtp("data", *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
