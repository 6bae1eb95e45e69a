"""One record per sample, as `--samples-out` writes them: a JSON line or a Parquet row each."""

from __future__ import annotations

from pydantic import ConfigDict

from madtp_cli.reporting.parts import Part

#: What a model predicts for a sample: a class, a text, or the candidate that it ranks first for each query.
Prediction = int | str | list[int] | list[str] | None


class _Record(Part):
    """A record that is read back refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class BothGflops(_Record):
    """Cost of one sample."""

    dense: float
    """GFLOPs of the dense model."""
    pruned: float | None = None
    """GFLOPs of the pruned model; null for a dense checkpoint."""


class BothPredictions(_Record):
    """Predictions for one sample. In retrieval they are candidates by number, one for the image and one per text."""

    dense: Prediction = None
    """Prediction of the dense model; null where it did not run."""
    pruned: Prediction = None
    """Prediction of the pruned model; null for a dense checkpoint."""


class BothScores(_Record):
    """Scores of one sample; 100 times the mean over all samples is the reported quality."""

    dense: float | None = None
    """Score of the dense model; null without a label."""
    pruned: float | None = None
    """Score of the pruned model; null without a label."""


class SampleRecord(_Record):
    """One sample."""

    id: str
    """Identifier of the sample in the data."""
    tokens: dict[str, list[list[int]]]
    """Tokens by tower and input: before the first block, then after each block. A pair of images has two inputs."""
    gflops: BothGflops
    """Cost of the sample."""
    prediction: BothPredictions
    """Predictions of both models."""
    score: BothScores
    """Scores of both models in the metric of the task, where 1 is 100 %."""
