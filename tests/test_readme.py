"""What README.md shows works: each fenced `sh` and `python` block, on a tiny checkpoint.

A line of an `sh` block is a command: `madtp ...` or `make TARGET`, with `NAME=value` before it
and `> file` behind it. Commands are run in order, but with few samples and a budget that the
tiny checkpoint can have; the data come first, since the text explains them last.
"""

from __future__ import annotations

import re
import shlex
import shutil
from typing import Any

import pytest
import typer

from madtp_cli.cli.app import app
from madtp_cli.config import BudgetRequest
from tests.paths import ROOT

COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]

#: What each command is given besides, so that it takes a second.
SMALLER = {
    "compress": ["--limit=16", "--steps=0", "--gflops-budget=0.7"],
    "eval": ["--limit=8"],
    "profile": ["--limit=1"],
    "export": [],
    "inspect": [],
    "data": ["--limit=8"],
    "scenes": ["--train=32", "--val=32", "--test=32", "--overwrite"],
}


def blocks(language):
    """The fenced blocks of a language."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def command_lines(program):
    """The words of each command of a program, with the variables set before it."""
    found = []
    for line in "".join(blocks("sh")).replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        variables = [word for word in words if re.match(r"[A-Z_]+=", word)]
        words = words[len(variables) :]
        if words[:1] == [program]:
            end = words.index(">") if ">" in words else len(words)
            found.append((words[1:end], dict(word.split("=", 1) for word in variables)))
    return found


def test_every_line_is_a_command_that_is_tested_here():
    """A line of another kind would be shown untested."""
    lines = [line for line in "".join(blocks("sh")).splitlines() if line.strip()]
    assert len(command_lines("madtp")) + len(command_lines("make")) == len(lines)


def test_every_command_is_shown_and_its_options_exist():
    """The README is the manual."""
    shown = command_lines("madtp")
    assert {words[0] for words, _ in shown} == COMMANDS.keys()
    for words, _ in shown:
        COMMANDS[words[0]].make_context(words[0], words[1:])
        if "--gflops-budget" in words:
            BudgetRequest.parse(words[words.index("--gflops-budget") + 1])


def test_every_budget_in_the_text_is_one():
    """The table of spellings, too."""
    written = re.findall(r"--gflops-budget (\S+?)[`\s]", (ROOT / "README.md").read_text("utf-8"))
    assert len(written) >= 3
    for text in written:
        BudgetRequest.parse(text)


def test_every_make_target_exists():
    """The first thing anybody types."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {word for words, _ in command_lines("make") for word in words}
    assert {"demo", "test"} <= shown <= targets


@pytest.fixture
def finished(madtp, checkpoint, tmp_path, monkeypatch):
    """A folder in which the README's commands have been run."""
    shutil.copytree(checkpoint.parent, tmp_path / "examples")
    shutil.copy(ROOT / "examples" / "clip.pt", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "clip-tokenizer", tmp_path / "examples" / "clip-tokenizer")
    monkeypatch.chdir(tmp_path)
    for words, variables in sorted(command_lines("madtp"), key=lambda shown: shown[0][0] != "scenes"):
        if "--arch" in words:
            continue  # a full-size model; tests/test_flops.py counts it
        done = madtp(*words, *SMALLER[words[0]], env=variables)
        assert done.exit_code == 0, (words, done.stderr)
    return tmp_path


def test_what_the_readme_shows_runs(finished, capsys):
    """The commands, and then the Python that uses their results."""
    python = blocks("python")
    assert python
    names: dict[str, object] = {}
    for block in python:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out.split()[0] in ("true", "false")
