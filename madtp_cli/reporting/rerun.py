"""The report of `madtp rerun`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from madtp_cli.reporting.parts import Part


class RerunReport(Part):
    """Whether a repeated run gave the same weights."""

    schema_version: int = 1
    """Version of the document's format, a number without unit."""
    command: Literal["rerun"] = "rerun"
    """The command that made the report."""
    report: str
    """Path of the report whose run was repeated."""
    output: str
    """Path of the folder that was written."""
    expected: dict[str, str]
    """SHA-256 of the weights of the first run by file name."""
    found: dict[str, str]
    """SHA-256 of the weights of the repeated run."""
    same: bool
    """Whether both are the same."""
    differences: list[str] = Field(default_factory=list)
    """In what the runs differ, as far as it can change the weights."""
    seconds: float
    """Duration of the command, in seconds."""
