"""Token importance score: the mean of three scores and the threshold made from it.

Each score is non-negative and sums to one over a sample's prunable tokens, so that no
score outweighs another and a threshold means the same at any number of tokens. Everything
is float32: at 577 tokens bfloat16 cannot tell neighbouring scores apart.

Source: MADTP, arXiv:2403.02991, section on dynamic token pruning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from madtp_cli.pruning import segments


def normalise(score: Tensor, lengths: Sequence[int]) -> Tensor:
    """Divide each segment of a non-negative score by its sum.

    >>> normalise(torch.tensor([1.0, 3.0, 5.0]), [2, 1]).tolist()
    [0.25, 0.75, 1.0]
    """
    padded = segments.pad(score.float(), lengths)
    total = padded.sum(1, keepdim=True)
    # A sample nobody looked at (all zero) counts all its tokens alike.
    even = 1 / torch.tensor(lengths, device=score.device)[:, None]
    return segments.unpad(torch.where(total > 0, padded / total.clamp_min(1e-30), even), lengths)


def class_attention(readout: Tensor, output: Tensor) -> Tensor:
    """Attention of the read-out token to each token, [total]; to be normalised over the tokens that count.

    Args:
        readout: Attention probabilities of the read-out token's row, [total, heads].
        output: Attention output of each token, [total, heads, head width]; a head counts
            for a token as much as the norm of what it gives to it.
    """
    norms = output.float().norm(dim=-1)
    weights = norms / norms.sum(-1, keepdim=True).clamp_min(1e-30)
    return (readout.float() * weights).sum(-1)


def dictionary_attention(logits: Tensor, lengths: Sequence[int], temperature: float) -> Tensor:
    """Each atom's attention over a sample's tokens, padded: [batch, longest, size]."""
    return segments.pad(logits.float() / temperature, lengths, float("-inf")).softmax(1)


def dictionary_score(attention: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attention of the atom that attends most to each token, [total], from `dictionary_attention`."""
    return normalise(segments.unpad(attention.amax(-1), lengths), lengths)


def pruning_threshold(attention: Tensor, importance: Tensor, lengths: Sequence[int], threshold_scale: float) -> Tensor:
    """Lowest importance worth keeping, [batch]: the knob times the least of the atoms' mean importance.

    Args:
        attention: From `dictionary_attention`, [batch, longest, size].
        importance: Token importance score, [total].
        lengths: Prunable tokens of each sample.
        knob: Budget knob s, 0 or more; 0 keeps everything.
    """
    seen = segments.pad(importance, lengths)[:, None, :] @ attention
    return threshold_scale * seen.squeeze(1).amin(-1)
