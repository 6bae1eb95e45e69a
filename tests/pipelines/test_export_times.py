"""The announced time of an export: from the files before torch is imported, then from tracing, then from operations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from madtp_cli.checkpoint.outline import Outline
from madtp_cli.pipelines import export_times
from madtp_cli.pipelines.export_times import LAST_SHARE, WritingTime
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast


class Recorder(ProgressReporter):
    """Keeps what is announced."""

    def __init__(self) -> None:
        self.planned: list[PlannedStage] = []
        self.left: list[float] = []
        self.done: list[int] = []

    def plan(self, stages) -> None:
        self.planned = list(stages)

    def advance(self, done: int, detail: str = "") -> None:
        self.done.append(done)

    def expect(self, seconds: float) -> None:
        self.left.append(seconds)


def test_the_whole_time_is_announced_while_torch_is_imported(monkeypatch) -> None:
    """It is the time of the import and of all stages after it, on a machine that is twice as slow."""
    monkeypatch.setattr(export_times, "slowness", lambda: 2.0)
    monkeypatch.setattr(export_times, "outline", lambda checkpoint: Outline(70, 0, 4))
    recorder = Recorder()
    progress = Forecast(recorder, clock=lambda: 0.0)
    progress.start("Loading PyTorch", 0)
    export_times.announce(progress, Path("model"), Path("model.onnx"), None)
    assert [stage.title for stage in recorder.planned] == [
        "Loading the checkpoint", "Loading the exporter", "Tracing", "Writing", "Checking",
    ]  # fmt: skip
    assert recorder.planned[2].seconds == pytest.approx(2 * (0.07 * 10 + 1.55 * 4))
    assert recorder.left[-1] == pytest.approx(2 * 3.3 + sum(stage.seconds for stage in recorder.planned))


def test_nothing_is_announced_for_files_of_unknown_size(tmp_path) -> None:
    """The reader of the checkpoint reports what is wrong with them."""
    recorder = Recorder()
    export_times.announce(recorder, tmp_path, Path("model.onnx"), "onnx")
    export_times.announce(recorder, tmp_path / "missing", Path("model.onnx"), None)
    assert (recorder.planned, recorder.left) == ([], [])


def test_the_estimate_needs_no_torch() -> None:
    """Otherwise it would come after the import."""
    code = (
        "import sys; from madtp_cli import exporters; from madtp_cli.pipelines import export_times\n"
        "[exporters.get(name) for name in exporters.names()]\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("planned", [30.0, 40.0, 52.0])
def test_the_time_left_of_writing_follows_the_operations(planned) -> None:
    """A plan that is wrong by 30 % is corrected: the operations take as long as they take. Here all takes 40 s."""
    now, recorder = 0.0, Recorder()
    writing = WritingTime(planned, recorder, clock=lambda: now)
    for done in range(101):
        now = 40.0 * (1 - LAST_SHARE) * done / 100
        writing.tell(done, 100)
    assert recorder.done == list(range(101))
    assert recorder.left[0] == planned
    assert recorder.left[50] == pytest.approx(40.0 * (1 - 0.5 * (1 - LAST_SHARE)), rel=0.27)
    assert recorder.left[100] == pytest.approx(40.0 * LAST_SHARE)


def test_the_time_before_the_first_operation_is_not_their_speed() -> None:
    """A format builds tables first, which takes longer than the operations of a small model."""
    now, recorder = 0.0, Recorder()
    writing = WritingTime(20.0, recorder, clock=lambda: now)
    now = 9.0
    writing.tell(0, 10)
    now = 10.0
    writing.tell(10, 10)
    assert recorder.left == [11.0, pytest.approx(LAST_SHARE / (1 - LAST_SHARE))]


def test_operations_are_counted_while_a_graph_is_converted() -> None:
    """Reading a shape or a device is no operation; counting changes no result."""
    from madtp_cli.exporters import _counting, _tracing

    program = _tracing.trace_tiny_model()
    (mean,) = [node.target for node in program.graph.nodes if node.op == "call_function"]
    reported = list[int]()
    with _counting.CountedOperations(program, 4, reported.append):
        values = [mean(torch.ones(2, 7), [1]) for _ in range(6)]
        assert values[0].shape == (2,)
        torch.ones(3) + 1
    assert reported == [0, 25, 50, 75, 100]
    assert values[-1].tolist() == [1.0, 1.0]
