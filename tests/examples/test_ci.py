"""The pipelines in examples/ci parse, and their shell steps run here on a small checkpoint."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import pytest
import typer
import yaml

from madtp_cli.cli.app import app
from tests.paths import EXAMPLES, ROOT

CI = EXAMPLES / "ci"
COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]


def github() -> dict[str, Any]:
    """Return the GitHub workflow."""
    return yaml.safe_load((CI / "github.yml").read_text("utf-8"))


def gitlab() -> dict[str, Any]:
    """Return the GitLab file."""
    return yaml.safe_load((CI / "gitlab.yml").read_text("utf-8"))


def test_the_github_steps_are_commands_of_madtp() -> None:
    """Their options exist; gates and report are published also after a failure."""
    steps = github()["jobs"]["compress"]["steps"]
    install, fingerprint, *lines = [step["run"] for step in steps if "run" in step]
    assert install in (ROOT / "README.md").read_text("utf-8")
    assert {install} == {line for job in ("compress", "check") for line in gitlab()[job]["before_script"]}
    (cache,) = (step for step in steps if step.get("id") == "cache")
    assert "GITHUB_OUTPUT" in fingerprint
    assert cache["with"]["key"] == "madtp-${{ steps.inputs.outputs.fingerprint }}"
    for line in lines:
        program, command, *words = shlex.split(Template(line).substitute(github()["env"]))
        assert program == "madtp"
        COMMANDS[command].make_context(command, words)
    assert steps[-1]["if"] == "always()"
    assert {"gates.xml", "pruned/report.json"} <= set(steps[-1]["with"]["path"].split())
    assert gitlab()["check"]["artifacts"]["reports"]["junit"] == "gates.xml"


def test_the_key_of_the_github_cache_depends_on_all_inputs(tmp_path) -> None:
    """Another checkpoint, picture or setting must not get the model of the old one, whatever the names of the files."""
    (step,) = (step for step in github()["jobs"]["compress"]["steps"] if step.get("id") == "inputs")
    inputs = [tmp_path / name for name in ("my model.pth", "the data/a picture's.png", ".github/workflows/madtp.yml")]
    output = tmp_path / "output"
    for path in (*inputs, *inputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.exists()}")
        given = {"CHECKPOINT": "my model.pth", "DATA": "the data", "GITHUB_OUTPUT": str(output)}
        shell(tmp_path, step["run"], **given)
    keys = output.read_text("utf-8").splitlines()[len(inputs) - 1 :]
    assert all(re.fullmatch(r"fingerprint=[0-9a-f]{16}", key) for key in keys)
    assert len(set(keys)) == 1 + len(inputs)


def test_the_pipeline_script_is_short_and_computes_nothing() -> None:
    """Under 25 lines, without jq."""
    text = (CI / "pipeline.sh").read_text("utf-8")
    assert len(text.splitlines()) < 25
    assert "jq" not in text


@pytest.fixture
def place(checkpoint: Path, dataset: Path, tmp_path: Path) -> Path:
    """A working directory with a checkpoint, its data, and `madtp` on the path."""
    shutil.copy(checkpoint, tmp_path / "model.pth")
    shutil.copytree(checkpoint.parent / "tokenizer", tmp_path / "tokenizer")
    shutil.copytree(dataset, tmp_path / "data")
    shutil.copy(CI / "gitlab.yml", tmp_path / ".gitlab-ci.yml")
    (tmp_path / "bin").mkdir()
    madtp = tmp_path / "bin/madtp"
    madtp.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m madtp_cli "$@"\n')
    madtp.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="session")
def dataset(madtp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small NLVR2 data set."""
    folder = tmp_path_factory.mktemp("data") / "nlvr2"
    assert madtp("scenes", folder, "--train", 16, "--val", 16, "--test", 16, "-q").exit_code == 0
    return folder


def shell(place: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run shell lines in the working directory."""
    given = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        ["sh", "-ec", script], cwd=place, env=os.environ | given, capture_output=True, text=True, check=False
    )


def test_the_gitlab_steps_run_and_a_second_pipeline_uses_the_cache(place) -> None:
    """The folder in the cache is named by the fingerprint of the inputs."""
    file = gitlab()
    variables = file["variables"] | {
        "BUDGET": "0.7", "EXTRA": "--steps 0 --batch-size 8", "GATES": "--max-share 0.75 --max-gain 100",
    }  # fmt: skip
    script = "\n".join([*file["compress"]["script"], *file["check"]["script"]])
    done = shell(place, script, **variables)
    assert done.returncode == 0, done.stderr
    (folder,) = (place / "cached").iterdir()
    before = (folder / "report.json").stat().st_mtime_ns
    failing = shell(place, script, **variables | {"GATES": "--max-share 0.1"})
    assert failing.returncode == 5
    assert (folder / "report.json").stat().st_mtime_ns == before
    assert "<failure" in (place / "gates.xml").read_text("utf-8")


def test_the_script_publishes_only_what_passes(place) -> None:
    """A failed gate is the exit code, and nothing is published."""
    script = f"{shlex.quote(str(CI / 'pipeline.sh'))} model.pth data public --steps 0 --batch-size 8"
    failing = shell(place, script, BUDGET="0.7", GATES="--max-share 0.1")
    assert (failing.returncode, (place / "public").exists()) == (5, False), failing.stderr
    done = shell(place, script, BUDGET="0.7", GATES="--max-share 0.75")
    assert done.returncode == 0, done.stderr
    assert (place / "public/report.json").is_file()
