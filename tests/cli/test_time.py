"""The option `--time` of `profile`."""

from __future__ import annotations

import json

import pytest

from madtp_cli.evaluation import number_formats

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
    assert report["environment"].keys() >= {"torch", "transformers", "python", "madtp", "processor", "fast_formats"}
    assert report["environment"]["processor"] == number_formats.cpu()
    assert report["environment"]["fast_formats"] == number_formats.fast_formats()
    assert "The data have 3 samples, so batch size 3 was timed instead of 99." in report["notes"]


def test_the_printed_result_explains_the_times(timed) -> None:
    """It defines the realised efficiency, and says that there were fewer samples than the batch size."""
    _, plain = timed
    assert "fewer multiply-adds" in plain.stdout
    assert "Realised efficiency is the speed-up divided by" in plain.stdout
    assert "The data have 3 samples, so batch size 3 was timed instead of 99." in plain.stdout
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


@pytest.mark.parametrize("source", [("CHECKPOINT", "--limit", 2), ("--arch", "clip-vit-b-16")])
def test_the_check_with_fvcore_can_be_left_out(madtp, compressed, source) -> None:
    """The count stays; the check is null in JSON and is not printed."""
    words = [compressed[0] if word == "CHECKPOINT" else word for word in source]
    checked, short = (
        json.loads(madtp("profile", *words, *more, "--json").stdout)["gflops"] for more in ((), ("--no-fvcore-check",))
    )
    assert checked["fvcore"] == pytest.approx(checked["formula"])
    assert (short["fvcore"], short["fvcore_samples"]) == (None, 0)
    assert (short["dense"], short["pruned"]) == (checked["dense"], checked["pruned"])
    plain = madtp("profile", *words, "--no-fvcore-check")
    assert plain.exit_code == 0, plain.stderr
    assert "fvcore counts" not in plain.stdout
    assert "fvcore" not in plain.stderr


def test_a_slow_number_format_is_noted(madtp, checkpoint, monkeypatch) -> None:
    """On stderr before the work starts, and in the report."""
    monkeypatch.setattr(number_formats, "_is_fast_on_cpu", lambda dtype: False)
    command = ("profile", checkpoint, "--limit", 1, "--no-fvcore-check", "--device", "cpu", "--json")
    done = madtp(*command, "--dtype", "bfloat16")
    assert any(note.startswith("bfloat16 is emulated") for note in json.loads(done.stdout)["notes"])
    assert "bfloat16 is emulated" in done.stderr
    assert not any("emulated" in note for note in json.loads(madtp(*command).stdout)["notes"])
