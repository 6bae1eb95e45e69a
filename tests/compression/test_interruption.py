"""Signals wait for the end of a step; the second one does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from madtp_cli.compression.interruption import StopSignals


class _Terminated(BaseException):
    pass


@pytest.fixture(autouse=True)
def _handlers():
    """Both signals raise, as in the command line."""

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, _Terminated)])
def test_the_first_signal_waits(number, error) -> None:
    """It then does what it does outside the block, so the exit code is that of the signal."""
    notified = threading.Event()
    with StopSignals(notified.set) as signals:
        signal.raise_signal(number)
        assert signals.agreed() == signals.received == number
        assert notified.wait(5)
        with pytest.raises(error):
            signals.deliver(number)


def test_the_second_signal_stops_at_once() -> None:
    """A step of a large model can take a minute."""
    with StopSignals(lambda: None):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_stop_at_once_where_the_block_is_suspended_and_after_it() -> None:
    """A validation can take minutes, and its step is saved."""
    with StopSignals(lambda: None) as signals:
        with signals.suspended(), pytest.raises(_Terminated):
            signal.raise_signal(signal.SIGTERM)
        signals.received = None
    with pytest.raises(_Terminated):
        signal.raise_signal(signal.SIGTERM)


def interrupted(then: Callable[[StopSignals], object]) -> None:
    """Receive a signal in a block, and do something after it."""
    with StopSignals(lambda: None) as signals:
        signal.raise_signal(signal.SIGTERM)
        then(signals)


def test_a_signal_that_no_step_asks_for_is_not_lost() -> None:
    """It comes while the state of the last step is written: the validation does not start, or else the block ends."""

    def validate(signals: StopSignals) -> None:
        with signals.suspended():
            pytest.fail("the validation starts")

    for then in (validate, lambda signals: None):
        with pytest.raises(_Terminated):
            interrupted(then)


def test_an_error_is_not_replaced_by_a_signal() -> None:
    """The error says more than that the run was stopped."""

    def fail(signals: StopSignals) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted(fail)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """Shells start background jobs that ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals(lambda: None) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received is None


def test_in_another_thread_the_block_has_no_effect() -> None:
    """Only the main thread can change signal handlers."""
    results: list[int | None] = []

    def block() -> None:
        with StopSignals(lambda: None) as signals:
            results.append(signals.agreed())

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert results == [None]
