"""The state folder of a run: what a run that was interrupted needs to continue. It is next to the output folder.

This module loads torch only when a state is written or read, so that a command can look for a state at its start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

from madtp_cli import processes
from madtp_cli.checkpoint.atomic_write import make_parents, remove_empty, write_errors_as_output_error
from madtp_cli.errors import OutputError, ResumeError

#: Added to the name of the output folder.
SUFFIX = ".state"
#: The file that a run locks, and the file that says what it computes.
LOCK, RECORD = "lock", "run.json"
#: Names of the saved states; nothing else in the folder is ever removed.
STATES = re.compile(r"(training|trained|teacher-\d+)\.(pt|new)")
#: Open lock files of this process. A child process closes its copies, or it would hold the lock after its parent died.
_OPEN: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_in_child)


def path_for(output: Path) -> Path:
    """Return the path of the state folder of an output folder.

    >>> path_for(Path("/results/blip-madtp")).as_posix()
    '/results/blip-madtp.state'
    """
    output = output.resolve()
    return output.with_name(output.name + SUFFIX)


def has_state(output: Path) -> bool:
    """Return whether a run that was interrupted can continue."""
    folder = path_for(output)
    return folder.is_dir() and (folder / RECORD).is_file() and any(file.suffix == ".pt" for file in _states(folder))


def _states(folder: Path) -> list[Path]:
    """Return the files of saved states, also of those that were not written to the end."""
    return [file for file in folder.iterdir() if STATES.fullmatch(file.name)]


def require_unlocked(output: Path) -> None:
    """Check that no run writes an output folder; nothing is written.

    Raises:
        OutputError: A run holds the lock.
    """
    with contextlib.suppress(OSError):  # there is no state folder, or it cannot be written
        descriptor = os.open(path_for(output) / LOCK, os.O_RDWR)
        _lock(descriptor, output)
        os.close(descriptor)


def _lock(descriptor: int, output: Path) -> None:
    """Lock an open file, or close it and raise OutputError because another run holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise OutputError(
            f"Another run{f' (process {owner})' if owner else ''} is writing {output}.\n"
            "Wait until it ends, or choose another output."
        ) from None


class StateFolder:
    """The state folder of a run, locked by it. Use it in a `with` block.

    The lock is an flock of the kernel, so it ends with its process, however that dies. The package filelock does the
    same, but keeps its file forever, and before its version 4 child processes keep the lock.

    A folder without a saved state is removed at the end of the block.

    If several processes work on the run, the main one alone reads and writes, and all receive what it read.
    """

    def __init__(self, output: Path, save_every: int = 0) -> None:
        """Name the folder; nothing is written yet. A training is saved every `save_every` steps; 0 for never."""
        self.output, self.path, self.save_every = output, path_for(output), save_every
        self._lock: int | None = None
        self._made: list[Path] = []

    def __enter__(self) -> StateFolder:
        """Make and lock the folder.

        Raises:
            OutputError: Another run holds the lock, or the folder cannot be written.
        """
        processes.from_main(self._acquire)
        return self

    def __exit__(self, *error: object) -> None:
        """Release the lock; remove the folder if no state was saved."""
        if not processes.is_main():
            return
        with contextlib.suppress(OSError):
            if not has_state(self.output):
                self.remove()
        if self._lock is not None:
            _OPEN.discard(self._lock)
            os.close(self._lock)
            self._lock = None
        remove_empty(self._made)

    def _acquire(self) -> None:
        with write_errors_as_output_error(self.path):
            self._made = make_parents(self.path)
            while self._lock is None:
                self.path.mkdir(exist_ok=True)
                self._lock = self._locked()

    def _locked(self) -> int | None:
        """Return the descriptor of the locked lock file; None if its folder was removed in the meantime."""
        file = self.path / LOCK
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return None
        _lock(descriptor, self.output)
        if not file.exists() or os.fstat(descriptor).st_ino != file.stat().st_ino:
            os.close(descriptor)
            return None
        _OPEN.add(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def remove(self) -> None:
        """Remove the folder. The lock file comes last, so that no other run starts before."""
        self.clear()
        for name in (RECORD, f"{RECORD}.new", LOCK):
            (self.path / name).unlink(missing_ok=True)
        remove_empty([self.path])

    def clear(self, *kept: str) -> None:
        """Remove the saved states except those with a name in `kept`."""
        if not processes.is_main():
            return
        for file in _states(self.path):
            if file.stem not in kept:
                file.unlink()

    def write_record(self, record: dict[str, Any]) -> None:
        """Write what the run computes.

        Raises:
            OutputError: The disk is full or cannot be written.
        """
        with write_errors_as_output_error(self.path):
            new = self.path / f"{RECORD}.new"
            new.write_text(json.dumps(record), encoding="utf-8")
            new.replace(self.path / RECORD)

    def read_record(self) -> Any:
        """Return what the run computes, as it was written; None if nothing was written.

        Raises:
            OutputError: The file is damaged.
        """
        try:
            return json.loads((self.path / RECORD).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self.damaged(RECORD) from error

    def save(self, name: str, content: Any) -> None:
        """Save a state of tensors, numbers and texts in lists, tuples and dicts; the earlier one stays until then.

        Raises:
            OutputError: The disk is full or cannot be written.
        """
        import torch

        if not processes.is_main():
            return
        new = self.path / f"{name}.new"
        with write_errors_as_output_error(self.path):
            try:
                torch.save(content, new)
            except RuntimeError as error:  # so torch reports a full disk
                raise OSError(str(error).splitlines()[0]) from error
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
            new.replace(self.path / f"{name}.pt")

    def load(self, name: str) -> Any:
        """Return a saved state on the CPU, or None if there is none. No code in the file runs.

        Raises:
            OutputError: The file is damaged.
        """
        return processes.from_main(lambda: self._load(name))

    def _load(self, name: str) -> Any:
        import torch

        file = self.path / f"{name}.pt"
        if not file.exists():
            return None
        try:
            if not zipfile.is_zipfile(file):
                raise ValueError("torch.save writes an archive")
            return torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise self.damaged(file.name) from error

    def damaged(self, name: str) -> ResumeError:
        """Return the error for a file of the state that cannot be used."""
        return ResumeError(
            f"{self.output} cannot be resumed: {self.path / name} is damaged.\n"
            "Start again with --overwrite, which discards the state."
        )
