"""Padded tokens: every model's forward on them gives what it gives on packed ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madtp_cli import methods, models
from madtp_cli.execution.block_pruner import BlockTrace
from madtp_cli.execution.padded import Padded, counts_of, pad
from madtp_cli.exporters._random_inputs import random_inputs
from madtp_cli.exporters._tracing import named_outputs
from madtp_cli.models.prunable import Prunable
from tests import decoding, drawing, retrieving

SMALL: dict[str, Callable[[], Prunable]] = {
    "blip.vqa": decoding.vqa,
    "blip.caption": decoding.captioner,
    "blip.retrieval": retrieving.dense,
}


@pytest.fixture(scope="module")
def small(blip, clip) -> dict[str, Prunable]:
    """A dense model of every kind, vision 3 x 48 at 37 tokens."""
    return {"blip.nlvr2": blip, "clip.retrieval": clip} | {kind: make() for kind, make in SMALL.items()}


def both_ways(model: Prunable, inputs: dict[str, torch.Tensor]) -> tuple[Any, Any]:
    """The forward's output on packed tokens and on padded ones."""
    with torch.no_grad():
        packed = model(**inputs)
        model.padded = True
        try:
            return packed, model(**inputs)
        finally:
            model.padded = False


def lengths(blocks: list[BlockTrace]) -> list[list[int]]:
    """Tokens of each sample that left each block."""
    return [counts_of(block.left).tolist() for block in blocks]


def test_every_kind_has_a_small_model(small) -> None:
    """A model that is new shall not go unseen by what follows."""
    assert sorted(small) == models.kinds()


@pytest.mark.parametrize("kind", models.kinds())
@settings(max_examples=12)  # each runs a model of three blocks twice
@given(st.sampled_from(methods.names()), st.sampled_from([0.0, 0.4, 0.8]), st.sampled_from([0, 5]), st.booleans(),
       st.integers(1, 3), st.integers(1, 4), st.integers(0, 10_000))  # fmt: skip
def test_padded_tokens_give_what_packed_ones_give(
    small, kind, method, threshold_scale, queries, proportional, min_keep, samples, seed
) -> None:
    """What is exported is the model: ragged texts, every method, every way to attend and to score, in all towers."""
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
    """Else what was pruned would still be computed."""
    model = drawing.attached(small["clip.retrieval"], 0.3)
    model.padded = True
    with torch.no_grad():
        tokens: Any = model.encode_images(random_inputs(model, 3, 5, seed=1)["pixel_values"], model.pruner("vision"))
    counts = tokens.lengths.counts
    assert tokens.data.shape[:2] == (3, counts.max())
    assert counts.min() < counts.max() < 37


def test_a_mask_may_leave_out_any_tokens() -> None:
    """Texts padded on the left are read as packed ones are: what is real moves to the front, in order."""
    block = torch.arange(8.0).view(2, 4, 1)
    tokens = pad(block, torch.tensor([[0, 1, 0, 1], [0, 0, 1, 1]]))
    assert tokens.data.flatten().tolist() == [1.0, 3.0, 6.0, 7.0]
    assert tokens.lengths.counts.tolist() == [2, 2]


def test_first_last_and_part() -> None:
    """As of packed tokens, whatever stands behind a sample's own."""
    tokens: Padded = pad(torch.arange(6.0).view(2, 3, 1), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert tokens.first().flatten().tolist() == [0.0, 3.0]
    assert tokens.last().flatten().tolist() == [1.0, 5.0]
    assert tokens.part(slice(1, None)).last().tolist() == [[5.0]]


def test_packed_and_padded_tokens_do_not_mix(small) -> None:
    """Their shapes differ, and a sum over the wrong axis would be silent."""
    model = copy.deepcopy(small["blip.caption"])
    inputs = random_inputs(model, 2, 5, seed=1)
    with torch.no_grad():
        memory = model(**inputs).memory
        model.padded = True
        with pytest.raises(TypeError, match="packed tokens cannot attend to padded"):
            model.decode(inputs["input_ids"], None, memory, model.decoder_pruner())
