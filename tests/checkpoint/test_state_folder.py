"""The state folder: its lock ends with its owner, and its files are read without running code."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli.checkpoint.state_folder import StateFolder, has_state, path_for, require_unlocked
from madtp_cli.errors import OutputError


def _in_child(action: Callable[[], object]) -> int:
    """Run a function in a child process that then waits to be killed; return its process number when it is done."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        action()
        os.write(writing, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    return child


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_second_run_is_refused_at_once_and_the_first_one_named(tmp_path: Path) -> None:
    """Two runs would overwrite each other's states."""
    with StateFolder(tmp_path / "out"):
        with pytest.raises(OutputError, match=rf"Another run \(process {os.getpid()}\) is writing") as refused:
            StateFolder(tmp_path / "out").__enter__()
        assert refused.value.exit_code == 6
        with pytest.raises(OutputError, match=str(os.getpid())):
            require_unlocked(tmp_path / "out")
        with StateFolder(tmp_path / "other"):
            pass
    require_unlocked(tmp_path / "out")
    with StateFolder(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_dead_owner_does_not_hold_the_lock(tmp_path: Path) -> None:
    """After kill -9 the lock file is still there."""
    child = _in_child(lambda: StateFolder(tmp_path / "out").__enter__())
    with pytest.raises(OutputError, match=f"process {child}"):
        StateFolder(tmp_path / "out").__enter__()
    _kill(child)
    assert (tmp_path / "out.state/lock").exists()
    with StateFolder(tmp_path / "out"):
        pass


def test_a_child_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    """Processes that decode images can live some seconds longer than a run that is killed."""
    with StateFolder(tmp_path / "out"):
        child = _in_child(lambda: None)
    with StateFolder(tmp_path / "out"):
        pass
    _kill(child)


def test_a_state_keeps_numbers_and_tensors_exactly(tmp_path: Path) -> None:
    """Also nested ones; the folder stays as long as it has a state."""
    content: dict[str, Any] = {"a": torch.tensor([0.1, -0.0]), "b": (1, None, [0.1 + 0.2]), "c": {"d": "text"}}
    with StateFolder(tmp_path / "out") as state:
        state.write_record({})
        state.save("training", content)
    assert has_state(tmp_path / "out")
    with StateFolder(tmp_path / "out") as state:
        loaded = state.load("training")
        assert torch.equal(loaded.pop("a"), content.pop("a"))
        assert loaded == content
        assert state.load("trained") is None
        state.clear()
    assert list(tmp_path.iterdir()) == []


class _Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("code-ran",)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04half", pickle.dumps(_Code()), None], ids=range(4))
def test_a_damaged_or_foreign_state_is_refused_and_its_code_does_not_run(tmp_path, monkeypatch, content) -> None:
    """A state folder can come from a cache that others write."""
    monkeypatch.chdir(tmp_path)
    with StateFolder(tmp_path / "out") as state:
        if content is None:
            torch.save(_Code(), state.path / "training.pt")
        else:
            (state.path / "training.pt").write_bytes(content)
        with pytest.raises(OutputError, match="cannot be resumed: .*training.pt is damaged"):
            state.load("training")
    assert not (tmp_path / "code-ran").exists()


def test_only_files_of_a_state_are_removed(tmp_path: Path) -> None:
    """A user may have a folder of this name."""
    path_for(tmp_path / "out").mkdir()
    (path_for(tmp_path / "out") / "thesis.pt").touch()
    with StateFolder(tmp_path / "out") as state:
        state.save("training", 1)
        state.clear()
    assert [path.name for path in (tmp_path / "out.state").iterdir()] == ["thesis.pt"]


def test_a_full_disk_keeps_the_earlier_state(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with StateFolder(tmp_path / "out") as state:
        state.save("training", 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(OutputError, match="cannot be written"):
                state.save("training", torch.ones(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert state.load("training") == 1
