"""The help texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from madtp_cli import methods, tasks
from madtp_cli.cli.app import app

COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]


@pytest.fixture
def help_of(madtp):
    """Return the help of a command on one line, without the frames of the panels."""

    def read(*command: str) -> str:
        done = madtp(*command, "--help", env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
        assert done.exit_code == 0, done.stderr
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stdout).split())

    return read


def test_required_options_and_defaults_are_shown(help_of) -> None:
    """Also the default 0."""
    text = help_of("compress")
    assert re.search(r"--gflops-budget .*?\(26\.5G\)\. \[required\]", text)
    assert re.search(r"--seed .*?4294967295\. \[default: 0\]", text)
    assert "[default: 16]" in text
    assert "Default: the built-in scenes." in text


def test_choices_are_listed_from_the_folders(help_of) -> None:
    """A new method or task appears in the help without an edit."""
    text = help_of("compress")
    assert f"Choices: {', '.join(methods.names())}. [default: madtp]" in text
    assert f"Choices: {', '.join(tasks.names())}. Default: the task of the checkpoint." in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text_of_whole_sentences(name) -> None:
    """A help text starts with a capital letter, ends with a full stop and uses no private words."""
    for parameter in COMMANDS[name].params:
        text = parameter.help
        assert re.match(r"[A-Z]", text), parameter.name
        assert re.search(r"\.( \[(required|default: [^\]]+)\])?$", text), parameter.name
        assert not re.search(r"\b(knob|witness|told|beside|judged|of which)\b", text), parameter.name


def test_madtp_without_arguments_prints_the_help(madtp) -> None:
    """The exit code is that of a usage error, as before."""
    done = madtp()
    assert done.exit_code == 2
    assert "compress" in done.output
    assert "Exit codes" in done.output
