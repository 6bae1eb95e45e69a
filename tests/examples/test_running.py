"""The main function of an example as a command."""

from __future__ import annotations

import argparse

import pytest

from examples import running
from madtp_cli.errors import DataError


@pytest.mark.parametrize(("result", "code"), [(None, None), (0, 0), (1, 1)])
def test_the_result_is_the_exit_code(result: int | None, code: int | None) -> None:
    """No result is success."""
    with pytest.raises(SystemExit) as ended:
        running.run(lambda: result)
    assert ended.value.code == code


def test_an_error_of_the_user_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """It has the exit code that it has in the command line of madtp."""

    def fail() -> int:
        raise DataError("a.json does not exist.\nGive another file.")

    with pytest.raises(SystemExit) as ended:
        running.run(fail)
    assert ended.value.code == DataError.exit_code
    assert capsys.readouterr().err == "Error: a.json does not exist.\nGive another file.\n"


def test_the_help_has_each_default_once() -> None:
    """Options without a default have none in the help."""
    parser = argparse.ArgumentParser(formatter_class=running.HelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["a", "b"], help="rows")
    parser.add_argument("--steps", type=int, help="steps (default: those of compress)")
    parser.add_argument("--list", action="store_true", help="list them")
    text = parser.format_help()
    assert "rows (default: a b)" in text
    assert text.count("default") == 2
