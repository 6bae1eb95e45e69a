"""The variants of the benchmark run what they are named after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from examples.bench import token_plans, variants
from examples.bench.cases import BLIP
from examples.bench.variants import Variant
from madtp_cli.evaluation import sample_costs, timing
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from tests.examples.bench.conftest import CPU, SHARES


def test_every_run_uses_another_plan(model, batch) -> None:
    """With a repeated plan, all tensor shapes would be compiled already; all variants of a budget take turns alike."""
    dense = variants.dense_counts(model, batch, CPU)
    pruned, padded, uniform = variants.variants(model, dense, {0.6: SHARES}, 3, compare=True)[2:]
    plans = list(pruned.plans)
    assert len({left.tobytes() for left in plans}) == 3
    for variant, make in ((padded, token_plans.padded_plan), (uniform, token_plans.uniform_plan)):
        assert all(np.array_equal(own, make(left)) for own, left in zip(variant.plans, plans, strict=True))
    for left in [*plans, plans[0]]:
        with torch.inference_mode():
            trace = pruned(**batch).trace
        assert np.array_equal(token_plans.stages(sample_costs.counts_of(model, trace)["vision"]), left)


def test_tokens_of_a_model_with_random_weights_differ(small_blip) -> None:
    """With the default embeddings of transformers, all tokens but [CLS] are equal and no rule can choose."""
    model: Any = variants.build_model(BLIP)
    tokens = model.vision_model.embeddings(variants.scene_batch(model, 1)["pixel_values"][0])
    assert tokens[:, 1:].std(1).mean() > 0.01


def test_stock_blip_gives_the_same_output_as_ours(model, batch) -> None:
    """Otherwise the time of another model would be compared; our own execution is back afterwards."""
    with torch.inference_mode():
        ours, stock = (Variant(model, name)(**batch).logits for name in ("dense", "stock"))
        again = Variant(model, "dense")(**batch).logits
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-4)
    assert torch.equal(again, ours)


def test_stock_clip_is_the_class_of_transformers(
    attached_clip: Callable[..., MadtpClipForRetrieval], captioned, collate
) -> None:
    """It has our weights and gives the same output."""
    clip, batch = attached_clip("madtp", 0.4), inputs_of(collate(captioned))
    with torch.inference_mode():
        ours, stock = Variant(clip, "dense")(**batch), Variant(clip, "stock")(**batch)
    assert type(stock).__module__.startswith("transformers")
    torch.testing.assert_close(stock.logits_per_image, ours.logits, rtol=0, atol=1e-4)


def test_a_variant_can_be_timed_like_a_model(model, batch) -> None:
    """The timing functions of the package accept it; padded images need at least the memory of packed ones.

    The first block, whose tokens all variants have, needs the most memory. With much more tokens in the second block,
    the copies that attention makes of packed tokens would need more in so small a model.
    """
    left = np.stack([np.full((5, 2), 36), *[np.array([[20, 2]] * 5)] * 3])
    packed, padded = (
        Variant(model, "pruned", 0.5, [left]),
        Variant(model, "padded", 0.5, [token_plans.padded_plan(left)]),
    )
    by_name: Any = {str(variant): variant for variant in (packed, padded)}
    seconds = timing.in_turns(by_name, [batch], CPU, 2)
    assert {name: len(runs) for name, runs in seconds.items()} == dict.fromkeys(by_name, 2)
    peaks = [timing.peak_memory(variant, batch, CPU) or 0 for variant in by_name.values()]
    assert sum(weight.nbytes for weight in model.parameters()) < peaks[0] <= peaks[1]
