"""Every failure: exit code, empty stdout, a message of at most three lines, and no files left."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BUDGET = ("--gflops-budget", "0.7")


@pytest.fixture
def fails(madtp, tmp_path):
    """Run a command that must fail with an exit code, and return its message."""

    def run(code, *arguments, env=None):
        before = sorted(tmp_path.rglob("*"))
        done = madtp(*arguments, env=env)
        assert done.exit_code == code, done.output
        assert done.stdout == ""
        message = done.stderr[done.stderr.index("Error: ") :].rstrip()
        assert len(message.splitlines()) <= 3, message
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before
        return message

    return run


class Malicious:
    """An object that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def no_file(checkpoint):
    """Create no file."""


def text_file(checkpoint):
    """Create a text file."""
    Path("given.pt").write_text("Dear reader,")


def malicious_pickle(checkpoint):
    """Create a pickle that runs a command."""
    torch.save({"model": Malicious()}, "given.pt")


def truncated(checkpoint):
    """Create an incomplete download."""
    Path("given.pt").write_bytes(checkpoint.read_bytes()[:50_000])


def folder(checkpoint):
    """Create a folder that is not a checkpoint."""
    Path("given.pt").mkdir()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_file, "no file or folder"),
        (text_file, "not a checkpoint"),
        (malicious_pickle, "given.pt"),
        (truncated, "cut off"),
        (folder, "without config.json"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "eval", "profile", "inspect"])
def test_a_file_that_is_no_checkpoint_is_refused(fails, checkpoint, make, reason, command):
    """Exit code 3; the message names the file, and no code in it runs."""
    make(checkpoint)
    message = fails(3, command, "given.pt", *(BUDGET if command == "compress" else ()))
    assert reason in message
    assert "given.pt" in message
    assert not Path("pwned").exists()


@pytest.mark.parametrize("budget", ["0", "1.5", "-1", "", "abc", "0G", "120%", "nan"])
def test_an_invalid_budget_is_a_usage_error(fails, checkpoint, budget):
    """Also -1, which must not be read as an option; the message shows how to write a budget."""
    message = fails(2, "compress", checkpoint, "--gflops-budget", budget)
    assert budget in message
    assert "0.2" in message or "1.5%" in message


def test_a_budget_is_required(fails, checkpoint):
    """It has no default."""
    assert "--gflops-budget is missing" in fails(2, "compress", checkpoint)


@pytest.mark.parametrize("budget", ["0.01", "0.0001G", "500G"])
def test_an_unreachable_budget_is_refused_with_the_possible_range(fails, checkpoint, budget):
    """The check comes before any training."""
    message = fails(4, "compress", checkpoint, "--gflops-budget", budget, "--limit", 8, "--steps", 100_000)
    assert "cannot be reached" in message
    assert "to 1." in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--task", "vqa"), "nlvr2"),
        (("--method", "dtpp"), "madtp"),
        (("--dtype", "int3"), "float32"),
        (("--device", "tpu"), "cuda"),
        (("--limit", "0"), "1 or more"),
        (("--steps", "1", "--epochs", "1"), "one of them"),
        (("--stepz", "1"), "--steps"),
        (("--steps", "many"), "--steps"),
        (("another.pt",), "another.pt"),
    ],
)
def test_a_wrong_option_is_a_usage_error(fails, checkpoint, arguments, expected):
    """Exit code 2; the message names a correct value or option."""
    assert expected in fails(2, "compress", checkpoint, *BUDGET, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_a_usage_error(fails, checkpoint):
    """The message is not an error of torch."""
    assert "cuda" in fails(2, "compress", checkpoint, *BUDGET, "--device", "cuda")


def test_an_unknown_command_is_a_usage_error(fails):
    """The message says where the commands are listed."""
    assert "madtp --help" in fails(2, "frobnicate")


def test_an_unknown_setting_is_refused_with_the_nearest_name(fails, checkpoint):
    """In a config file and in an environment variable."""
    Path("run.yaml").write_text("batchsize: 3\n")
    message = fails(2, "compress", checkpoint, *BUDGET, "--config", "run.yaml")
    assert "run.yaml line 1" in message
    assert "batch_size" in message
    assert "MADTP_LIMIT" in fails(2, "eval", checkpoint, env={"MADTP_LIMITS": "3"})


def no_image(data):
    """Remove an image."""
    next((data / "images/test").iterdir()).unlink()


def broken_image(data):
    """Replace an image by other bytes."""
    next((data / "images/test").iterdir()).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")


def empty_annotation(data):
    """Write an annotation file without rows."""
    (data / "annotation/nlvr_test.json").write_text("[]")


def malformed_annotation(data):
    """Write half of an annotation file."""
    (data / "annotation/nlvr_test.json").write_text('[{"sentence": ')


def row_without_sentence(data):
    """Remove a field of a row."""
    file = data / "annotation/nlvr_test.json"
    rows = json.loads(file.read_text())
    del rows[1]["sentence"]
    file.write_text(json.dumps(rows))


def no_data(data):
    """Remove the folder."""
    shutil.rmtree(data)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (no_image, ".png"),
        (broken_image, ".png"),
        (empty_annotation, "nlvr_test.json"),
        (malformed_annotation, "nlvr_test.json"),
        (row_without_sentence, "sentence"),
        (no_data, "data"),
    ],
)
def test_unusable_data_is_refused(fails, checkpoint, dataset, tmp_path, damage, expected):
    """Exit code 3; the message names the file or the field."""
    shutil.copytree(dataset, tmp_path / "data")
    damage(tmp_path / "data")
    assert expected in fails(3, "compress", checkpoint, *BUDGET, "--data", "data", "--steps", 0)


def test_an_output_that_exists_is_refused_before_any_work(fails):
    """Before the checkpoint is opened; --overwrite does not replace a folder of the user."""
    Path("out").mkdir()
    Path("out/thesis.tex").touch()
    assert "--overwrite" in fails(6, "compress", "missing.pt", *BUDGET, "-o", "out")
    assert "did not write" in fails(6, "compress", "missing.pt", *BUDGET, "-o", "out", "--overwrite")


@pytest.mark.parametrize("folder", ["/proc/out", "/dev/null/out"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(fails, folder):
    """For example on a read-only disk."""
    assert "out" in fails(6, "compress", "missing.pt", *BUDGET, "-o", folder)


def test_a_full_disk_leaves_no_partial_output(fails, checkpoint, small):
    """Half a checkpoint would look like a complete one later."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        message = fails(6, "compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in message


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated by SIGTERM")],
)
def test_a_signal_ends_the_run_and_leaves_its_state_alone(interrupted, checkpoint, small, tmp_path, number, code, word):
    """After the first calibration. If the first step has begun, it ends and is saved. Scripts look at the exit code."""
    returned, out, err = interrupted(
        number, "Trying allocation", "compress", checkpoint, *BUDGET, *small, "--steps", 100_000
    )
    assert (returned, out) == (code, "")
    assert f"Error: {word}." in err
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} <= {"blip-madtp.state"}


def test_vv_prints_the_traceback_of_an_error(madtp):
    """For a bug report; `-v -v` means the same."""
    for options in (["-vv"], ["-v", "-v"]):
        done = madtp("inspect", "missing.pt", *options)
        assert "Traceback" in done.stderr
        assert done.stderr.rstrip().splitlines()[-2].startswith("Error: There is no file")
    assert "Traceback" not in madtp("inspect", "missing.pt", "-v").stderr


def test_a_bug_gives_a_short_message_and_exit_code_1(fails, monkeypatch):
    """An unexpected error must not look like a wrong input."""
    from madtp_cli.checkpoint import inspection

    def broken(*_, **__):
        raise RuntimeError("tensors of\nmany lines")

    monkeypatch.setattr(inspection, "inspect", broken)
    Path("some.pt").touch()
    message = fails(1, "inspect", "some.pt")
    assert "This is a bug in madtp: RuntimeError: tensors of\nRun the command again with -vv" in message


def test_help_loads_no_torch(madtp):
    """Help must appear at once."""
    code = (
        "import sys\nfrom madtp_cli.cli.app import app\n"
        "try: app(['compress', '--help'])\nexcept SystemExit as end: code = end.code\n"
        "print(code, {'torch', 'transformers', 'numpy', 'fvcore'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 set()"
    for option in ("--gflops-budget", "--overwrite", "--dictionary-learning-rate"):
        assert option in done.stdout
    assert "Exit codes" in madtp("--help").stdout


def test_colour_is_only_for_terminals_and_can_be_switched_off(process):
    """No colour in a pipe, and none with NO_COLOR even if colour is forced."""
    for environment in ({}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        running = process("frobnicate", **environment)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 2
        assert "\x1b[31m" not in err
    running = process("frobnicate", FORCE_COLOR="1")
    assert "\x1b[31m" in running.communicate(timeout=60)[1]


def test_a_closed_pipe_is_no_error(process, checkpoint):
    """`madtp inspect FILE | head -0` prints no message but its stages and has the exit code that shells use."""
    running = process("inspect", checkpoint)
    running.stdout.close()
    running.stdout = None
    messages = running.communicate(timeout=60)[1].splitlines()
    assert [line for line in messages if not line.startswith("Loading PyTorch")] == []
    assert running.returncode == 141
