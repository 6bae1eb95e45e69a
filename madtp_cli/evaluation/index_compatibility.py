"""Index compatibility: whether a pruned image encoder finds in a search index what the dense one finds."""

from __future__ import annotations

import numpy as np

from madtp_cli.evaluation import batching
from madtp_cli.evaluation.intervals import Groups, interval95, mean_interval95
from madtp_cli.evaluation.quality import row_groups
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import Session
from madtp_cli.metrics.nearest_images import neighbours, overlap
from madtp_cli.reporting.index_parts import IndexPart, OverlapPart
from madtp_cli.reporting.parts import Interval
from madtp_cli.tasks import DenseComparingTask

#: Results that are compared.
RESULTS = 10


def index_part(session: Session, dense: Measured, pruned: Measured) -> IndexPart | None:
    """Return how embeddings of the pruned model fit those of the dense model on the split of the settings.

    Returns:
        None for tasks that do not compare embeddings, or if there are fewer than two images.
    """
    old, new = dense.result.embeddings, pruned.result.embeddings
    if not isinstance(session.task, DenseComparingTask) or old is None or len(old) < 2:
        return None
    numbers = row_groups(batching.rows(session, session.settings.split))
    groups = numbers if len(set(numbers)) < len(numbers) else None
    wanted = neighbours(old, old, RESULTS)
    return IndexPart(
        images=len(old),
        cosine=float(np.mean(pruned.scores)),
        cosine_interval95=Interval.of(mean_interval95(pruned.scores, groups)),
        cosine_p5=float(np.percentile(pruned.scores, 5)),
        results=wanted.shape[1],
        pruned_in_dense=_overlap(wanted, neighbours(new, old, RESULTS), groups),
        dense_in_pruned=_overlap(wanted, neighbours(old, new, RESULTS), groups),
        pruned_in_pruned=_overlap(wanted, neighbours(new, new, RESULTS), groups),
    )


def _overlap(wanted: np.ndarray, found: np.ndarray, groups: Groups) -> OverlapPart:
    first, all_results = overlap(wanted[:, :1], found[:, :1]), overlap(wanted, found)
    return OverlapPart(
        top1=100 * float(np.mean(first)),
        top1_interval95=Interval.of(interval95(first, groups)),
        top10=100 * float(np.mean(all_results)),
        top10_interval95=Interval.of(interval95(all_results, groups)),
    )
