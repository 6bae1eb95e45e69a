"""Several processes that work on one run: which one this is, and what they exchange.

`accelerate launch` and `torchrun` start the processes and set the environment variables RANK and WORLD_SIZE. The
library accelerate (extra `distributed`) connects them. A run in a single process needs none of this: every function
then returns its argument.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from madtp_cli.errors import ProcessError, UsageError, install_command

Item = TypeVar("Item")
Rows = TypeVar("Rows", bound=Sequence[Any])


def launched() -> int:
    """Return the number of processes that a launcher started, 1 without a launcher."""
    try:
        return max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError:
        return 1


def rank() -> int:
    """Return the number of this process, from 0. Process 0 is the main process, which prints and writes."""
    return int(os.environ.get("RANK", "0")) if launched() > 1 else 0


def is_main() -> bool:
    """Return whether this is the main process."""
    return rank() == 0


def start(device: str) -> None:
    """Connect the processes of a launcher; do nothing in a single process, or if they are connected already.

    Args:
        device: The device of the settings; "auto" means the GPU of the process's local number if there is one.

    Raises:
        UsageError: The library accelerate is missing.
    """
    if launched() == 1 or count() > 1:
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UsageError(
            f"{launched()} processes were started, but the library accelerate is missing.\n"
            f"Install it: {install_command('accelerate')}"
        ) from error
    with _stdout_on_stderr():
        PartialState(cpu=device == "cpu")


@contextlib.contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Send what libraries print to standard error: in torch 2.9, gloo prints that it is connected."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def require_one(command: str) -> None:
    """Check that a command which runs in a single process was not started by a launcher.

    Raises:
        UsageError: A launcher started several processes.
    """
    if launched() > 1:
        raise UsageError(
            f"madtp {command} runs in one process, but {launched()} were started.\nRun it without the launcher."
        )


def count() -> int:
    """Return the number of connected processes, 1 for a run in a single process."""
    if "torch" not in sys.modules:
        return 1
    from torch import distributed

    connected = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if connected else 1


def part_of(rows: Rows) -> Rows:
    """Return the rows of this process: consecutive rows, as many as in the other processes or one more.

    The parts of all processes in order are the rows.

    >>> part_of([1, 2, 3])
    [1, 2, 3]
    """
    first, stop = (len(rows) * number // count() for number in (rank(), rank() + 1))
    return cast(Rows, rows[first:stop]) if count() > 1 else rows


def most_of(number: int) -> int:
    """Return the largest number of rows that a process has of this many rows.

    >>> most_of(7)
    7
    """
    return -(-number // count())


def gathered(items: list[Item]) -> list[Item]:
    """Return the items of all processes, those of process 0 first."""
    if count() == 1:
        return items
    from accelerate.utils import gather_object

    with _clear_errors():
        return list(gather_object(items))


def total(value: int) -> int:
    """Return the sum of a number over all processes."""
    return sum(gathered([value]))


def from_main(make: Callable[[], Item]) -> Item:
    """Call a function in the main process only, and return its result in all of them.

    Raises:
        Exception: What the function raises, in all processes.
    """
    if count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    result: list[Any] = [None, None]
    if is_main():
        try:
            result[0] = make()
        except Exception as error:  # noqa: BLE001  all processes end with the error of the main one
            result[1] = error
    with _clear_errors():
        broadcast_object_list(result)
    if result[1] is not None:
        raise result[1]
    return cast(Item, result[0])


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what it means that an exchange fails: another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from error


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that an exchange with another process failed."""
    text = str(error).lower()
    return count() > 1 and isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)


def lost(error: Exception) -> ProcessError:
    """Return the error for an exchange that failed."""
    reason = str(error).strip().split("\n")[0][:160]
    return ProcessError(
        f"Process {rank()} of {launched()} lost the connection to another process, which has probably ended: {reason}\n"
        "The message of that process says why. Correct the cause and start all processes again."
    )
