"""Output folders are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp_cli.checkpoint.atomic_write import check_file, check_output, write_file, write_whole
from madtp_cli.errors import OutputError

CONFIG = '{\n  "model_type": "madtp_blip"\n}'


def _write(folder: Path, text: str, *, overwrite: bool = False) -> None:
    with write_whole(folder, overwrite) as new:
        (new / "config.json").write_text(CONFIG)
        (new / "text").write_text(text)


def test_what_was_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    """No temporary folder stays behind."""
    _write(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/text").read_text() == "new"


def test_an_empty_folder_may_be_written_to(tmp_path: Path) -> None:
    """A person may have made it in advance."""
    (tmp_path / "out").mkdir()
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out/text").read_text() == "new"


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    """A file of the old run beside those of the new one would be a mixture."""
    _write(tmp_path / "out", "old")
    (tmp_path / "out/more").touch()
    _write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out/text").read_text() == "new"
    assert not (tmp_path / "out/more").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _fail_half_way(folder: Path, error: type[BaseException]) -> None:
    with write_whole(folder, overwrite=True) as new:
        (new / "text").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_folder_and_nothing_new(tmp_path: Path, error: type[BaseException]) -> None:
    """Overwriting a good result with half a one would lose both."""
    _write(tmp_path / "out", "old")
    with pytest.raises((error, OutputError)):
        _fail_half_way(tmp_path / "out", error)
    assert (tmp_path / "out/text").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_has_the_usual_permissions(tmp_path: Path) -> None:
    """Temporary folders of the standard library are their owner's alone, which others would find out late."""
    (tmp_path / "usual").mkdir()
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    """Results often lie on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/text").read_text() == "new"


def _not_empty(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out/thesis.tex").touch()
    return folder / "out"


def _a_file(folder: Path) -> Path:
    (folder / "out").touch()
    return folder / "out"


@pytest.mark.parametrize(
    ("place", "overwrite", "message"),
    [
        (_not_empty, False, "exists and is not empty(?s:.)*--overwrite"),
        (_not_empty, True, "madtp did not write what it holds"),
        (_a_file, True, "is a file"),
        (lambda folder: folder / "no/out", False, "There is no folder"),
        (lambda folder: Path("/proc/out"), False, "cannot be written"),
        (lambda folder: folder / ("long" * 100), False, "cannot be written"),
    ],
)
def test_an_impossible_output_fails_before_the_work(
    tmp_path: Path, place: Callable[[Path], Path], overwrite: bool, message: str
) -> None:
    """After an hour of training it would be a loss."""
    folder = place(tmp_path)
    with pytest.raises(OutputError, match=message) as raised:
        check_output(folder, overwrite)
    assert raised.value.exit_code == 6
    with pytest.raises(OutputError, match=message):
        _write(folder, "new", overwrite=overwrite)


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    """It writes on trial, since permissions alone do not tell of a read-only disk."""
    check_output(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_fails_before_the_work(tmp_path: Path) -> None:
    """As a person's shared data folder is."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        check_output(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_file_and_what_lies_beside_it_move_together(tmp_path) -> None:
    """ONNX keeps large weights in a second file, which the first one names."""
    with write_file(tmp_path / "model.onnx") as new:
        new.write_text("graph")
        new.with_name("model.onnx.data").write_text("weights")
        assert list(tmp_path.glob("model*")) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "model.onnx": "graph",
        "model.onnx.data": "weights",
    }


def test_a_file_that_was_not_finished_leaves_nothing(tmp_path) -> None:
    """And what it was to replace stays."""
    (tmp_path / "model.onnx").write_text("earlier")

    def half(new: Path) -> None:
        new.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), write_file(tmp_path / "model.onnx", overwrite=True) as new:
        half(new)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.onnx": "earlier"}


def test_a_file_is_replaced_only_if_told(tmp_path) -> None:
    """As a folder is."""
    (tmp_path / "model.onnx").write_text("earlier")
    with pytest.raises(OutputError, match="--overwrite"):
        check_file(tmp_path / "model.onnx")
    with write_file(tmp_path / "model.onnx", overwrite=True) as new:
        new.write_text("later")
    assert (tmp_path / "model.onnx").read_text() == "later"
