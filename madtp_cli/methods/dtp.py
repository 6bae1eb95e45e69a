"""Dynamic token pruning as we do it: a pruned token joins the kept one it is most like.

What differs from `dtp_paper` and why (`examples/ablation.py` prints what each is worth): merged
tokens count as often as they stand for others when they are attended to, so that a model which
counts with its attention still can; pruned tokens join their like instead of all becoming one;
the dictionary's attention is sharper; the few words of the text stay.
"""

from __future__ import annotations

from madtp_cli.methods import Attended, Kept, Preset, Rule, keep_important

PRESET = Preset(temperature=0.2, likeness=0.5, proportional=True, unpruned=("text",))


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens above the threshold; the others join their like, or become one token."""
    return keep_important(attended, rule)
