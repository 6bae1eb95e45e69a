"""The parts of a report on how a run computed, and how often two models give the same answers, and on the fine-tune."""

from __future__ import annotations

from madtp_cli.reporting.parts import Interval, Part


class ComputePart(Part):
    """Where and in which number format the forward passes ran."""

    device: str
    """The torch device, such as cpu or cuda."""
    dtype: str
    """Number format of the forward passes, such as float32."""


class AgreementPart(Part):
    """How often the pruned model gives the answer of the dense model."""

    percent: float
    """Share of the answers that are the same, in percent."""
    answers: int
    """Number of answers."""
    interval95: Interval
    """95 % confidence interval of `percent`, in percent."""


class BudgetPoint(Part):
    """The pruned model at another budget of its range, without training for it."""

    requested: float
    """The budget, as a share of the dense GFLOPs."""
    threshold_scale: float
    """The threshold scale of the calibrated curve for it; it has no unit."""
    gflops: float
    """Mean GFLOPs per reported sample."""
    share: float
    """`gflops` as a share of the dense GFLOPs of these samples."""
    pruned: float
    """Quality of the pruned model at this budget, in the unit of the quality of the report."""
    change: float
    """`pruned` minus the quality of the dense model, in the unit of the change of the report."""
    interval95: Interval
    """95 % confidence interval of the paired change, in the same unit."""
    pruned_interval95: Interval | None
    """95 % confidence interval of `pruned`; null where there is none."""
    pruned_ms: float
    """Median time per sample, in milliseconds, measured as in the latency of the report."""


class TrainingPoint(Part):
    """One step of the fine-tune, at which the loss and the cost of its batch were measured."""

    step: int
    """Number of the step, from 1."""
    loss: float
    """Loss of the batch; it has no unit."""
    gflops: float
    """Mean GFLOPs per sample of the batch."""
    threshold_scale: float
    """The threshold scale after the step; it has no unit."""
    learning_rate: float | None = None
    """Learning rate of the pretrained weight matrices in the step; it has no unit. Null in earlier reports."""


class AllocationTrial(Part):
    """An allocation of the budget over image tower and text tower that was tried before the fine-tune."""

    embedding_scale: float
    """Factor of the threshold scale for image patches before the first block; it has no unit."""
    rise: float
    """Factor of the threshold scale in the last pruned block, if it is 1 in the first one; it has no unit."""
    text_scale: float = 0.0
    """Factor of the threshold scale in the text tower; it has no unit. 0 if no texts are pruned."""
    loss: float | None
    """Distillation loss against the dense model on the samples of the trial; it has no unit. Null if the allocation
    cannot meet the budget."""
    threshold_scale: float
    """The threshold scale that meets the budget on the samples of the trial; it has no unit."""


class SetBudgetPart(Part):
    """Another budget that was set without training, see `--gflops-budget` of `madtp eval`."""

    requested: str
    """The budget as it was written."""
    threshold_scale: float
    """The threshold scale that the calibrated curve has for it; it has no unit."""
