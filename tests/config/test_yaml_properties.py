"""A config file is read, or refused with exit code 2 and a short message, whatever is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from madtp_cli.config import CompressSettings, resolve
from madtp_cli.errors import UsageError

NAMES = st.sampled_from(sorted(CompressSettings.model_fields))
VALUES = st.one_of(
    st.text(max_size=30),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["1e308", ".nan", ".inf", "[1, 2]", "{a: 1}", "*a", "&a [*a]", "!!bool x", "!!timestamp x", "2001-13-99"]
    ),
)
CONTENT = st.one_of(
    st.binary(max_size=200), st.tuples(NAMES, VALUES).map(lambda line: f"{line[0]}: {line[1]}".encode())
)
KNOWN = [
    b"epochs: 1e308",
    b"epochs: .nan",
    b"steps: [1, 2]",
    b"seed: " + b"9" * 5000,
    b"seed: 0x" + b"f" * 5000,
    b"seed: !!bool x",
    b"seed: !!timestamp x",
    b"task: " + b"[" * 50_000,
    b"a: &a [x, x]\nb: &b [*a, *a]\nseed: [*b, *b]",
    b"\xff\xfe\x00",
    b"[a, b]: 3",
    b"method: " + b"x" * 5000,
]


def read(file: Path) -> str:
    """Return the message of the error, or nothing."""
    try:
        resolve({"gflops_budget": 0.5}, file, {}).number_of_steps(1000)
    except UsageError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_any_content_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """No other exception leaves the function."""
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert len(read(file)) < 3000


@pytest.mark.parametrize("content", KNOWN, ids=range(len(KNOWN)))
def test_a_broken_file_is_refused_in_few_words(tmp_path: Path, content: bytes) -> None:
    """Also values of thousands of digits."""
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert 0 < len(read(file).replace(str(tmp_path), "")) < 800  # it lists all settings


def test_a_pipe_is_no_config_file(tmp_path: Path) -> None:
    """Reading it would wait without end."""
    os.mkfifo(tmp_path / "run.yaml")
    assert "not a regular file" in read(tmp_path / "run.yaml")
