"""The script for published checkpoints runs on small stand-ins with the names and formats of the published files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from examples import published
from madtp_cli.errors import InputError
from madtp_cli.evaluation import timing
from tests.paths import EXAMPLES

#: Example checkpoint that stands in for the checkpoint of each row, and its scenes.
STAND_INS = {
    "nlvr2": ("blip", "nlvr2"),
    "retrieval-coco": ("blip-retrieval", "retrieval"),
    "clip-coco": ("clip", "retrieval"),
}


@pytest.fixture
def folders(madtp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The options for stand-ins of three rows, 8 samples of each split."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    (tmp_path / "checkpoints").mkdir()
    for name, (example, task) in STAND_INS.items():
        row = published.ROWS[name]
        shutil.copy(EXAMPLES / f"{example}.pt", tmp_path / "checkpoints" / row.checkpoint)
        tokenizer = EXAMPLES / ("tokenizer" if example == "blip" else f"{example}-tokenizer")
        shutil.copytree(tokenizer, tmp_path / "checkpoints" / f"{Path(row.checkpoint).stem}-tokenizer")
        data = tmp_path / "data" / row.data
        if not data.exists():
            sizes = ["--train", 8, "--val", 8, "--test", 8]
            assert madtp("scenes", data, "--task", task, *sizes, "-q").exit_code == 0
    return ["--checkpoints", tmp_path / "checkpoints", "--data", tmp_path / "data", "--folder", tmp_path / "out"]


@pytest.mark.slow
def test_the_rows_that_are_there_are_printed_beside_published_figures(folders: list[object], capsys: Any) -> None:
    """A second call reads the outputs of the first one; rows without files are named."""
    options = [*folders, "--budgets", "0.5", "--steps", 0, "--limit", 8, "--device", "cpu"]
    assert published.main([str(option) for option in options]) == 0
    printed = capsys.readouterr()
    _, _, *lines = printed.out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"| {published.ROWS[name].title}" for name in STAND_INS]
    assert "dense: 83.08; MADTP at 0.5: 82.85" in lines[0]
    assert "TR@1, IR@1" in lines[1]
    assert "vqa is left out. Not there: " in printed.err
    assert published.main([str(option) for option in options]) == 0
    assert capsys.readouterr().out == printed.out


def test_files_that_are_missing_are_listed(tmp_path: Path, capsys: Any) -> None:
    """Without any file nothing is made, and the error says how to find out what is needed."""
    options = ["--checkpoints", str(tmp_path / "a"), "--data", str(tmp_path / "b"), "--folder", str(tmp_path / "out")]
    assert published.main([*options, "--list"]) == 0
    assert f"{tmp_path / 'a' / 'model_base_nlvr.pth'} is not there" in capsys.readouterr().out
    with pytest.raises(InputError, match="No row has all its files"):
        published.main(options)
    assert f"nlvr2 is left out. Not there: {tmp_path / 'a' / 'model_base_nlvr.pth'}" in capsys.readouterr().err
