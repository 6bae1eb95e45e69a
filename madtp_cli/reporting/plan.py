"""The plan of a run: what --dry-run prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from madtp_cli.reporting.parts import Part


class PlanStage(Part):
    """One stage of a run."""

    name: str
    """What the stage does."""
    seconds: float
    """Estimated duration, in seconds."""


class PlanReport(BaseModel):
    """What a run would do, and an estimate of what it needs. The times come from one batch on this machine."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schema_version: int = 1
    """Version of the document's format, a number without unit."""
    command: Literal["dry-run"] = "dry-run"
    """The option that made the document."""
    planned: str
    """The command that was planned."""
    checkpoint: str
    """Path of the checkpoint, or name of the architecture."""
    task: str
    """Name of the task."""
    data: str | None
    """Where the samples come from; null for commands without samples."""
    samples: dict[str, int]
    """Number of samples by split."""
    output: str | None
    """Path that would be written; null if nothing is."""
    gflops: float | None = None
    """GFLOPs per sample that the pruned model may cost; null for commands without a budget."""
    stages: list[PlanStage]
    """The stages in their order."""
    seconds: float
    """Estimated duration of all stages, in seconds."""
    memory_bytes: int
    """Estimated memory of weights, optimizer and activations, in bytes; Python and its libraries come on top."""
    disk_bytes: int
    """Estimated size of the output, in bytes."""
    free_disk_bytes: int | None = None
    """Free space at the output, in bytes; null if nothing is written."""
    settings: dict[str, object]
    """Every setting of the run."""
    notes: list[str]
    """Sentences that a reader of the plan should know."""
