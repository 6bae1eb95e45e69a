"""`--method madtp-released`: exactly what the released MADTP code computes for one sample without padding.

Files that people trained with that code behave as they were trained. Differences from `madtp_paper`:

* The dictionary logits are the unscaled products of the tokens before the first norm. The token score is the largest
  of them, and class attention is not normalised.
* Like the importance, the merged token's weights can be negative.
* The inputs of one sample (the two images of a pair) keep the same number of tokens, the larger of their numbers.
* A text tower with a causal mask is not pruned: the released code keeps it up to the end of the text.

At threshold scale 1 the threshold is that of the released code; a budget is met with the scale, because the code's own
control, the temperature, saturates. The released code adds up the scores of a whole batch and scores padding; here the
other samples of the batch do not matter. Source: the released code's behaviour, github.com/double125/MADTP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from madtp_cli.methods import (
    CLASS_ATTENTION,
    DICTIONARY,
    RAW_SCORES,
    RECEIVED_ATTENTION,
    SAMPLE_INPUTS,
    BlockInputs,
    Parameters,
    Preset,
    PruneDecision,
    Rule,
    TokenSizes,
)
from madtp_cli.pruning import mag, merging, thresholds

NEEDS = frozenset({CLASS_ATTENTION, RECEIVED_ATTENTION, DICTIONARY, RAW_SCORES, SAMPLE_INPUTS})
PRESET = Preset(causal=False)
MERGED_TOKENS = 1
#: Added to the sum of the token scores, as in the released code.
EPSILON = 1e-8


@dataclass(frozen=True)
class ReleasedParameters(Parameters):
    """Parameters of this method.

    Attributes:
        temperature: Divides the dictionary logits. A larger one prunes more. Files state the one of their training.
    """

    temperature: float = 1.0


PARAMETERS = ReleasedParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep as many of the most important tokens as exceed the threshold; the others become one token."""
    mask = inputs.mask
    weight = importance(inputs)
    attention = mag.dictionary_attention(inputs.dictionary_logits, mask, rule.parameters.temperature)
    threshold = rule.threshold_scale * thresholds.least_atom_mean(weight, attention)
    above = ((weight > threshold[:, None]) & mask).sum(1).clamp_min(rule.min_keep).minimum(mask.sum(1))
    if inputs.sample_inputs > 1:
        above = above.unflatten(0, (inputs.sample_inputs, -1)).amax(0).repeat(inputs.sample_inputs)
    return merging.merge_into_one(_most_important(weight, mask, above), weight, mask)


def importance(inputs: BlockInputs) -> Tensor:
    """Return the mean of class attention, received attention and token score, [batch, longest]."""
    classes, received, logits = inputs.class_attention, inputs.received_attention, inputs.dictionary_logits
    if classes is None or received is None or logits is None:
        raise ValueError("token importance needs both kinds of attention and the dictionary; list them in NEEDS")
    largest = logits.float().amax(-1) * inputs.mask
    score = largest / (largest.sum(1, keepdim=True) + EPSILON)
    return torch.stack([classes.float() * inputs.mask, received, score]).mean(0) * inputs.mask


def _most_important(weight: Tensor, mask: Tensor, number: Tensor) -> Tensor:
    """Return which tokens are among the `number` [batch] most important ones of their sample, bool [batch, longest]."""
    order = weight.masked_fill(~mask, float("-inf")).argsort(dim=1, descending=True)
    rank = torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    return (torch.zeros_like(order).scatter(1, order, rank) < number[:, None]) & mask


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: ReleasedParameters) -> np.ndarray:
    """Return the multiply-adds of each atom's mean importance."""
    return tokens * sizes.atoms
