"""`madtp show`: what the pruning does to one sample."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

import madtp_cli
from madtp_cli.errors import UsageError


@pytest.fixture
def pair(dataset) -> list[str]:
    """The options of a pair of images and its statement."""
    row = json.loads((dataset / "annotation" / "nlvr_test.json").read_text("utf-8"))[0]
    images = [word for name in row["images"] for word in ("--image", str(dataset / "images" / name))]
    return [*images, "--text", row["sentence"]]


def test_a_figure_is_written_and_replaced(madtp, compressed, pair, tmp_path) -> None:
    """A file of an earlier run is replaced; a picture of the user is not."""
    for _ in range(2):
        done = madtp("show", compressed[0], *pair)
        assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "pruned-pruning.png") as figure:
        assert figure.format == "PNG"
        assert figure.width > 900
    assert "dense model blip.pt: " in done.stdout
    Image.new("RGB", (4, 4)).save(tmp_path / "own.png")
    assert madtp("show", compressed[0], *pair, "-o", "own.png").exit_code == 6
    assert madtp("show", compressed[0], *pair, "-o", "own.png", "--overwrite").exit_code == 0


def test_the_document_counts_every_patch(madtp, compressed, pair) -> None:
    """64 patches of each image; the GFLOPs of the layers sum to those of the sample."""
    done = madtp("show", compressed[0], *pair, "--json", "--html")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"] == "pruned-pruning.html"
    for image in found["images"]:
        for block in image["blocks"]:
            assert sum(len(group["members"]) for group in block["groups"]) == 64
    assert sum(layer["gflops"] for layer in found["layers"]) == pytest.approx(found["gflops"]["pruned"])
    assert {found["answers"][model] for model in ("dense", "pruned")} <= {"true", "false"}


def test_a_terminal_with_colours_shows_half_blocks(madtp, compressed, pair, tmp_path) -> None:
    """Without colours the same is said in words, and nothing is garbled."""
    plain = madtp("show", compressed[0], *pair, "--terminal")
    assert plain.exit_code == 0, plain.stderr
    assert "▀" not in plain.stdout
    assert "left image, after block 1: " in plain.stdout
    coloured = madtp("show", compressed[0], *pair, "--terminal", env={"FORCE_COLOR": "1", "COLORTERM": "truecolor"})
    assert "▀" in coloured.stdout
    assert "\x1b[38;2;" in coloured.stdout
    assert list(tmp_path.glob("*.png")) == []


def test_without_its_source_the_same_weights_are_compared(madtp, checkpoint, compressed, pair, monkeypatch) -> None:
    """The folder may be on another machine. A dense checkpoint shows its inputs alone."""
    monkeypatch.setattr("madtp_cli.reporting.reading.REPORT", "missing.json")
    done = madtp("show", compressed[0], *pair, "--terminal")
    assert "the same weights without pruning: " in done.stdout
    given = madtp("show", compressed[0], *pair, "--terminal", "--dense", checkpoint)
    assert "dense model blip.pt: " in given.stdout
    dense = madtp("show", checkpoint, *pair)
    assert dense.exit_code == 0, dense.stderr
    assert "pruned model" not in dense.stdout


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda words: words[:2] + words[4:], 2, "--image is given 1 times"),
        (lambda words: words[4:], 2, "--image is missing"),
        (lambda words: words[:4], 2, "--text is missing"),
        (lambda words: [*words, "--text", "b"], 2, "one text"),
        (lambda words: [*words, "-o", "a.gif"], 2, "must end with"),
        (lambda words: [*words[:3], "nowhere.png", *words[4:]], 3, "no image file nowhere.png"),
    ],
)
def test_a_wrong_sample_is_refused(madtp, compressed, pair, change, code, message) -> None:
    """With what to do."""
    done = madtp("show", compressed[0], *change(pair))
    assert done.exit_code == code
    assert message in done.stderr


def test_python_returns_the_figure(compressed, pair, tmp_path) -> None:
    """Notebooks show it."""
    from matplotlib.figure import Figure

    figure = madtp_cli.show(compressed[0], images=pair[1:4:2], text=pair[5], output=tmp_path / "page.html")
    assert isinstance(figure, Figure)
    assert "What the pruning keeps" in (tmp_path / "page.html").read_text("utf-8")
    wrong: Any = {"image": 1}
    with pytest.raises(UsageError, match="images"):
        madtp_cli.show(compressed[0], images=[], **wrong)
