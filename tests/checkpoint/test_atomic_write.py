"""Outputs are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp_cli.checkpoint.atomic_write import check_output_file, check_output_folder, write_file, write_folder
from madtp_cli.errors import OutputError

CONFIG = '{\n  "model_type": "madtp_blip"\n}'


def _write(folder: Path, text: str, *, overwrite: bool = False) -> None:
    """Write a folder that looks like one of madtp."""
    with write_folder(folder, overwrite) as new:
        (new / "config.json").write_text(CONFIG)
        (new / "text").write_text(text)


def test_only_the_output_remains(tmp_path: Path) -> None:
    """The temporary folder is gone."""
    _write(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/text").read_text() == "new"


def test_an_empty_folder_may_be_the_output(tmp_path: Path) -> None:
    """Users may create it in advance."""
    (tmp_path / "out").mkdir()
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out/text").read_text() == "new"


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    """Files of an old run must not remain among those of the new run."""
    _write(tmp_path / "out", "old")
    (tmp_path / "out/more").touch()
    _write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out/text").read_text() == "new"
    assert not (tmp_path / "out/more").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _fail_while_writing(folder: Path, error: type[BaseException]) -> None:
    with write_folder(folder, overwrite=True) as new:
        (new / "text").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_keeps_the_old_folder_and_leaves_nothing_new(tmp_path: Path, error: type[BaseException]) -> None:
    """Otherwise both the old and the new result would be lost."""
    _write(tmp_path / "out", "old")
    with pytest.raises((error, OutputError)):
        _fail_while_writing(tmp_path / "out", error)
    assert (tmp_path / "out/text").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_has_the_usual_permissions(tmp_path: Path) -> None:
    """Temporary folders of the standard library can only be read by their owner."""
    (tmp_path / "usual").mkdir()
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_symbolic_link_to_a_folder_remains_a_link(tmp_path: Path) -> None:
    """Results are often on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk/text").read_text() == "new"


def _folder_with_other_content(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out/thesis.tex").touch()
    return folder / "out"


def _existing_file(folder: Path) -> Path:
    (folder / "out").touch()
    return folder / "out"


@pytest.mark.parametrize(
    ("path_in", "overwrite", "message"),
    [
        (_folder_with_other_content, False, "exists and is not empty(?s:.)*--overwrite"),
        (_folder_with_other_content, True, "madtp did not write its content"),
        (_existing_file, True, "is a file"),
        (lambda folder: Path("/proc/out"), False, "cannot be written"),
        (lambda folder: folder / ("long" * 100), False, "cannot be written"),
    ],
)
def test_an_impossible_output_fails_before_the_run(
    tmp_path: Path, path_in: Callable[[Path], Path], overwrite: bool, message: str
) -> None:
    """After an hour of training the result would be lost."""
    folder = path_in(tmp_path)
    with pytest.raises(OutputError, match=message) as raised:
        check_output_folder(folder, overwrite)
    assert raised.value.exit_code == 6
    with pytest.raises(OutputError, match=message):
        _write(folder, "new", overwrite=overwrite)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """It creates a test folder and deletes it."""
    check_output_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_fails_before_the_run(tmp_path: Path) -> None:
    """Shared data folders are often read-only."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        check_output_folder(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_file_and_its_second_file_are_moved_together(tmp_path: Path) -> None:
    """ONNX stores large weights in a second file, whose name is in the first one."""
    with write_file(tmp_path / "model.onnx") as new:
        new.write_text("graph")
        new.with_name("model.onnx.data").write_text("weights")
        assert list(tmp_path.glob("model*")) == []
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "model.onnx": "graph",
        "model.onnx.data": "weights",
    }


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    """Nothing of the new file remains."""
    (tmp_path / "model.onnx").write_text("earlier")

    def fail(new: Path) -> None:
        new.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), write_file(tmp_path / "model.onnx", overwrite=True) as new:
        fail(new)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.onnx": "earlier"}


def test_a_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    """The same rule holds for folders."""
    (tmp_path / "model.onnx").write_text("earlier")
    with pytest.raises(OutputError, match="--overwrite"):
        check_output_file(tmp_path / "model.onnx")
    with write_file(tmp_path / "model.onnx", overwrite=True) as new:
        new.write_text("later")
    assert (tmp_path / "model.onnx").read_text() == "later"
