"""The records of single samples: token counts, cost, predictions and scores of the dense and the pruned model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from madtp_cli.evaluation import batching, sample_costs
from madtp_cli.evaluation.quality import agreement
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import Session
from madtp_cli.flops.counts import Counts
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.samples import BothGflops, BothPredictions, BothScores, Prediction, SampleRecord

#: A model, and its run over the samples.
Run = tuple[Prunable, Measured]


def records(session: Session, dense: Run | None, pruned: Run | None, limit: int | None = None) -> list[SampleRecord]:
    """Return a record for each sample of the reported split. At least one model ran.

    Args:
        session: Its settings name the split.
        dense: The run of the dense model; None if it did not run.
        pruned: The run of the pruned model; None for a dense checkpoint.
        limit: The limit of the runs, if it is less than that of the settings.
    """
    shown = pruned or dense
    if shown is None:
        raise ValueError("no model ran")
    split = session.settings.split
    rows, dense_gflops = batching.rows(session, split, limit), sample_costs.dense_gflops(session, split, limit)
    both = (dense[1] if dense else None, pruned[1] if pruned else None)
    predictions, scores = [_predictions(run, len(rows)) for run in both], _scores(session, *both, len(rows))
    gflops = [None] * len(rows) if pruned is None else pruned[1].gflops(pruned[0]).tolist()
    return [
        SampleRecord(
            id=row.identifier,
            tokens={tower: _tokens(shown[1].counts, tower, number) for tower in shown[1].counts},
            gflops=BothGflops(dense=dense_gflops[number], pruned=gflops[number]),
            prediction=BothPredictions(dense=predictions[0][number], pruned=predictions[1][number]),
            score=BothScores(dense=scores[0][number], pruned=scores[1][number]),
        )
        for number, row in enumerate(rows)
    ]


def _tokens(counts: Counts, tower: str, sample: int) -> list[list[int]]:
    """Return the tokens of each input of a sample: before the first block, then after each block."""
    before, after = counts[tower].entered[:1, sample], counts[tower].left[:, sample]
    tokens: list[list[int]] = np.concatenate([before, after]).T.astype(int).tolist()
    return tokens


def _predictions(run: Measured | None, samples: int) -> Sequence[Prediction]:
    """Return the prediction of each sample; where a sample has several answers, the list of them."""
    if run is None or not run.answers:
        return [None] * samples
    if run.result.answer_samples is None:
        return run.answers
    answers: list[list[Any]] = [[] for _ in range(samples)]
    for sample, answer in zip(run.result.answer_samples, run.answers, strict=True):
        answers[sample].append(answer)
    return answers


def _scores(
    session: Session, dense: Measured | None, pruned: Measured | None, samples: int
) -> list[Sequence[float | None]]:
    """Return the score of each sample in both runs. Without labels it is the agreement with the dense model."""
    if not session.labelled and dense is not None and pruned is not None and dense.answers:
        return [_by_sample(dense, dense, samples), _by_sample(dense, pruned, samples)]
    unknown: Sequence[float | None] = [None] * samples
    return [unknown if run is None or len(run.scores) != samples else run.scores for run in (dense, pruned)]


def _by_sample(dense: Measured, other: Measured, samples: int) -> list[float]:
    """Return the agreement of each sample. The mean over the samples is the mean over the answers."""
    same = agreement(dense, other)
    totals = np.bincount(dense.result.answer_samples or range(len(same)), same, samples)
    scores: list[float] = (totals * (samples / len(same))).tolist()
    return scores
