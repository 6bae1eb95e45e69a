"""--dry-run: the plan of a run, and the same errors as the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import madtp_cli
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.errors import UsageError
from tests import json_documents

BUDGET = ("--gflops-budget", "0.7")


def planned(madtp, tmp_path, *words):
    """Run a command with --dry-run and return the plan; nothing may be written."""
    done = madtp(*words, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    plan = json.loads(done.stdout)
    json_documents.validator("dry-run").validate(plan)
    assert plan["planned"] == words[0]
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    assert plan["memory_bytes"] > 0
    return plan


def test_the_plan_of_a_compression(madtp, checkpoint, small, tmp_path) -> None:
    """More steps take longer and need the memory of training; the disk is that of the weights."""
    words = ("compress", checkpoint, *BUDGET, *small)
    without = planned(madtp, tmp_path, *words, "--steps", 0)
    few = planned(madtp, tmp_path, *words, "--steps", 1000)
    names = [stage["name"] for stage in few["stages"]]
    trials = [name for name in names if name.startswith("Trying allocation ")]
    assert trials
    assert names[: len(trials) + 1] == [*trials, "Fine-tuning"]
    assert {"Evaluating the dense model", "Evaluating the pruned model", "Saving"} <= set(names)
    assert few["seconds"] > without["seconds"]
    assert few["memory_bytes"] > 2 * without["memory_bytes"]
    assert few["samples"] == {"train": 16, "val": 16, "test": 16}
    assert few["disk_bytes"] == pytest.approx(checkpoint.stat().st_size, rel=0.3)
    assert (few["output"], few["settings"]["steps"]) == ("blip-madtp", 1000)


def test_the_other_commands_have_plans(madtp, checkpoint, small, tmp_path) -> None:
    """Without a disk where nothing is written."""
    evaluated = planned(madtp, tmp_path, "eval", checkpoint, *small, "--max-latency-ms", 1e6)
    assert [stage["name"] for stage in evaluated["stages"]] == [
        "Evaluating the model", "Measuring memory and multiply-adds, batch size 8", "Timing, batch size 8",
    ]  # fmt: skip
    assert (evaluated["output"], evaluated["disk_bytes"]) == (None, 0)
    profiled = planned(madtp, tmp_path, "profile", checkpoint, *small)
    assert [stage["name"] for stage in profiled["stages"]] == ["Counting with fvcore"]
    assert planned(madtp, tmp_path, "profile", "--arch", "clip-vit-b-32")["data"] is None
    words = ("--methods", "madtp,tome", "--budgets", "0.8,0.7", "--steps", 0)
    compared = planned(madtp, tmp_path, "compare", checkpoint, *words, "--limit", 16)
    names = [stage["name"] for stage in compared["stages"]]
    assert names == ["Evaluating the dense model", "points at 0.8: 2", "points at 0.7: 2"]
    trained = planned(madtp, tmp_path, "compare", checkpoint, *words[:3], "0.8", "--seeds", 2, "--steps", 1, *small)
    names = [stage["name"] for stage in trained["stages"]]
    assert names == ["Evaluating the dense model", "fine-tuned dense models: 2", "points at 0.8: 4"]
    assert planned(madtp, tmp_path, "export", checkpoint, "blip.pt2")["disk_bytes"] > 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (2, ("compress", "CHECKPOINT", *BUDGET, "--task", "vqa")),
        (3, ("compress", "absent.pt", *BUDGET)),
        (3, ("eval", "CHECKPOINT", "--data", "absent")),
        (4, ("compress", "CHECKPOINT", "--gflops-budget", "0.01", "--limit", "8")),
        (6, ("compress", "CHECKPOINT", *BUDGET, "-o", "CHECKPOINT")),
        (6, ("compress", "CHECKPOINT", *BUDGET, "-o", "CHECKPOINT-FOLDER", "--overwrite")),
        (2, ("compress", "CHECKPOINT", *BUDGET, "--tracker", "wandb")),
        (2, ("eval", "CHECKPOINT", "--limit", "4", "--max-drop", "1")),
        (2, ("eval", "CHECKPOINT", "--limit", "4", "--max-share", "0.5")),
        (2, ("eval", "CHECKPOINT", "--limit", "4", "--min-speedup", "1")),
        (2, ("profile", "--arch", "no-such-model")),
    ],
)
def test_a_dry_run_ends_as_the_run_would_at_its_start(madtp, checkpoint, code, words) -> None:
    """The same exit code and the same message."""
    paths = {"CHECKPOINT": checkpoint, "CHECKPOINT-FOLDER": checkpoint.parent}
    words = tuple(paths.get(word, word) for word in words)
    dry, real = madtp(*words, "--dry-run", "-q"), madtp(*words, "-q")
    assert (dry.exit_code, dry.stdout) == (code, "")
    assert (real.exit_code, real.stderr) == (code, dry.stderr)


def test_a_dry_run_finds_a_run_that_writes_the_same_folder(madtp, checkpoint) -> None:
    """The run would end at its start."""
    with StateFolder(Path("blip-madtp")):
        ends = [madtp("compress", checkpoint, *BUDGET, *option, "-q") for option in ((), ("--dry-run",))]
    assert [done.exit_code for done in ends] == [6, 6]
    assert "Another run" in ends[0].stderr
    assert ends[0].stderr == ends[1].stderr


def test_a_plan_is_a_python_function(checkpoint) -> None:
    """It returns the same report, and the folder is not written."""
    report = madtp_cli.plan("compress", checkpoint, gflops_budget=0.7, limit=8, steps=0, output="out")
    assert (report.planned, report.output) == ("compress", "out")
    assert not Path("out").exists()
    assert madtp_cli.plan("eval", checkpoint, limit=8).samples == {"test": 8}
    with pytest.raises(UsageError, match="compress, eval"):
        madtp_cli.plan("profile", checkpoint)  # type: ignore[arg-type]


def test_the_plan_of_an_evaluation_has_every_pass(madtp, compressed, small, tmp_path) -> None:
    """The dense model, the same weights without pruning for the samples, and the times; the run announces the same."""
    gates = ("--max-drop", 100, "--max-gain", 100, "--min-speedup", 0.01, "--allow-inconclusive")
    words = ("eval", compressed[0], *small, *gates, "--samples-out", "samples.jsonl")
    plan = planned(madtp, tmp_path, *words)
    assert madtp(*words, "--log-json", "run.jsonl").exit_code == 0
    events = map(json.loads, Path("run.jsonl").read_text().splitlines())
    started = [event["stage"] for event in events if event["event"] == "start"]
    names = [stage["name"] for stage in plan["stages"]]
    assert [name for name in started if name in names] == names
    assert "Evaluating the dense model" in names
    assert len(names) == 5


def test_commands_of_one_process_say_so(madtp, checkpoint, compressed, monkeypatch, tmp_path) -> None:
    """A launcher would start them several times, and each would write the same file."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    Path("a.png").touch()
    picture = ("--image", "a.png", "--image", "a.png", "--text", "a cat")
    for words in (
        ("scenes", "new"),
        ("show", compressed[0], *picture),
        ("report", compressed[0]),
        ("eval", checkpoint, "--dry-run"),
        ("profile", checkpoint, "--dry-run"),
    ):
        done = madtp(*words, "-q")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "runs in one process, but 2 were started" in done.stderr
    with pytest.raises(UsageError, match="export runs in one process"):
        madtp_cli.export(checkpoint, tmp_path / "blip.pt2")
