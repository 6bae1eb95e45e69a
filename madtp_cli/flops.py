"""What a forward costs: the closed formula on token counts; `witness` lets fvcore count the same.

Literature's convention, which is fvcore's: one multiply-add counts once, a layer norm five
per element; softmax, activations, additions and look-ups count nothing. The dictionary and
the method's own products are part of a pruned model's cost; taking the attention statistics
needs no multiply-add beyond attention's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from madtp_cli import methods
from madtp_cli.models.blip import MadtpBlipConfig, MadtpBlipForNLVR2
from madtp_cli.models.encoder import BlockTrace, TokenTrace

CONVENTION = "multiply-adds (fvcore convention)"


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of every sample through every block of one tower.

    `entered` and `left` are [blocks, samples, inputs]: an NLVR2 sample has two images and one
    sentence. `scored` [blocks] says where pruning was tried, for trying costs too.
    """

    entered: np.ndarray
    left: np.ndarray
    scored: np.ndarray

    @classmethod
    def of(cls, blocks: list[BlockTrace], inputs: int) -> TokenCounts:
        """From a forward's record; inputs of one kind lie together ([left images, right images])."""
        entered, left = (
            np.array(counts).reshape(len(blocks), inputs, -1).transpose(0, 2, 1)
            for counts in ([block.entered for block in blocks], [block.left for block in blocks])
        )
        return cls(entered, left, np.array([block.scored for block in blocks]))

    @classmethod
    def dense(cls, tokens: np.ndarray, blocks: int) -> TokenCounts:
        """All `tokens` [samples, inputs] through all blocks."""
        counts = np.broadcast_to(tokens, (blocks, *tokens.shape))
        return cls(counts, counts, np.zeros(blocks, bool))

    @classmethod
    def least(cls, tokens: np.ndarray, blocks: int, pruned: np.ndarray, keep: int) -> TokenCounts:
        """At a knob of infinity: each block with `pruned` leaves the pinned token and `keep` others."""
        entered, left, current = [], [], tokens
        for block in range(blocks):
            entered.append(current)
            floor = np.minimum(current, 1 + keep)
            current = floor if pruned[block] else current
            left.append(current)
        return cls(np.array(entered), np.array(left), pruned)

    @classmethod
    def joined(cls, parts: list[TokenCounts]) -> TokenCounts:
        """Samples of several batches."""
        return cls(
            np.concatenate([part.entered for part in parts], 1),
            np.concatenate([part.left for part in parts], 1),
            parts[0].scored,
        )


#: Token counts by tower.
Counts = Mapping[str, TokenCounts]


@dataclass(frozen=True)
class LayerCost:
    """Multiply-adds of one layer, [samples]."""

    tower: str
    name: str
    flops: np.ndarray


def counts_of(trace: TokenTrace) -> dict[str, TokenCounts]:
    """Token counts by tower from an NLVR2 forward's trace."""
    return {tower: TokenCounts.of(blocks, 2 if tower == "vision" else 1) for tower, blocks in trace.items()}


def image_tokens(config: MadtpBlipConfig) -> int:
    """Tokens of a dense image, [CLS] included."""
    vision = config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + 1


def dense_counts(config: MadtpBlipConfig, text_tokens: Iterable[int]) -> dict[str, TokenCounts]:
    """Counts of the dense model for sentences of these lengths, one sample each."""
    lengths = np.array(list(text_tokens))[:, None]
    images = np.full((len(lengths), 2), image_tokens(config))
    return {
        "vision": TokenCounts.dense(images, config.vision_config.num_hidden_layers),
        "text": TokenCounts.dense(lengths, config.text_config.num_hidden_layers),
    }


def least_counts(model: MadtpBlipForNLVR2, text_tokens: Iterable[int]) -> dict[str, TokenCounts]:
    """Counts of a model with a dictionary at a knob of infinity, the floor of its cost."""
    settings = model.pruning
    if settings is None:
        raise ValueError("a dense model has no knob")
    endless = replace(settings, knob=float("inf"))
    keep = settings.min_keep + methods.get(settings.method).MERGED_TOKENS
    counts = {}
    for tower, dense in dense_counts(model.config, text_tokens).items():
        blocks = len(dense.entered)
        pruned = np.array([endless.rule(tower, block) is not None for block in range(blocks)])
        counts[tower] = TokenCounts.least(dense.entered[0], blocks, pruned, keep)
    return counts


def blip_nlvr2(config: MadtpBlipConfig, counts: Counts) -> list[LayerCost]:
    """Cost of each layer for a pair of images and its sentence, per sample."""
    vision, text = config.vision_config, config.text_config
    pruning = config.madtp or {}
    images, words = counts["vision"], counts["text"]
    width, side = vision.hidden_size, vision.patch_size
    patches = images.entered[0] - 1
    costs = [LayerCost("vision", "patches", _sum(patches * 3 * side**2 * width))]
    for block, (n, m) in enumerate(zip(images.entered, images.left, strict=True)):
        cost = _self_attention(n, width) + 5 * n * width + _pruning(n, width, pruning) * images.scored[block]
        cost = cost + 5 * m * width + 2 * m * width * vision.intermediate_size
        costs.append(LayerCost("vision", f"layer {block}", _sum(cost)))
    seen = images.left[-1]
    costs.append(LayerCost("vision", "final norm", _sum(5 * seen * width)))
    costs.append(LayerCost("text", "embeddings", _sum(5 * words.entered[0] * text.hidden_size)))
    for block, (n, m) in enumerate(zip(words.entered, words.left, strict=True)):
        cost = _self_attention(n, text.hidden_size) + 5 * n * text.hidden_size
        cost = cost + _pruning(n, text.hidden_size, pruning) * words.scored[block]
        cost = cost + 2 * m * text.hidden_size * text.intermediate_size + 5 * m * text.hidden_size
        cross = _twin_cross_attention(m, seen, text.hidden_size, width, merges=block >= config.merge_from)
        costs.append(LayerCost("text", f"layer {block}", _sum(cost) + cross))
    head = text.hidden_size**2 + 2 * text.hidden_size
    return [*costs, LayerCost("head", "classifier", np.full(len(seen), head))]


def _sum(per_input: np.ndarray) -> np.ndarray:
    return per_input.sum(-1)


def _self_attention(n: np.ndarray, width: int) -> np.ndarray:
    """Query, key, value, output projections and the two products of the attention itself."""
    return 4 * n * width**2 + 2 * n**2 * width


def _pruning(n: np.ndarray, width: int, pruning: Mapping[str, Any]) -> np.ndarray:
    """Dictionary logits of all tokens but the pinned, and the method's own."""
    if not pruning:
        return np.zeros_like(n)
    atoms = pruning["dictionary_size"]
    return (n - 1) * width * atoms + methods.get(pruning["method"]).cost(n - 1, width, atoms)


def _twin_cross_attention(m: np.ndarray, seen: np.ndarray, width: int, image_width: int, *, merges: bool) -> np.ndarray:
    """Text tokens `m` [samples, 1] look at image tokens `seen` [samples, 2]."""
    queries = 2 * m * width**2  # per image: query and output projections
    looks = queries + 2 * seen * image_width * width + 2 * m * seen * width
    return _sum(looks) + _sum((2 * width**2 * merges + 5 * width) * m)


def total(costs: list[LayerCost], tower: str | None = None) -> np.ndarray:
    """Multiply-adds per sample, [samples], of all layers or of one tower's."""
    return np.sum([cost.flops for cost in costs if tower in (None, cost.tower)], axis=0)
