"""Run single samples through the dense and the pruned model, and record what the pruning does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from madtp_cli import methods, tasks
from madtp_cli.checkpoint.processors import tokenizer_of
from madtp_cli.data import Row
from madtp_cli.evaluation import recorded_tokens, sample_costs
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.evaluation.report_parts import layer_parts
from madtp_cli.flops.counts import Counts
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.pruned_sample import Answers, PrunedSample
from madtp_cli.reporting.samples import BothGflops
from madtp_cli.tasks import Task


@dataclass(frozen=True)
class Viewer:
    """A model whose pruning is looked at.

    Attributes:
        model: The model; a dense one prunes nothing.
        processor: Its processor.
        task: Its task, prepared for it.
        compute: Device and number format.
        dense: The dense model that it is compared with.
        dense_name: What `dense` is.
    """

    model: Prunable
    processor: Any
    task: Task
    compute: ComputeConfig
    dense: Prunable
    dense_name: str = "the dense model"

    def view(self, row: Row, answers: Answers | None = None) -> PrunedSample:
        """Run a sample. Known answers are not computed again."""
        batch = self.task.collate([row], self.processor)
        self.model.records_tokens = True
        try:
            output = self._run(self.model, batch)
        finally:
            self.model.records_tokens = False
        counts = sample_costs.counts_of(self.model, output.trace)
        lengths = sample_costs.lengths_of([row], self.task, self.processor, self.dense.config)
        dense = sample_costs.dense_counts(self.dense.config, lengths)
        method = self.model.pruning.method if self.model.pruning else ""
        return PrunedSample(
            name=row.identifier,
            text=row.text,
            images=recorded_tokens.image_inputs(self.model, output.trace, batch, self.processor),
            texts=recorded_tokens.text_inputs(self.model, output.trace, batch, tokenizer_of(self.processor)),
            layers=layer_parts(self.model, counts),
            dense_layers=layer_parts(self.dense, dense),
            gflops=BothGflops(dense=_gflops(self.dense, dense), pruned=_gflops(self.model, counts) if method else None),
            answers=answers or self._answers(row, batch, output),
            method=method,
            rule=rule_of(method) if method else "",
        )

    def _run(self, model: Prunable, batch: Batch) -> Any:
        with self.compute.inference(model):
            return model(**inputs_of(self.compute.moved(batch)))

    def _answers(self, row: Row, batch: Batch, output: Any) -> Answers:
        own = self._answer(self.model, row, batch, output)
        right = tasks.right_answer(self.task, row)
        if not self.model.pruning:
            return Answers(own, None, right, self.dense_name)
        dense = self._answer(self.dense, row, batch, self._run(self.dense, batch))
        return Answers(dense, own, right, self.dense_name)

    def _answer(self, model: Prunable, row: Row, batch: Batch, output: Any) -> str:
        with self.compute.inference(model):
            predictions = self.task.predict(model, output, self.compute.moved(batch))
            return tasks.answer(self.task, model, predictions, row)


def rule_of(method: str) -> str:
    """Return what a method does, from the first sentence of its file.

    >>> rule_of("madtp-paper")
    'dynamic token pruning as published, in both towers'
    """
    summary = (getattr(methods.get(method), "__doc__", None) or "").partition("\n\n")[0]
    return " ".join(summary.partition(": ")[2].split()).rstrip(".")


def _gflops(model: Prunable, counts: Counts) -> float:
    """Return the GFLOPs of a single sample."""
    return float(sample_costs.per_sample(model.config, counts)[0]) / 1e9
