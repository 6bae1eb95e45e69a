"""Dynamic token pruning as published: the mean of three scores, one merged token, both towers."""

from __future__ import annotations

from madtp_cli.methods import Attended, Kept, Preset, Rule, keep_important

PRESET = Preset(temperature=1.0, likeness=None, proportional=False)


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens above the threshold; the others become one token."""
    return keep_important(attended, rule)
