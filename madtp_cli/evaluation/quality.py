"""The quality of a model, and its change by pruning, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Row
from madtp_cli.data.validation_split import groups_by_image
from madtp_cli.errors import DataError
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.intervals import (
    Groups,
    interval95,
    mean_interval95,
    paired_interval95,
    paired_mean_interval95,
    relative_interval95,
)
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import Session
from madtp_cli.reporting.parts import ClassChangePart, ClassPart
from madtp_cli.reporting.schema import AGREEMENT, AgreementPart, ChangePart, DensePruned, Interval, QualityPart
from madtp_cli.tasks import DenseComparingTask

Bounds = tuple[float, float]


def row_groups(rows: Sequence[Row]) -> list[int]:
    """Return the number of each row's group. Rows that share an image, directly or through others, are one group.

    Samples of one group are not independent, so the confidence intervals are computed from groups.
    """
    groups = [0] * len(rows)
    for number, members in enumerate(groups_by_image(rows)):
        for row in members:
            groups[row] = number
    return groups


def quality(session: Session, measured: Measured) -> QualityPart:
    """Return the quality of one model on the split of the settings.

    Raises:
        DataError: A sample has no label.
    """
    require_labels(session, measured)
    groups = row_groups(batching.rows(session, session.settings.split))
    return QualityPart(
        metric=session.task.metric,
        split=session.settings.split,
        samples=measured.samples,
        groups=len(set(groups)),
        value=session.task.quality(measured.scores),
        unit=session.task.unit,
        interval95=_value_interval(session, measured, groups),
        parts=measured.result.parts,
        classes=[
            ClassPart(name=name, samples=len(scores), value=100 * float(np.mean(scores)))
            for name, scores in measured.result.by_class.items()
        ],
    )


def _value_interval(session: Session, measured: Measured, groups: Sequence[int]) -> Interval:
    mean = _recall_interval if session.task.unit == "percent" else _percent(mean_interval95)
    interval = interval95 if session.task.shares else mean
    return Interval.of(interval(measured.scores, _shared(groups)))


def compared(session: Session, dense: Measured, measured: Measured) -> Measured:
    """Return a run with the scores that compare it with the dense model; unchanged if the task has labels instead."""
    if not isinstance(session.task, DenseComparingTask):
        return measured
    scores = session.task.compare_with(dense.result, measured.result)
    return replace(measured, result=replace(measured.result, scores=scores))


def change(session: Session, dense: Measured, pruned: Measured) -> ChangePart:
    """Return the quality of the dense and the pruned model on the same samples, and the difference.

    If the labels of the data do not apply to the model, the quality is its agreement with the dense model.

    Raises:
        DataError: A sample has no label.
    """
    groups = row_groups(batching.rows(session, session.settings.split))
    if not session.labelled:
        return _agreement_change(session, dense, pruned, groups)
    for measured in (dense, pruned):
        require_labels(session, measured)
    task, scores, shared = session.task, (dense.scores, pruned.scores), _shared(groups)
    interval = paired_interval95 if task.shares else _percent(paired_mean_interval95)
    part = _in_points(session, task.metric, *scores, dense.samples, groups, interval(*scores, shared))
    common = [name for name in dense.result.parts if name in pruned.result.parts]
    update: dict[str, object] = {
        "value_unit": task.unit,
        "pruned_interval95": _value_interval(session, pruned, groups),
        "parts": {n: DensePruned(dense=dense.result.parts[n], pruned=pruned.result.parts[n]) for n in common},
    }
    if dense.result.by_class:
        update["classes"] = _class_changes(dense, pruned)
    if task.relative and part.dense:
        update |= {
            "change": 100 * part.change / part.dense,
            "interval95": Interval.of(relative_interval95(*scores, shared)),
            "unit": "percent of the dense score",
        }
    return part.model_copy(update=update)


def _class_changes(dense: Measured, pruned: Measured) -> list[ClassChangePart]:
    both = ((name, scores, pruned.result.by_class[name]) for name, scores in dense.result.by_class.items())
    return [
        ClassChangePart(
            name=name, samples=len(before), dense=100 * float(np.mean(before)), pruned=100 * float(np.mean(after))
        )
        for name, before, after in both
    ]


def agreement_part(session: Session, dense: Measured, pruned: Measured) -> AgreementPart:
    """Return how often the pruned model gives the answer of the dense model on the split of the settings."""
    same = agreement(dense, pruned)
    groups = _answer_groups(row_groups(batching.rows(session, session.settings.split)), dense, len(same))
    interval = Interval.of(interval95(same, groups))
    return AgreementPart(percent=100 * float(np.mean(same)), answers=len(same), interval95=interval)


def paired_difference(session: Session, before: Sequence[float], after: Sequence[float]) -> tuple[float, Bounds, str]:
    """Return the difference of two qualities from the scores of the same samples, its 95 % interval, and the unit.

    The unit is "points", or for a relative metric percent of the quality before.
    """
    rows, shared = batching.rows(session, session.settings.split), None
    if len(before) == len(rows):
        shared = _shared(row_groups(rows))
    change = 100 * float(np.mean(after) - np.mean(before))
    if session.labelled and session.task.relative and np.mean(before) > 0:
        bounds = relative_interval95(before, after, shared)
        return change / float(np.mean(before)), bounds, "percent of the score"
    shares = session.task.shares or not session.labelled
    interval = paired_interval95 if shares else _percent(paired_mean_interval95)
    return change, interval(before, after, shared), "points"


def agreement(one: Measured, other: Measured) -> list[float]:
    """Return 1.0 for each answer that is the same in both runs, else 0.0."""
    return [float(a == b) for a, b in zip(one.answers, other.answers, strict=True)]


def require_labels(session: Session, measured: Measured) -> None:
    """Check that every measured sample has a label.

    Raises:
        DataError: A sample has none.
    """
    _require_all(session, measured.samples, measured.result.unlabelled)


def require_labelled_rows(session: Session) -> None:
    """Check before a run that every sample of the reported split has a label, if the labels count.

    Raises:
        DataError: A sample has none.
    """
    if session.labelled:
        schema, rows = schemas.get(session.task.schema), batching.rows(session, session.settings.split)
        _require_all(session, len(rows), sum(not schema.is_labelled(row) for row in rows))


def _require_all(session: Session, samples: int, unlabelled: int) -> None:
    if unlabelled:
        raise DataError(
            f"Only {samples - unlabelled:,} of {samples:,} {session.settings.split} samples of {session.data.source} "
            "have a label, so the quality cannot be computed.\nAdd the labels, or choose another --split."
        )


def _agreement_change(session: Session, dense: Measured, pruned: Measured, groups: Sequence[int]) -> ChangePart:
    same = agreement(dense, pruned)
    perfect, shared = [1.0] * len(same), _answer_groups(groups, dense, len(same))
    interval = paired_interval95(perfect, same, shared)
    part = _in_points(session, AGREEMENT, perfect, same, dense.samples, groups, interval)
    return part.model_copy(update={"pruned_interval95": Interval.of(interval95(same, shared))})


def _answer_groups(groups: Sequence[int], dense: Measured, answers: int) -> Groups:
    """Return the group of each answer; a task may have more or fewer answers than samples."""
    return _shared([groups[sample] for sample in dense.result.answer_samples or range(answers)])


def _in_points(
    session: Session,
    metric: str,
    dense: Sequence[float],
    pruned: Sequence[float],
    samples: int,
    groups: Sequence[int],
    interval: Bounds,
) -> ChangePart:
    before, after = (100 * float(np.mean(scores)) for scores in (dense, pruned))
    return ChangePart(
        metric=metric,
        split=session.settings.split,
        samples=samples,
        groups=len(set(groups)),
        dense=before,
        pruned=after,
        change=after - before,
        interval95=Interval.of(interval),
    )


def _shared(groups: Sequence[int]) -> Groups:
    """Return the groups, or None if each has one member: the simpler formulas then apply."""
    return groups if len(set(groups)) < len(groups) else None


def _percent(interval: Callable[..., Bounds]) -> Callable[..., Bounds]:
    """Return the interval function in percent."""
    return lambda *scores: (100 * interval(*scores)[0], 100 * interval(*scores)[1])


def _recall_interval(scores: Sequence[float], groups: Groups = None) -> Bounds:
    """Return the interval, within 0-100, of a mean that lies in 0-100 although a single score may be larger."""
    low, high = _percent(mean_interval95)(scores, groups)
    return max(0.0, low), min(100.0, high)
