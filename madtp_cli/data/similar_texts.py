"""An order of training rows in which rows with similar texts are neighbours, so that they share a batch.

Retrieval learns from the samples of one batch which texts do not belong to an image. In a batch of random samples
these texts are easy to tell apart, but the candidates that a search ranks are not.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from madtp_cli.data.dataset import Row

#: Rows of a group of similar texts.
GROUP = 4
#: Similar texts are looked for among this many random rows; the time and the memory grow with its square.
POOL = 2048
#: Candidates of a row; those that are in another group already are passed over.
CANDIDATES = 64


def grouped_order(rows: Sequence[Row], embeddings: Tensor, seed: str) -> list[int]:
    """Return the numbers of all rows in a random order of groups of rows with similar texts.

    The first row of a group is random. The others are the rows whose texts are most similar to its text and that are
    in no group yet.

    Args:
        rows: The rows.
        embeddings: The normalised embedding of each row's text, [rows, width].
        seed: Use another one for each epoch.
    """
    rng = random.Random(f"groups/{seed}")
    order = rng.sample(range(len(rows)), len(rows))
    groups = []
    for start in range(0, len(order), POOL):
        pool = order[start : start + POOL]
        found = _groups([rows[number] for number in pool], embeddings[pool])
        groups += [[pool[place] for place in group] for group in found]
    rng.shuffle(groups)
    return [number for group in groups for number in group]


def _groups(rows: Sequence[Row], embeddings: Tensor) -> list[list[int]]:
    """Return groups of the numbers of rows; the first row that is in no group yet begins the next one."""
    similarity = (embeddings @ embeddings.T).fill_diagonal_(-torch.inf)
    similar = similarity.topk(min(CANDIDATES, len(rows) - 1), dim=1).indices.tolist()
    grouped, groups = set[int](), []
    for number in range(len(rows)):
        if number in grouped:
            continue
        group = [number]
        for other in similar[number]:
            if len(group) == GROUP:
                break
            if other not in grouped and not any(_belong(rows[member], rows[other]) for member in group):
                group.append(other)
        grouped.update(group)
        groups.append(group)
    return groups


def _belong(row: Row, other: Row) -> bool:
    """Return whether the text of the other row also belongs to the image of this one, as far as the rows tell."""
    return row.text == other.text or row.images == other.images
