"""A stage on the terminal: nothing but the detail is cropped, and plain lines come also while nothing advances."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from madtp_cli.cli import context
from madtp_cli.cli.console import Terminal
from madtp_cli.cli.stages import PLAIN_EVERY, Stage, StageBar, StageLines
from madtp_cli.errors import CheckpointError
from madtp_cli.pipelines import progress_bars
from madtp_cli.pipelines.progress_bars import ProgressBars

DETAIL = "loss 0.415 · 0.1249 GFLOPs · threshold scale 0.154 · and a long rest of the line that nobody needs"
TITLES = ["Fine-tuning", "Calibrating on all 1000 samples", "Measuring memory and multiply-adds, batch size 32"]


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(width: int, title: str, total: int) -> list[str]:
    """Return the lines of a bar on a terminal of some columns, without its control characters."""
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=width, force_terminal=True, force_interactive=True)
    stage = Stage(title, total, clock)
    bar = StageBar(stage, console)
    clock.now = 60.0
    stage.advance(120, DETAIL)
    bar.update()
    stream.truncate(0)
    bar._progress.refresh()
    bar.stop()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\0", "")
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_bar_count_and_time_left_are_visible(width, title) -> None:
    """Only the text behind them is cropped, and nothing is wrapped to a second line."""
    line = drawn(width, title, 12_000)[0]
    assert len(line) <= width
    assert line.startswith(title[:30])
    assert "━" * 5 in line
    assert "120/12000" in line
    assert "99 min 0 s left" in line
    assert ("nobody needs" in line) == (width == 200)


def test_a_stage_of_unknown_length_shows_no_count() -> None:
    """0/? would look like a fault."""
    line = drawn(80, "Loading PyTorch", 0)[0]
    assert line.startswith("Loading PyTorch ")
    assert "1 min 0 s" in line
    assert "/" not in line.replace(DETAIL, "")
    assert "?" not in line


def test_a_terminal_without_cursor_movement_gets_lines(monkeypatch) -> None:
    """TERM=dumb shows no bar, so it would be silent during a stage."""
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    monkeypatch.setattr(terminal, "_err", Console(file=io.StringIO(), force_terminal=True, force_interactive=True))
    terminal.start("Fine-tuning", 10)
    assert terminal._bar is None
    assert terminal._lines is not None
    terminal.finish()


def test_the_time_left_is_what_the_run_expects() -> None:
    """Otherwise it follows from the speed so far; without a total only the time so far is known."""
    clock = Clock()
    stage = Stage("Fine-tuning", 10, clock)
    clock.now = 20.0
    assert stage.left() is None
    assert stage.line() == "Fine-tuning: 0 of 10, 20 s so far."
    stage.advance(2, "loss 1.0")
    assert stage.line() == "Fine-tuning: 2 of 10, about 1 min 20 s left. loss 1.0"
    stage.expect(30.0)
    clock.now = 25.0
    assert stage.line() == "Fine-tuning: 2 of 10, about 25 s left. loss 1.0"
    clock.now = 99.0
    assert stage.left() == 0.0
    assert Stage("Tracing", 0, clock).line() == "Tracing: 0 s so far."


def test_lines_come_while_the_stage_does_not_advance() -> None:
    """A slow operation inside a stage is not silent."""
    assert PLAIN_EVERY <= 5
    lines: list[str] = []
    enough = threading.Event()

    def write(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            enough.set()

    shown = StageLines(Stage("Tracing", 0), write, every=0.01)
    assert enough.wait(30)
    shown.stop()
    number = len(lines)
    assert all(line.startswith("Tracing: ") for line in lines)
    assert not shown._thread.is_alive()
    assert len(lines) == number


def test_a_stage_within_a_stage_is_its_detail(capsys) -> None:
    """Only the outer stage has lines of its own; its count and time left stay those of the outer stage."""
    terminal = Terminal()
    terminal.start("Fine-tuning", 360)
    terminal.advance(288, "loss 0.1")
    terminal.expect(100.0)
    terminal.start("Calibrating after step 288", 0)
    terminal.expect(5.0)
    terminal.advance(3, "inner")
    line = terminal._stage.line()
    terminal.finish()
    terminal.finish()
    assert line.startswith("Fine-tuning: 288 of 360, about 1 min 4")
    assert line.endswith("Calibrating after step 288")
    assert capsys.readouterr().err.startswith("Fine-tuning: done in ")


def test_the_bars_for_python_show_each_stage(capsys) -> None:
    """They have the methods of a reporter, and crop only the detail."""
    bars = ProgressBars()
    bars.message("a sentence")
    bars.start("Fine-tuning", 12)
    bars._bars[0].ncols, bars._bars[0].dynamic_ncols = 80, None
    bars.start("inside", 0)
    bars.advance(1, "inner")
    bars.finish()
    bars.advance(3, DETAIL)
    bars._bars[0].refresh()
    bars.finish()
    shown = capsys.readouterr().err
    assert "a sentence" in shown
    last = [line for line in re.split(r"[\r\n]+", shown) if "3/12" in line][-1]
    assert len(last) <= 80
    assert "█" in last or "#" in last
    assert "left" in last
    assert "inner" not in shown
    assert not progress_bars.ProgressBars()._bars


@pytest.mark.parametrize("command", [("inspect",), ("export", "out.pt2")])
def test_commands_that_describe_or_export_say_that_pytorch_loads(madtp, monkeypatch, checkpoint, command) -> None:
    """It takes seconds, in which they would be silent."""

    def stop(*_: object) -> None:
        raise CheckpointError("PyTorch would load now.")

    monkeypatch.setattr(context, "import_torch", stop)
    done = madtp(command[0], checkpoint, *command[1:])
    assert (done.exit_code, "PyTorch would load now." in done.stderr) == (3, True)
