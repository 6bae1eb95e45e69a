"""The option `--time` of `profile`."""

from __future__ import annotations

import json

import pytest

#: Fields of each batch size that scripts rely on.
PROMISED = {"batch_size", "dense_ms", "pruned_ms", "speedup", "efficiency", "peak_memory_mb"}
RECORDED = {"device", "dtype", "threads", "processor", "repeats"}


@pytest.fixture(scope="module")
def timed(madtp, compressed):
    """The JSON report of three samples, timed in batches of 2 and 99, and the printed result."""
    command = ("profile", compressed[0], "--time", "--limit", 3, "--batch-sizes")
    done, plain = madtp(*command, "99,2", "--json"), madtp(*command, "99")
    assert done.exit_code == plain.exit_code == 0, done.stderr + plain.stderr
    return json.loads(done.stdout), plain


def test_the_report_has_one_entry_per_batch_size(timed) -> None:
    """Each entry has everything that its figures depend on."""
    report, _ = timed
    assert [part["batch_size"] for part in report["latency"]] == [2, 3]
    for part in report["latency"]:
        assert part.keys() >= PROMISED | RECORDED
        assert all(part[name] is not None for name in PROMISED | RECORDED)
        assert part["flops_ratio"] > 1
        assert part["dense"].keys() == part["pruned"].keys() >= {"p5_ms", "p95_ms", "samples_per_second"}
    assert report["environment"].keys() >= {"torch", "transformers", "python", "madtp"}
    assert any("Batches of 99" in note and note.endswith("the same 3 in each turn.") for note in report["notes"])


def test_the_printed_result_explains_the_times(timed) -> None:
    """It defines the realised efficiency, and says that there were fewer samples than the batch size."""
    _, plain = timed
    assert "fewer multiply-adds" in plain.stdout
    assert "Realised efficiency is the speed-up divided by" in plain.stdout
    assert "Batches of 99 were timed with all the samples there are, the same 3 in each turn." in plain.stdout
    assert "Timing, batch size 3" in plain.stderr


def test_a_dense_checkpoint_has_times_without_a_comparison(madtp, checkpoint) -> None:
    """Also in half precision."""
    options = ("--batch-sizes", 1, "--limit", 1, "--dtype", "bfloat16", "--json")
    done = madtp("profile", checkpoint, "--time", *options)
    assert done.exit_code == 0, done.stderr
    (part,) = json.loads(done.stdout)["latency"]
    assert part["pruned"] is part["pruned_ms"] is part["speedup"] is part["efficiency"] is None
    assert (part["batch_size"], part["dtype"]) == (1, "bfloat16")
    assert part["dense_ms"] > 0


def test_nothing_is_timed_without_the_option(madtp, checkpoint) -> None:
    """Counts can be checked on busy machines, where times mean nothing."""
    done = madtp("profile", checkpoint, "--limit", 1, "--json")
    assert json.loads(done.stdout)["latency"] == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--time", "--batch-sizes", "0"), "1,8,32"),
        (("--time", "--batch-sizes", "8,many"), "1,8,32"),
        (("--batch-sizes", "8"), "Add --time"),
        (("--time", "--text-tokens", "9"), "--text-tokens"),
    ],
)
def test_wrong_time_options_are_refused_at_once(madtp, checkpoint, options, expected) -> None:
    """Exit code 2 and a message of two lines, before anything is loaded."""
    done = madtp("profile", checkpoint, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 2


def test_an_architecture_cannot_be_timed(madtp) -> None:
    """Its weights are all zero, and a processor may be faster with zeros."""
    done = madtp("profile", "--arch", "blip-nlvr-base", "--time")
    assert (done.exit_code, "--arch" in done.stderr) == (2, True)
