"""Dynamic token pruning as we do it: what is important and not said already stays, the rest joins its like.

What differs from `dtp_paper` and why (`examples/ablation.py` prints what each is worth): importance
counts as far as no more important token is alike; pruned tokens join the one they are most like
instead of all becoming one, and a token is then attended to as often as it stands for others, so that
a model which counts with its attention still can; the few words of the text stay.
"""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import Attended, Kept, Preset, Rule, pruned_by
from madtp_cli.pruning import dynamic

PRESET = Preset(proportional=True, unpruned=("text",))
MERGED_TOKENS = 0


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens whose importance times distinctness is above the threshold; the others join their leaders."""
    return pruned_by(dynamic.prune_peaks, attended, rule)


def cost(tokens: np.ndarray, width: int, atoms: int) -> np.ndarray:
    """Each token's cosine with each other."""
    return tokens**2 * width
