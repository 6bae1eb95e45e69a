"""A run that is stopped leaves nothing, a state, or its result. A run that is resumed ends with the same bits."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import madtp_cli
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.config import resolve
from madtp_cli.errors import BudgetError, OutputError, ResumeError
from madtp_cli.pipelines import gating, resuming
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CompressReport
from tests.reports import compress_report

#: Two late states are compared, and the teacher has seen all samples after the fourth step.
SMALL: Any = {"gflops_budget": 0.7, "limit": 8, "batch_size": 2, "steps": 10, "device": "cpu", "save_every": 3}


class _Killed(BaseException):
    """Stands for kill -9: nothing handles it."""


class Stop(ProgressReporter):
    """Calls a function when a stage starts, or after a step of the fine-tune."""

    def __init__(self, moment: str, action: Callable[[], object]) -> None:
        self.moment, self.action, self.stages = moment, action, list[str]()

    def start(self, stage: str, total: int) -> None:
        """Begin a stage."""
        self.stages.append(stage)
        if stage.startswith(self.moment):
            self.action()

    def advance(self, done: int, detail: str = "") -> None:
        """Finish a step."""
        if self.stages[-1] == "Fine-tuning" and self.moment == f"step {done}":
            self.action()


def _kill() -> None:
    raise _Killed


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def comparable(report: CompressReport) -> dict[str, Any]:
    """Return a report without its times."""
    return report.model_dump(exclude={"seconds": True, "latency": True})


def digest(folder: Path) -> str:
    """Return the SHA-256 of the weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def uninterrupted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompressReport]:
    """The folder and the report of a run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("uninterrupted"))
        return Path.cwd() / "out", madtp_cli.compress(checkpoint, output="out", **SMALL)


@pytest.fixture(autouse=True)
def _default_interrupts(tmp_path, monkeypatch):
    """Tests that run in the background ignore Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "action", "left", "step"),
    [
        ("step 2", _kill, [], None),
        ("step 5", _kill, ["out.state"], 3),
        ("Validating after step 10", _interrupt, ["out.state"], 10),
        ("Saving", _kill, ["out.state"], "trained"),
    ],
)
def test_a_stopped_run_resumes_to_the_same_bits(checkpoint, uninterrupted, moment, action, left, step) -> None:
    """Weights and report, apart from times, are those of the run that was not stopped."""
    with pytest.raises((_Killed, KeyboardInterrupt)) as stopped:
        madtp_cli.compress(checkpoint, output="out", progress=Stop(moment, action), **SMALL)
    assert [path.name for path in Path().iterdir()] == left
    assert any("`resume=True`" in note for note in getattr(stopped.value, "__notes__", ())) == bool(left)
    torch.manual_seed(1)  # the state has the random numbers
    seen = Stop("", lambda: None)
    report = madtp_cli.compress(checkpoint, output="out", resume=True, progress=seen, **SMALL)
    assert ("Fine-tuning" in seen.stages) == (step != "trained")
    assert any(stage.startswith("Trying allocation 1 ") for stage in seen.stages) == (step is None)
    assert [path.name for path in Path().iterdir()] == ["out"]
    assert digest(Path("out")) == digest(uninterrupted[0])
    assert comparable(report) == comparable(uninterrupted[1])


@pytest.fixture
def stopped(checkpoint: Path) -> Path:
    """The state folder of a run that was stopped after step 2, which is saved because of the signal."""
    with pytest.raises(KeyboardInterrupt):
        madtp_cli.compress(checkpoint, output="out", progress=Stop("step 2", _interrupt), **SMALL)
    return Path("out.state")


def test_a_state_is_not_lost_and_not_used_for_another_run(checkpoint, stopped) -> None:
    """The message names what differs. `overwrite` discards the state."""
    with pytest.raises(OutputError, match="has the state of an interrupted run"):
        madtp_cli.compress(checkpoint, output="out", **SMALL)
    changed: Any = SMALL | {"seed": 3, "limit": 6}
    with pytest.raises(OutputError, match="another one: `limit` was 8 and is 6, `seed` was 0 and is 3") as refused:
        madtp_cli.compress(checkpoint, output="out", resume=True, **changed)
    assert (refused.value.exit_code, getattr(refused.value, "__notes__", [])) == (6, [])  # --resume is no advice here
    record = json.loads((stopped / "run.json").read_text())
    for key, value, message in [
        ("versions", {"torch": "1.0"}, "the version of torch was 1.0"),
        ("inputs", {"checkpoint": "0"}, "the checkpoint has another content"),
        ("inputs", {"data": "0"}, "the data has another content"),
    ]:
        (stopped / "run.json").write_text(json.dumps(record | {key: record[key] | value}))
        with pytest.raises(OutputError, match=message):
            madtp_cli.compress(checkpoint, output="out", resume=True, **SMALL)
    (stopped / "run.json").write_text("{")
    with pytest.raises(OutputError, match="run.json is damaged"):
        madtp_cli.plan("compress", checkpoint, output="out", resume=True, **SMALL)
    with pytest.raises(OutputError, match="run.json is damaged"):
        madtp_cli.compress(checkpoint, output="out", resume=True, **SMALL)
    changed = SMALL | {"steps": 0}
    madtp_cli.compress(checkpoint, output="out", overwrite=True, **changed)
    assert [path.name for path in Path().iterdir()] == ["out"]


def test_resume_of_a_finished_run_returns_its_report(checkpoint) -> None:
    """A pipeline can always give `--resume`. The result of other settings is kept."""
    small: Any = SMALL | {"steps": 0, "resume": True}
    report = madtp_cli.compress(checkpoint, output="out", **small)
    Path("out.state").mkdir()  # killed before the state was removed
    (Path("out.state") / "trained.pt").touch()
    seen = Stop("", lambda: None)
    assert madtp_cli.compress(checkpoint, output="out", progress=seen, **small) == report
    assert not any(stage.startswith("Calibrating") for stage in seen.stages)
    assert [path.name for path in Path().iterdir()] == ["out"]
    gated = madtp_cli.compress(checkpoint, output="out", max_gflops=1e-9, samples_out="copy.jsonl", **small)
    assert gated.gates is not None
    assert not gated.gates.passed
    assert Path("copy.jsonl").read_text() == Path("out/samples.jsonl").read_text()
    for run in (madtp_cli.compress, partial(madtp_cli.plan, "compress")):
        with pytest.raises(OutputError, match="`seed` was 0 and is 1"):
            run(checkpoint, output="out", seed=1, **small)
    assert "already has the result" in madtp_cli.plan("compress", checkpoint, output="out", **small).notes[-1]


def test_the_gates_of_the_first_run_do_not_decide_a_later_one() -> None:
    """A resumed run may have none."""
    settings = resolve({"gflops_budget": "0.5", "max_drop": 0.1}, None, {})
    report = gating.with_gates(compress_report(), settings)
    assert report.gates is not None
    assert gating.with_gates(report, resolve({"gflops_budget": "0.5"}, None, {})).gates is None


def test_a_missed_budget_leaves_no_state() -> None:
    """The same settings would miss it again. Other errors leave the state and say how to continue."""
    for error, left in ((BudgetError("missed"), False), (ResumeError("damaged"), True), (OSError("any other"), True)):
        with pytest.raises(type(error)) as raised:
            _end_with(error)
        assert Path("out.state").exists() == left
        assert bool(getattr(raised.value, "__notes__", [])) == isinstance(error, OSError)


def _end_with(error: Exception) -> None:
    with StateFolder(Path("out")) as state, resuming.noted(state):
        state.write_record({})
        state.save("trained", {})
        raise error


def test_the_disk_is_full_at_a_save(checkpoint, monkeypatch) -> None:
    """The run goes on, since it may still end, and says what it could not save."""
    from madtp_cli.checkpoint.state_folder import StateFolder

    def full(self: StateFolder, name: str, content: object) -> None:
        if name == "training":
            raise OutputError("The disk is full.")

    class Messages(ProgressReporter):
        def __init__(self) -> None:
            self.texts: list[str] = []

        def message(self, text: str) -> None:
            self.texts.append(text)

    monkeypatch.setattr(StateFolder, "save", full)
    messages = Messages()
    madtp_cli.compress(checkpoint, output="out", progress=messages, **SMALL)
    assert "The state after step 3 was not saved. The disk is full." in messages.texts
    assert [path.name for path in Path().iterdir()] == ["out"]
