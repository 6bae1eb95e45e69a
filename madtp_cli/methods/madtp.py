"""Dynamic token pruning as we do it: what is important and not said already stays, the rest joins its like.

What differs from `madtp_paper` and why (`examples/ablation.py` prints what each is worth): importance
counts as far as no more important token is alike; an atom of the dictionary looks for few tokens
(temperature 0.2); pruned tokens join the one they are most like instead of all becoming one, and a token
is then attended to as often as it stands for others, so that a model which counts with its attention
still can; the few words of the text stay. And it costs little: every second block prunes, where 32 of
the queries are asked and a part of each token is compared.
"""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import (
    BlockInputs,
    PaddedBlockInputs,
    PaddedPruneDecision,
    Preset,
    PruneDecision,
    Rule,
    pruned_by,
)
from madtp_cli.pruning import density_peaks, dynamic, padded

PRESET = Preset(proportional=True, temperature=0.2, queries=32, every=2, unpruned=("text",))
MERGED_TOKENS = 0


def keep(attended: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the tokens that are important and distinct, by more than the threshold; the others join their leaders."""
    return pruned_by(dynamic.prune_peaks, attended, rule, tokens=attended.tokens, rows=attended.rows)


def place(seen: PaddedBlockInputs, rule: Rule) -> PaddedPruneDecision:
    """As `keep`, on a padded block."""
    return padded.place_peaks(seen, rule.threshold_scale, temperature=rule.temperature, min_keep=rule.min_keep)


def cost(tokens: np.ndarray, width: int, atoms: int) -> np.ndarray:
    """Cosines among the tokens, of the numbers that are compared."""
    return comparisons(tokens) * len(range(0, width, density_peaks.spacing(width)))


def comparisons(tokens: np.ndarray) -> np.ndarray:
    """How many cosines are formed among so many tokens of a sample, [samples].

    >>> comparisons(np.array([2, density_peaks.AT_ONCE, density_peaks.AT_ONCE + 2])).tolist()
    [4, 20736, 21028]
    """
    blocks, rest = tokens // density_peaks.AT_ONCE, tokens % density_peaks.AT_ONCE
    return density_peaks.AT_ONCE**2 * blocks * (blocks + 1) // 2 + rest * tokens
