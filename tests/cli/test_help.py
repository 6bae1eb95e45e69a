"""The help texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from madtp_cli import methods, scenes, tasks
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
    assert re.search(r"--gflops-budget .*?\(26\.5G\)\..*?\[required\]", text)
    assert re.search(r"--seed .*?4294967295\. \[default: 0\]", text)
    assert "[default: 16]" in text
    assert "Default: the built-in scenes." in text


def test_choices_are_listed_from_the_folders(help_of) -> None:
    """A new method or task appears in the help without an edit."""
    text = help_of("compress")
    assert f"Choices: {', '.join(methods.names())}. [default: madtp]" in text
    assert f"Choices: {', '.join(tasks.names())}. Default: the task of the checkpoint." in text
    assert f"Choices: {', '.join(methods.names())}. Default: all methods." in help_of("compare")


def test_scenes_offers_the_tasks_that_it_can_write(madtp, help_of, tmp_path) -> None:
    """Classification has no scenes."""
    assert f"Choices: {', '.join(scenes.TASKS)}. [default: nlvr2]" in help_of("scenes")
    for task in scenes.TASKS:
        assert madtp("scenes", tmp_path / task, "--task", task, "--train=0", "--val=0", "--test=1").exit_code == 0
    refused = madtp("scenes", tmp_path / "classes", "--task", "classification")
    assert refused.exit_code == 2
    assert f"Choose one of: {', '.join(scenes.TASKS)}." in refused.stderr


def test_a_report_reads_the_data_of_its_run(help_of) -> None:
    """The built-in scenes are the default of a run, not of its page."""
    text = help_of("report")
    assert "Default: those that the run read." in text
    assert "Default: the built-in scenes." not in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text_of_whole_sentences(name) -> None:
    """A help text starts with a capital letter, ends with a full stop and uses no private words."""
    for parameter in COMMANDS[name].params:
        text = parameter.help
        assert re.match(r"[A-Z]", text), parameter.name
        assert re.search(r"\.( \[(required|default: [^\]]+)\])?$", text), parameter.name
        assert not re.search(r"\b(knob|witness|told|beside|judged|of which)\b", text), parameter.name


def test_madtp_without_arguments_prints_the_first_steps(madtp) -> None:
    """Three commands that exist, and where the others are listed. Nothing is wrong, so the exit code is 0."""
    done = madtp()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  madtp ")]
    assert [line[1] for line in lines] == ["inspect", "compress", "eval"]
    assert "madtp help" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_h_and_help_print_the_same_as_the_long_option(madtp, name) -> None:
    """Users try all three."""
    wanted = madtp(name, "--help").stdout
    assert madtp(name, "-h").stdout == madtp("help", name).stdout == wanted
    assert "Usage" in wanted


def test_help_lists_the_commands_and_suggests_one(madtp) -> None:
    """As `madtp --help` does."""
    assert madtp("help").stdout == madtp("-h").stdout == madtp("--help").stdout
    wrong = madtp("help", "compres")
    assert wrong.exit_code == 2
    assert "Did you mean compress?" in wrong.stderr


@pytest.mark.parametrize(
    ("command", "option", "typed", "values"),
    [
        ("profile", "--arch", "vilt", ["vilt-b32-nlvr2", "vilt-b32"]),
        ("compress", "--method", "madtp-p", ["madtp-paper"]),
        ("compress", "--split", "t", ["train", "test"]),
        ("compress", "--dtype", "fl", ["float32", "float16"]),
    ],
)
def test_a_shell_completes_values(command, option, typed, values) -> None:
    """The options whose values are a list."""
    (found,) = (parameter for parameter in COMMANDS[command].params if option in parameter.opts)
    completed = found.shell_complete(typer.Context(COMMANDS[command]), typed)
    assert [item.value for item in completed] == values
