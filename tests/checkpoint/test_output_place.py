"""No run replaces its own inputs, and what killed runs left is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from madtp_cli.checkpoint import output_place
from madtp_cli.checkpoint.atomic_write import clean_up
from madtp_cli.errors import OutputError


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A folder that madtp wrote, with data in it."""
    (tmp_path / "result/data").mkdir(parents=True)
    (tmp_path / "result/config.json").write_text('{"model_type": "madtp_blip"}')
    return tmp_path / "result"


@pytest.mark.parametrize("path", [".", "config.json", "data", "../link", "data/../../result"])
def test_an_output_that_has_an_input_in_it_is_refused(result, path) -> None:
    """With --overwrite the input would be lost, also if it is named in another way."""
    (result.parent / "link").symlink_to(result)
    with pytest.raises(OutputError, match="is in the output folder"):
        output_place.check(result, [None, result / path], overwrite=True, resume=False)


def test_an_output_inside_or_next_to_an_input_is_allowed(result) -> None:
    """Nothing of the input is replaced. A name of the Hugging Face hub is no path."""
    for output in (result / "pruned", result.parent / "result-madtp", result.parent / "a/b/c"):
        output_place.check(output, [result, Path("Salesforce/blip")], overwrite=True, resume=False)
    assert {path.name for path in result.parent.iterdir()} == {"result"}


def test_what_killed_runs_left_is_removed(tmp_path) -> None:
    """An output that was moved away, but not replaced, comes back. A running process keeps its folder."""
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    kept = [f".out.new-{os.getpid()}", f".out.mine-{dead}", ".out.new-x", f".outer.new-{dead}"]
    for name in (f".out.old-{dead}", f".out.new-{dead}", f".out.test-{dead}", *kept):
        (tmp_path / name).mkdir()
    (tmp_path / f".out.old-{dead}/weights").touch()
    clean_up(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", *kept}
    assert (tmp_path / "out/weights").exists()
