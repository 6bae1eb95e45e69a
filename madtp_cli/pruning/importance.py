"""Token importance: the mean of class attention, received attention and dictionary attention.

Before the first block no attention is known yet; the importance is then the dictionary attention alone.

Each score is non-negative and sums to one over the prunable tokens of a sample. So no score outweighs another, and a
threshold has the same meaning at any number of tokens.

Source: MADTP, arXiv:2403.02991, section on dynamic token pruning.
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(score: Tensor, mask: Tensor) -> Tensor:
    """Divide a non-negative score by its sum over each sample; the result is 0 where the mask is false.

    Args:
        score: [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.

    >>> normalise(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.25, 0.75, 0.0]]
    """
    score = score.float() * mask
    total = score.sum(1, keepdim=True)
    # If all scores of a sample are zero, all its tokens are equally important.
    equal = mask / mask.sum(1, keepdim=True).clamp_min(1)
    return torch.where(total > 0, score / total.clamp_min(1e-30), equal)


def class_attention(read_out: Tensor, output: Tensor) -> Tensor:
    """Return the attention of the read-out token to each token as one score, [...]; `normalise` it afterwards.

    Args:
        read_out: Attention probabilities of the read-out token, [..., heads].
        output: Attention output of each token, [..., heads, head width]. A head's weight for a token is the norm of
            the head's output for that token.
    """
    norms = output.float().norm(dim=-1)
    weights = norms / norms.sum(-1, keepdim=True).clamp_min(1e-30)
    return (read_out.float() * weights).sum(-1)


def dictionary_score(attention: Tensor, mask: Tensor) -> Tensor:
    """Return the attention of the atom that attends most to each token, [batch, longest], normalised.

    Args:
        attention: From `mag.dictionary_attention`, [batch, longest, atoms].
        mask: bool [batch, longest]; true for prunable tokens.
    """
    return normalise(attention.amax(-1), mask)


def token_importance(
    class_attention: Tensor | None, received_attention: Tensor | None, attention: Tensor, mask: Tensor
) -> Tensor:
    """Return the token importance score: the mean of the scores that are known, [batch, longest].

    Args:
        class_attention: Normalised, [batch, longest]; None before the first block.
        received_attention: Normalised, [batch, longest]; None before the first block.
        attention: From `mag.dictionary_attention`, [batch, longest, atoms].
        mask: bool [batch, longest]; true for prunable tokens.
    """
    known = [score for score in (class_attention, received_attention) if score is not None]
    return torch.stack([*known, dictionary_score(attention, mask)]).mean(0)
