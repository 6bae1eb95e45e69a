"""`--method static`: the score of `madtp`, but every sample keeps the same number of tokens.

The difference to `madtp` is what the dynamic threshold is worth.
"""

from __future__ import annotations

from madtp_cli.methods import BlockInputs, Preset, PruneDecision, Rule, _density_score
from madtp_cli.pruning import ranking

NEEDS, PARAMETERS = _density_score.NEEDS, _density_score.DensityParameters
PRESET = Preset(every=2, embedding=4.0, texts=2.0, first_scale=0.4)
MERGED_TOKENS = 0
cost = _density_score.cost


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the tokens with the highest scores; each of the others joins its nearest more important kept token."""
    scored, mask = _density_score.DensityScore.of(inputs, rule), inputs.mask
    score = scored.score.masked_fill(scored.most_important, float("inf"))
    kept = ranking.highest_share(score, mask, rule.threshold_scale, rule.min_keep, exportable=inputs.exportable)
    return scored.decide(kept, inputs)
