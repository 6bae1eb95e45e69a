"""Dynamic token pruning as published: the mean of three scores, one merged token, both towers."""

from __future__ import annotations

from madtp_cli.methods import Attended, Kept, Preset, Rule
from madtp_cli.pruning import dynamic

PRESET = Preset(temperature=1.0, likeness=None, proportional=False)


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens above the threshold; the others become one token."""
    return dynamic.prune(
        attended.tokens,
        attended.lengths,
        (attended.class_attention, attended.self_attention),
        attended.logits,
        rule.knob,
        temperature=rule.temperature,
        min_keep=rule.min_keep,
    )
