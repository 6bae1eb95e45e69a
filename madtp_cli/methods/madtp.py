"""`--method madtp`, the default: keep tokens that are important and distinct; each pruned token joins a similar one.

Differences from `madtp_paper` (`examples/ablation.py` prints what each is worth):

* Patches are pruned before the first block too, whose self-attention is the dearest one. No attention is known there;
  the dictionary alone says which patches are important. Later blocks prune more strongly than earlier ones.
* A token counts for its importance and for its distance from the most similar more important token.
* The dictionary's attention is sharper: its temperature is 0.2.
* A pruned token joins the most similar kept token, instead of all of them becoming one.
* A token is attended to in proportion to the number of tokens it stands for, so a model can still count.
* The text tower is pruned less, or not at all if that is better at the same cost, since each of its few tokens carries
  much information.
* It costs little: every second block prunes, received attention comes from 32 queries, and tokens are compared by
  64 of their numbers.
"""

from __future__ import annotations

from madtp_cli.methods import BlockInputs, Preset, PruneDecision, Rule, _density_score
from madtp_cli.pruning import thresholds

NEEDS, PARAMETERS = _density_score.NEEDS, _density_score.DensityParameters
PRESET = Preset(every=2, embedding=2.0, rise=6.0, texts=2.0, first_scale=0.02)
MERGED_TOKENS = 0
cost = _density_score.cost


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep tokens whose score exceeds the threshold; each of the others joins its nearest more important token.

    The score is the root of the importance times the distinctness (see `density_peaks`). The threshold is the
    threshold scale times the quadratic mean of the sample's scores: an image of many different things keeps more
    tokens than an empty one.
    """
    scored, mask = _density_score.DensityScore.of(inputs, rule), inputs.mask
    threshold = rule.threshold_scale * thresholds.quadratic_mean(scored.score, mask)
    score = scored.score.masked_fill(scored.most_important, float("inf"))
    return scored.decide(thresholds.keep_above(score, threshold, mask, rule.min_keep), inputs)
