"""`profile --time` as people and scripts use it."""

from __future__ import annotations

import json

import pytest

#: What issue trackers and scripts were promised of each batch size.
PROMISED = {"batch_size", "dense_ms", "pruned_ms", "speedup", "efficiency", "peak_memory_mb"}
RECORDED = {"device", "dtype", "threads", "processor", "repeats"}


@pytest.fixture(scope="module")
def timed(madtp, compressed):
    """Three samples timed in batches of 2 and, for want of more, 99, for scripts; and for people."""
    words = ("profile", compressed[0], "--time", "--limit", 3, "--batch-sizes")
    done, human = madtp(*words, "99,2", "--json"), madtp(*words, "99")
    assert done.exit_code == human.exit_code == 0, done.stderr + human.stderr
    return json.loads(done.stdout), human


def test_scripts_get_one_entry_per_batch_size(timed) -> None:
    """With all that a figure depends on."""
    report, _ = timed
    assert [part["batch_size"] for part in report["latency"]] == [2, 3]
    for part in report["latency"]:
        assert part.keys() >= PROMISED | RECORDED
        assert all(part[name] is not None for name in PROMISED | RECORDED)
        assert part["flops_ratio"] > 1
        assert part["dense"].keys() == part["pruned"].keys() >= {"p5_ms", "p95_ms", "samples_per_second"}
    assert report["environment"].keys() >= {"torch", "transformers", "python", "madtp"}
    assert any("batch size 3 was timed instead of 99" in note for note in report["notes"])


def test_people_read_what_became_time_in_words(timed) -> None:
    """And that there were fewer samples than asked for."""
    _, human = timed
    assert "fewer multiply-adds" in human.stdout
    assert "a realised efficiency of" in human.stdout
    assert "The data have 3 samples, so batch size 3 was timed instead of 99." in human.stdout
    assert "Timing, batch size 3" in human.stderr


def test_a_dense_checkpoint_has_times_of_its_own(madtp, checkpoint) -> None:
    """In half precision, too; nothing is pruned, so nothing is compared."""
    words = ("--batch-sizes", 1, "--limit", 1, "--dtype", "bfloat16", "--json")
    done = madtp("profile", checkpoint, "--time", *words)
    assert done.exit_code == 0, done.stderr
    (part,) = json.loads(done.stdout)["latency"]
    assert part["pruned"] is part["pruned_ms"] is part["speedup"] is part["efficiency"] is None
    assert (part["batch_size"], part["dtype"]) == (1, "bfloat16")
    assert part["dense_ms"] > 0


def test_nothing_is_timed_unless_asked(madtp, checkpoint) -> None:
    """Counting is for CI, whose machines are busy."""
    done = madtp("profile", checkpoint, "--limit", 1, "--json")
    assert json.loads(done.stdout)["latency"] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--time", "--batch-sizes", "0"), "1,8,32"),
        (("--time", "--batch-sizes", "8,many"), "1,8,32"),
        (("--batch-sizes", "8"), "Add --time"),
        (("--time", "--text-tokens", "9"), "--text-tokens"),
    ],
)
def test_what_cannot_be_timed_is_refused_at_once(madtp, checkpoint, words, told) -> None:
    """Exit 2, in two lines, before anything is loaded."""
    done = madtp("profile", checkpoint, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 2


def test_an_architecture_has_no_samples_to_be_timed_with(madtp) -> None:
    """Its weights are all zero, and a processor may be quicker with zeros."""
    done = madtp("profile", "--arch", "blip-nlvr-base", "--time")
    assert (done.exit_code, "--arch" in done.stderr) == (2, True)
