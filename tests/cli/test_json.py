"""`madtp schema`, the errors of commands with --json, and --log-json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from madtp_cli.cli import json_errors
from madtp_cli.cli.event_log import EventLog
from madtp_cli.errors import OutputError, ProcessError
from madtp_cli.reporting.json_schemas import json_schema
from tests import json_documents

BUDGET = ("--gflops-budget", "0.7")


def test_schema_prints_the_schema_of_a_command(madtp) -> None:
    """Or of all commands; a wrong name is a usage error that lists the names."""
    assert json.loads(madtp("schema", "compress").stdout) == json_schema("compress")
    everything = json.loads(madtp("schema").stdout)
    assert len(everything["anyOf"]) >= 10
    wrong = madtp("schema", "compres")
    assert wrong.exit_code == 2
    assert "Did you mean compress?" in wrong.stderr


@pytest.mark.parametrize(
    ("code", "kind", "words", "command"),
    [
        (2, "UsageError", ("compress", "x.pt", "--stepz", "1"), "compress"),
        (2, "UsageError", ("eval", "x.pt", "--limit", "0"), "eval"),
        (3, "CheckpointError", ("eval", "x.pt"), "eval"),
        (3, "InputError", ("check", "x", "--max-drop", "1"), "check"),
        (6, "OutputError", ("compress", "x.pt", *BUDGET, "-o", "/dev/null/folder"), "compress"),
        (6, "OutputError", ("eval", "x.pt", "--log-json", "no/folder.jsonl"), "eval"),
    ],
)
def test_an_error_with_json_is_one_object(madtp, code, kind, words, command) -> None:
    """On the only line of stderr, also where the words of the command are wrong; stdout stays empty."""
    done = madtp(*words, "--json", "--quiet")
    assert (done.exit_code, done.stdout) == (code, "")
    found = json.loads(done.stderr)
    assert (found["code"], found["kind"], found["command"]) == (code, kind, command)
    assert found["message"]
    assert "\n" not in (found["hint"] or "")
    plain = madtp(*words, "--quiet").stderr
    assert plain == f"Error: {found['message']}" + (f"\n{found['hint']}" if found["hint"] else "") + "\n"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (1, "bug", "a title: \x1b]0;madtp\x07 and half a pair: \udcff"),
        (3, "InputError", "operator torchvision::nms does not exist"),
    ],
)
def test_an_error_of_a_library_is_one_object_too(madtp, monkeypatch, code, kind, reason) -> None:
    """With control characters escaped, and with the class of the error that the message explains."""
    monkeypatch.setattr("madtp_cli.checkpoint.inspection.inspect", _raising(RuntimeError(reason)))
    Path("some.pt").touch()
    done = madtp("inspect", "some.pt", "--json")
    found = json.loads(done.stderr)
    assert (done.exit_code, found["code"], found["kind"]) == (code, code, kind)
    assert found["message"].isprintable()
    assert found["hint"]


def _raising(error: Exception) -> Callable[..., None]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_a_lost_process_is_no_bug() -> None:
    """A script that starts the run again looks for this kind."""
    line = json_errors.line("Process 0 of 2 lost.\nStart again.", 1, "compress", ProcessError("Process 0 of 2 lost."))
    assert json.loads(line)["kind"] == "ProcessError"


def test_a_log_on_a_full_disk_ends_and_the_run_does_not(tmp_path: Path) -> None:
    """The error comes after the result; a full disk at the start is an error at once."""
    log = EventLog()
    with pytest.raises(OutputError, match="No space left"):
        log.open(Path("/dev/full"), "eval")
    log.open(tmp_path / "run.jsonl", "eval")
    assert log._file is not None
    log._file.close()
    log._file = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115  the log closes it
    log.write("message", text="lost \udcff")
    log.write("message", text="ignored")
    with pytest.raises(OutputError, match=r"run.jsonl cannot be written: No space left(.|\n)*The log ends there"):
        log.end()
    log.end("error", text="a second end", code=6)


def test_the_log_has_an_event_per_line(madtp, checkpoint, small) -> None:
    """Stages, and for each step its loss and cost; every line fits the schema. A second run appends."""
    words = ("compress", checkpoint, *BUDGET, *small, "--steps", 2, "-q", "--log-json", "run.jsonl")
    assert madtp(*words, "-o", "out").exit_code == 0
    events = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    for event in events:
        json_documents.validator("log").validate(event)
    assert (events[0]["event"], events[0]["command"], events[-1]["event"]) == ("run", "compress", "end")
    steps = [event for event in events if event["event"] == "step" and event.get("stage") == "Fine-tuning"]
    assert [(event["step"], event["total"]) for event in steps] == [(1, 2), (2, 2)]
    assert all(event["loss"] > 0 and event["gflops"] > 0 and event["threshold_scale"] > 0 for event in steps)
    assert [event["seconds"] for event in events] == sorted(event["seconds"] for event in events)
    assert [e["event"] for e in events].count("start") == [e["event"] for e in events].count("finish")
    assert madtp(*words, "-o", "out").exit_code == 6
    last = json.loads(Path("run.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["code"]) == ("error", 6)
