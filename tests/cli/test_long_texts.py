"""Official NLVR2 files, whose sentences can be longer than a small model: `data`, `eval` and `compress`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from madtp_cli.data.subsets import subset
from tests.paths import ROOT

SHORT = "There are two dogs in one of the images."
#: 52 words, so more than the 40 that BLIP reads, and more tokens than the example has positions.
LONG = (
    "In the left image a small brown animal with pointed ears is sitting on a striped blanket next to a round wooden "
    "table, while in the right image at least three other animals of different sizes are walking one behind the other "
    "along a path that leads to a house far away in number {number}."
)


@pytest.fixture
def nlvr2() -> Path:
    """Ten rows in the official layout, every second one with a long sentence, and their images."""
    folder = Path("nlvr2")
    for split, name in (("train", "train"), ("val", "dev"), ("test", "test1")):
        (folder / name).mkdir(parents=True)
        rows = []
        for number in range(10):
            stem = f"{name}-{number}-0"
            sentence = LONG.format(number=number) if number % 2 else SHORT
            row: dict[str, object] = {"identifier": f"{stem}-0", "sentence": sentence, "label": str(number % 3 == 0)}
            if split == "train":
                row["directory"] = 0
            rows.append(row)
            for side in (0, 1):
                Image.new("RGB", (16, 12), (20 * number, 90, 200 * side)).save(folder / name / f"{stem}-img{side}.png")
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _long(limit: int) -> int:
    """Return how many of the samples that a limit leaves have a long sentence."""
    return sum(number % 2 for number in subset(range(10), limit))


def test_long_sentences_are_cut_and_reported(madtp, nlvr2) -> None:
    """They ended the run with a bug report; now a note and the JSON tell which texts are cut."""
    done = madtp("eval", ROOT / "examples/blip.pt", "--data", nlvr2, "--json", "--batch-size", 5)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cut_texts"]["count"] == 5
    assert report["cut_texts"]["texts"] == 10
    assert report["cut_texts"]["first"] == [LONG.format(number=number) for number in (1, 3, 5)]
    (note,) = (note for note in report["notes"] if "texts are cut" in note)
    assert note.startswith("5 of 10 texts are cut: the model reads 40 words and 32 tokens.")
    assert done.stderr.index(note) < done.stderr.index("Evaluating the model")


def test_compress_and_profile_report_them_too(madtp, nlvr2) -> None:
    """A compressed model remembers its limit: its tokenizer is saved with the number of positions."""
    done = madtp("compress", ROOT / "examples/blip.pt", "--gflops-budget", "0.6", "--steps", 0, "--data", nlvr2,
                 "-o", "pruned", "--json", "--limit", 4)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["cut_texts"]["count"] == 3 * _long(4)  # of each split
    assert json.loads(Path("pruned/report.json").read_text())["cut_texts"]["count"] == 3 * _long(4)
    assert json.loads(Path("pruned/tokenizer_config.json").read_text())["model_max_length"] == 32
    done = madtp("profile", ROOT / "examples/blip.pt", "--data", nlvr2, "--json", "--limit", 2)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["cut_texts"]["count"] == _long(2)


def test_the_check_of_the_data_counts_them(madtp, nlvr2) -> None:
    """Before there is a checkpoint, the number of words tells what a family cuts."""
    done = madtp("data", nlvr2, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    part = report["tasks"]["nlvr2"]["cut_texts"]["blip"]
    assert (part["count"], part["texts"]) == (15, 30)
    assert "nlvr2: 15 of 30 texts have more words than a blip reads, and will be cut." in report["notes"]
