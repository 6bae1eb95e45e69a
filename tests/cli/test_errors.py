"""Every way to fail: its exit code, nothing on stdout, three lines that help, and no trace left."""

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
    """Run a command that must fail, and give its message."""

    def run(code, *words, env=None):
        before = sorted(tmp_path.rglob("*"))
        done = madtp(*words, env=env)
        assert done.exit_code == code, done.output
        assert done.stdout == ""
        message = done.stderr[done.stderr.index("Error: ") :].rstrip()
        assert len(message.splitlines()) <= 3, message
        assert "Traceback" not in done.stderr
        assert sorted(tmp_path.rglob("*")) == before
        return message

    return run


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def nothing(checkpoint):
    """No file at all."""


def letter(checkpoint):
    """Somebody's notes."""
    Path("given.pt").write_text("Dear reader,")


def code(checkpoint):
    """A pickle that would run a command."""
    torch.save({"model": Evil()}, "given.pt")


def truncated(checkpoint):
    """A download that stopped."""
    Path("given.pt").write_bytes(checkpoint.read_bytes()[:50_000])


def folder(checkpoint):
    """A folder of something else."""
    Path("given.pt").mkdir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nothing, "no file or folder"),
        (letter, "not a checkpoint"),
        (code, "given.pt"),
        (truncated, "cut off"),
        (folder, "without config.json"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "eval", "profile", "inspect"])
def test_what_is_no_checkpoint_is_refused(fails, checkpoint, make, words, command):
    """Exit 3, naming the file; and nothing in it is run."""
    make(checkpoint)
    message = fails(3, command, "given.pt", *(BUDGET if command == "compress" else ()))
    assert words in message
    assert "given.pt" in message
    assert not Path("pwned").exists()


@pytest.mark.parametrize("budget", ["0", "1.5", "-1", "", "abc", "0G", "120%", "nan"])
def test_what_is_no_budget_is_a_usage_error(fails, checkpoint, budget):
    """Also -1, which must not be taken for an option; the message shows how to write one."""
    message = fails(2, "compress", checkpoint, "--gflops-budget", budget)
    assert budget in message
    assert "0.2" in message or "1.5%" in message


def test_a_budget_is_needed(fails, checkpoint):
    """There is no default for what may remain."""
    assert "--gflops-budget is missing" in fails(2, "compress", checkpoint)


@pytest.mark.parametrize("budget", ["0.01", "0.0001G", "500G"])
def test_a_budget_out_of_reach_names_the_range(fails, checkpoint, budget):
    """Before any training."""
    message = fails(4, "compress", checkpoint, "--gflops-budget", budget, "--limit", 8, "--steps", 100_000)
    assert "cannot be reached" in message
    assert "to 1." in message


@pytest.mark.parametrize(
    ("words", "said"),
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
def test_a_wrong_option_is_a_usage_error(fails, checkpoint, words, said):
    """Exit 2, naming what would do."""
    assert said in fails(2, "compress", checkpoint, *BUDGET, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_a_usage_error(fails, checkpoint):
    """Rather than torch's own words about it."""
    assert "cuda" in fails(2, "compress", checkpoint, *BUDGET, "--device", "cuda")


def test_an_unknown_command_is_a_usage_error(fails):
    """With the way to the right one."""
    assert "madtp --help" in fails(2, "frobnicate")


def test_an_unknown_setting_names_the_nearest(fails, checkpoint):
    """In a config file, and in a variable."""
    Path("run.yaml").write_text("batchsize: 3\n")
    message = fails(2, "compress", checkpoint, *BUDGET, "--config", "run.yaml")
    assert "run.yaml line 1" in message
    assert "batch_size" in message
    assert "MADTP_LIMIT" in fails(2, "eval", checkpoint, env={"MADTP_LIMITS": "3"})


def no_image(data):
    """An image that was not copied."""
    next((data / "images/test").iterdir()).unlink()


def broken_image(data):
    """An image that is none."""
    next((data / "images/test").iterdir()).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")


def empty_annotation(data):
    """A file without a row."""
    (data / "annotation/nlvr_test.json").write_text("[]")


def malformed_annotation(data):
    """A file that was cut off."""
    (data / "annotation/nlvr_test.json").write_text('[{"sentence": ')


def row_without_sentence(data):
    """A row that lacks a part."""
    file = data / "annotation/nlvr_test.json"
    rows = json.loads(file.read_text())
    del rows[1]["sentence"]
    file.write_text(json.dumps(rows))


def no_data(data):
    """No folder at all."""
    shutil.rmtree(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_image, ".png"),
        (broken_image, ".png"),
        (empty_annotation, "nlvr_test.json"),
        (malformed_annotation, "nlvr_test.json"),
        (row_without_sentence, "sentence"),
        (no_data, "data"),
    ],
)
def test_unusable_data_is_refused(fails, checkpoint, dataset, tmp_path, damage, said):
    """Exit 3, naming the file."""
    shutil.copytree(dataset, tmp_path / "data")
    damage(tmp_path / "data")
    assert said in fails(3, "compress", checkpoint, *BUDGET, "--data", "data", "--steps", 0)


def test_an_output_that_exists_is_refused_before_any_work(fails):
    """Before the checkpoint is even looked for."""
    Path("out").mkdir()
    Path("out/thesis.tex").touch()
    assert "--overwrite" in fails(6, "compress", "missing.pt", *BUDGET, "-o", "out")
    assert "did not write" in fails(6, "compress", "missing.pt", *BUDGET, "-o", "out", "--overwrite")


@pytest.mark.parametrize("place", ["/proc/out", "no/such/folder/out"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(fails, place):
    """As a read-only disk is."""
    assert "out" in fails(6, "compress", "missing.pt", *BUDGET, "-o", place)


def test_a_disk_that_becomes_full_leaves_nothing(fails, checkpoint, small):
    """Half a checkpoint would be found later, and be trusted."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        message = fails(6, "compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in message


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_ends_the_run_without_a_trace(interrupted, checkpoint, small, tmp_path, number, code, word):
    """In the midst of the training; scripts tell by the exit code."""
    returned, out, err = interrupted(
        number, "Calibrating the threshold scale", "compress", checkpoint, *BUDGET, *small, "--steps", 100_000
    )
    assert (returned, out) == (code, "")
    assert f"Error: {word}; nothing was saved." in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_vv_shows_where_an_error_comes_from(madtp):
    """For a bug report; `-v -v` is the same."""
    for loud in (["-vv"], ["-v", "-v"]):
        done = madtp("inspect", "missing.pt", *loud)
        assert "Traceback" in done.stderr
        assert done.stderr.rstrip().splitlines()[-2].startswith("Error: There is no file")
    assert "Traceback" not in madtp("inspect", "missing.pt", "-v").stderr


def test_a_bug_is_one_sentence_and_exit_1(fails, monkeypatch):
    """What nobody thought of must not look like a wrong input."""
    from madtp_cli.checkpoint import load

    def broken(*_, **__):
        raise RuntimeError("tensors of\nmany lines")

    monkeypatch.setattr(load, "inspect", broken)
    assert "A bug in madtp: RuntimeError: tensors of\nRun again with -vv" in fails(1, "inspect", "some.pt")


def test_help_loads_no_torch(madtp):
    """It must answer at once."""
    code = (
        "import sys\nfrom madtp_cli.cli.app import app\n"
        "try: app(['compress', '--help'])\nexcept SystemExit as end: code = end.code\n"
        "print(code, {'torch', 'transformers', 'numpy', 'fvcore'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "0 set()"
    for words in ("--gflops-budget", "--overwrite", "--dictionary-learning-rate"):
        assert words in done.stdout
    assert "Exit codes" in madtp("--help").stdout


def test_colour_is_for_terminals_and_can_be_forbidden(process):
    """No escape codes in a pipe, and none with NO_COLOR even where colour is forced."""
    for environment in ({}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        running = process("frobnicate", **environment)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 2
        assert "\x1b[31m" not in err
    running = process("frobnicate", FORCE_COLOR="1")
    assert "\x1b[31m" in running.communicate(timeout=60)[1]


def test_a_closed_pipe_is_no_error(process, checkpoint):
    """`madtp inspect FILE | head -0`: silent, with the code that shells give."""
    running = process("inspect", checkpoint)
    running.stdout.close()
    running.stdout = None
    assert running.communicate(timeout=60)[1] == ""
    assert running.returncode == 141
