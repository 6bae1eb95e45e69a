"""Padded tokens: every model gives the same results as on packed tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madtp_cli import methods, models
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.padded import Padded, counts_of, pad
from madtp_cli.exporters._random_inputs import random_inputs
from madtp_cli.exporters._tracing import named_outputs
from madtp_cli.models.prunable import Prunable
from tests import decoding, drawing, encoders, querying, retrieving, siglips, vilts

SMALL: dict[str, Callable[[], Prunable]] = {
    "blip.vqa": decoding.vqa,
    "blip.caption": decoding.captioner,
    "blip.retrieval": retrieving.dense,
    "blip2.retrieval": querying.dense,
    "siglip.retrieval": siglips.dense,
    "vilt.nlvr2": partial(vilts.dense, "nlvr2"),
    "vilt.vqa": partial(vilts.dense, "vqa"),
}


@pytest.fixture(scope="module")
def small(blip, clip) -> dict[str, Prunable]:
    """Return a dense model of every kind, vision 3 x 48 at 37 tokens."""
    made = {"blip.nlvr2": blip, "clip.retrieval": clip} | {kind: make() for kind, make in SMALL.items()}
    shared = {
        f"{family}.{task}": encoders.for_task(made[f"{family}.retrieval"], task)
        for family in ("clip", "siglip")
        for task in ("classification", "embedding")
    }
    return made | shared


def both_ways(model: Prunable, inputs: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """Return the outputs of the forward pass on packed and on padded tokens."""
    with torch.no_grad():
        packed = model(**inputs)
        model.padded = True
        try:
            return packed, model(**inputs)
        finally:
            model.padded = False


def lengths(blocks: list[BlockTrace]) -> list[list[int]]:
    """Return the tokens of each sample after each block."""
    return [counts_of(block.left).tolist() for block in blocks]


def test_every_kind_has_a_small_model(small) -> None:
    """The next test covers every model, also a new one."""
    assert sorted(small) == models.kinds()


@pytest.mark.parametrize("kind", models.kinds())
@settings(max_examples=12)  # each runs a model of three blocks twice
@given(st.sampled_from(methods.names()), st.sampled_from([0.0, 0.4, 0.8]), st.sampled_from([0, 5]), st.booleans(),
       st.integers(1, 3), st.integers(1, 4), st.integers(0, 10_000))  # fmt: skip
def test_padded_tokens_give_what_packed_ones_give(
    small, kind, method, threshold_scale, queries, proportional, min_keep, samples, seed
) -> None:
    """For ragged texts, every method and every setting, in all towers: exporters trace the padded forward."""
    rule = dict(method=method, queries=queries, proportional=proportional, min_keep=min_keep)
    model = drawing.attached(small[kind], threshold_scale, **rule)
    inputs = random_inputs(model, samples, 12, seed)
    packed, padded = both_ways(model, inputs)
    for tower, blocks in packed.trace.items():
        assert lengths(padded.trace[tower]) == lengths(blocks)
    for name, expected in named_outputs(model, packed).items():
        found = named_outputs(model, padded)[name]
        if found.dim() > expected.dim():  # a decoder's
            mask = inputs.get("decoder_attention_mask", inputs["attention_mask"])
            found = found[mask[:, : found.shape[1]].bool()]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_block_is_as_long_as_its_largest_sample(small) -> None:
    """Otherwise pruned tokens would still be computed."""
    model = drawing.attached(small["clip.retrieval"], 0.3)
    model.padded = True
    with torch.no_grad():
        tokens: Any = model.encode_images(random_inputs(model, 3, 5, seed=1)["pixel_values"], model.pruner("vision"))
    counts = tokens.lengths.counts
    assert tokens.data.shape[:2] == (3, counts.max())
    assert counts.min() < counts.max() < 37


def test_a_mask_may_leave_out_any_tokens() -> None:
    """Real tokens move to the front and keep their order, as in texts padded on the left."""
    block = torch.arange(8.0).view(2, 4, 1)
    tokens = pad(block, torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]))
    assert tokens.data.flatten().tolist() == [1.0, 3.0, 6.0, 7.0]
    assert tokens.lengths.counts.tolist() == [2, 2]


def test_first_last_and_part() -> None:
    """They ignore the padding, as those of packed tokens."""
    tokens: Padded = pad(torch.arange(6.0).view(2, 3, 1), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert tokens.first().flatten().tolist() == [0.0, 3.0]
    assert tokens.last().flatten().tolist() == [1.0, 5.0]
    assert tokens.part(slice(1, None)).last().tolist() == [[5.0]]


def test_packed_and_padded_tokens_do_not_mix(small) -> None:
    """Their shapes differ, and a sum over a wrong axis would go unnoticed."""
    model = copy.deepcopy(small["blip.caption"])
    inputs = random_inputs(model, 2, 5, seed=1)
    with torch.no_grad():
        memory = model(**inputs).memory
        model.padded = True
        with pytest.raises(TypeError, match="packed tokens cannot attend to padded"):
            model.decode(inputs["input_ids"], None, memory, model.decoder_pruner())


def test_protected_tokens_follow_the_real_ones() -> None:
    """The mask moves with the tokens; padding is never protected."""
    block = torch.arange(8.0).view(2, 4, 1)
    protected = torch.tensor([[True, True, False, False], [True, False, False, True]])
    tokens = pad(block, torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]), protected=protected)
    assert tokens.protected is not None
    assert tokens.protected.tolist() == [[True, False], [False, True]]
    ends = tokens.protect_ends(first=True, last=True).protected
    assert ends is not None
    assert ends.tolist() == [[True, True], [True, True]]
