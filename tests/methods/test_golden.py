"""tome, pitome and evit give the numbers of their authors' code; see the README of the golden data for the cases."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.methods import BlockInputs, Rule, evit
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.pruning import bipartite_matching, energy, merging, ranking
from tests.paths import GOLDEN

#: The golden files were computed with another version of torch on another processor.
TOLERANCE: Any = dict(rtol=0, atol=5e-5)


def cases(name: str) -> dict[str, Any]:
    """Return the parameters of a golden folder."""
    return json.loads((GOLDEN / name / "info.json").read_text(encoding="utf-8"))


def tensors(folder: str, file: str, case: str) -> dict[str, Tensor]:
    """Return the tensors of one case, without the name of the case."""
    found = load_file(GOLDEN / folder / f"{file}.safetensors")
    return {name.removeprefix(f"{case}/"): value for name, value in found.items() if name.startswith(f"{case}/")}


def require_same_groups(goes_to: Tensor, group: Tensor, protected: int) -> None:
    """Check that the prunable tokens form the same groups as in the original, whose order of tokens may differ."""
    own = group[:, protected:]
    assert torch.equal(own.gather(1, goes_to), own)
    kept = (goes_to == torch.arange(goes_to.shape[1])).sum(1)
    assert (kept == group.max() + 1 - protected).all()


def require_same_means(x: Tensor, goes_to: Tensor, sizes: Tensor, expected: dict[str, Tensor], protected: int) -> None:
    """Check the merged tokens: means weighted by the sizes, and the new sizes."""
    mask = torch.ones_like(goes_to, dtype=torch.bool)
    places, _ = merging.moves(merging.PruneDecision(goes_to, sizes), mask).places()
    longest = int(places.max()) + 1
    group = expected["group"][:, protected:, None]
    means = merging.padded_means(x[:, protected:], sizes, places, longest)
    golden = expected["merged"].gather(1, group.expand(-1, -1, x.shape[2]))
    torch.testing.assert_close(means.gather(1, places[:, :, None].expand(golden.shape)), golden, **TOLERANCE)
    summed = merging.padded_sums(sizes, places, longest).gather(1, places)
    torch.testing.assert_close(summed, expected["size"].gather(1, group)[:, :, 0], **TOLERANCE)


def sizes_of(given: dict[str, Tensor], protected: int) -> Tensor:
    """Return the sizes of the prunable tokens; without sizes each is 1."""
    return given.get("size", torch.ones_like(given["x"][:, :, :1]))[:, protected:, 0]


def protected_tokens(case: dict[str, Any]) -> int:
    """Return the number of protected tokens: the class token and the distillation token."""
    return int(case["class_token"]) + int(case.get("distill_token", False))


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("name", cases("tome_a")["functions"])
def test_tome_matches_as_its_authors_do(name: str, exportable: bool) -> None:
    """Groups, means and sizes, also where fewer pairs are possible than asked for."""
    case, given, expected = (
        cases("tome_a")["functions"][name],
        tensors("tome_a", "inputs", name),
        tensors("tome_a", "outputs", name),
    )
    protected = protected_tokens(case)
    metric = given["metric"][:, protected:]
    mask = torch.ones(metric.shape[:2], dtype=torch.bool)
    order = torch.arange(mask.shape[1]).expand(mask.shape)
    number = torch.full((len(mask),), case["r"]).clamp_max(mask.shape[1] // 2)
    found = bipartite_matching.match(metric, order, mask, number, first_in_a=protected % 2 == 0, exportable=exportable)
    require_same_groups(found.goes_to, expected["group"], protected)
    require_same_means(given["x"], found.goes_to, sizes_of(given, protected), expected, protected)


def test_tome_keeps_its_order_over_several_merges() -> None:
    """The sets alternate in the order that the last merge gave, not in the order of the tokens."""
    case = cases("tome_a")["chains"]["chain65"]
    given, expected = tensors("tome_a", "inputs", "chain65"), tensors("tome_a", "outputs", "chain65")
    tokens, goes_to_now = given["x"][:, 1:], torch.arange(64).expand(2, 64)
    order, sizes = torch.arange(64).expand(2, 64), torch.ones(2, 64)
    for step, number in enumerate(case["r"]):
        mask = torch.ones(order.shape, dtype=torch.bool)
        # The golden metric is in the order of the original's tokens, and so are ours if sorted by it.
        rank = ranking.ranks(-order, mask)
        metric = given[f"{step}.metric"][:, 1:].gather(1, rank[:, :, None].expand(-1, -1, 16))
        found = bipartite_matching.match(metric, order, mask, torch.full((2,), number))
        places, _ = merging.moves(merging.PruneDecision(found.goes_to, sizes), mask).places()
        longest = int(places.max()) + 1
        kept = found.goes_to == torch.arange(places.shape[1])
        tokens = merging.padded_means(tokens, sizes, places, longest)
        sizes = merging.padded_sums(sizes, places, longest)
        order = torch.stack([row[is_kept] for row, is_kept in zip(found.order, kept, strict=True)])
        goes_to_now = places.gather(1, goes_to_now)
        rank = ranking.ranks(-order, torch.ones(order.shape, dtype=torch.bool))
        assert torch.equal(rank.gather(1, goes_to_now) + 1, expected[f"{step}.group"][:, 1:])
    golden = expected["2.merged"].gather(1, 1 + rank[:, :, None].expand(-1, -1, tokens.shape[2]))
    torch.testing.assert_close(tokens, golden, **TOLERANCE)


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize(
    "name", [name for name, case in cases("pitome_a")["functions"].items() if case["variant"] == "pitome"]
)
def test_pitome_merges_as_its_authors_do(name: str, exportable: bool) -> None:
    """Energy, order, number of pairs, groups, means and sizes."""
    case, given, expected = (
        cases("pitome_a")["functions"][name],
        tensors("pitome_a", "inputs", name),
        tensors("pitome_a", "outputs", name),
    )
    protected = protected_tokens(case)
    cosine = energy.cosines(given["metric"][:, protected:])
    mask = torch.ones(cosine.shape[:2], dtype=torch.bool)
    values = energy.energy(cosine, mask, case["margin"], case["alpha"])
    torch.testing.assert_close(values, expected["energy"], **TOLERANCE)
    assert torch.equal(ranking.inverse(ranking.ranks(values, mask, exportable=exportable)), expected["order"])
    pairs = energy.merged_pairs(mask, case["ratio"], min_keep=1)
    assert pairs.tolist() == [case["r_used"]] * case["batch"]
    goes_to = energy.join_pairs(cosine, values, mask, pairs, exportable=exportable)
    require_same_groups(goes_to, expected["group"], protected)
    require_same_means(given["x"], goes_to, sizes_of(given, protected), expected, protected)


@pytest.mark.parametrize("exportable", [False, True])
@pytest.mark.parametrize("name", [name for name, case in cases("evit_a")["blocks"].items() if case["fuse_token"]])
def test_evit_fuses_as_its_authors_do(name: str, exportable: bool) -> None:
    """The kept tokens and the fused token, whose weights do not sum to one."""
    case, expected = cases("evit_a")["blocks"][name], tensors("evit_a", "outputs", name)
    tokens = (tensors("evit_a", "inputs", name)["x"] + expected["attention_out"])[:, 1:]
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    # A little more than the left tokens, because the share is rounded up.
    scale = 0.0 if case["left_tokens"] == mask.shape[1] else mask.shape[1] / (case["left_tokens"] - 0.5) - 1
    inputs = BlockInputs(
        mask,
        tokens,
        lambda values: values,
        mean_class_attention=expected["class_attention"] if scale else torch.zeros_like(mask, dtype=torch.float32),
        exportable=exportable,
    )
    decision = evit.keep(inputs, Rule(scale, 1))
    moves = merging.moves(decision, mask)
    kept = [row.nonzero().flatten().tolist() for row in moves.kept]
    if not scale:
        assert kept == [list(range(mask.shape[1]))] * len(mask)
        return
    assert kept == [sorted(row.tolist()) for row in expected["topk"]]
    longest = case["left_tokens"] + 1
    made = merging.padded_means(tokens, decision.weights, moves.places()[0], longest, averaged=False)
    fused = made.gather(
        1, moves.places()[0].gather(1, expected["complement"][:, :1])[:, :, None].expand(-1, -1, tokens.shape[2])
    )
    torch.testing.assert_close(fused, expected["fused_token"], **TOLERANCE)


@pytest.fixture(scope="module")
def small() -> Any:
    """Return a function that builds the golden vision transformer with a method in it."""

    def build(folder: str, settings: PruningSettings) -> MadtpBlipForNLVR2:
        vision = dict(hidden_size=48, intermediate_size=192, num_hidden_layers=4, num_attention_heads=3)
        text = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
        config = MadtpBlipConfig(
            vision_config=vision | dict(image_size=64, patch_size=8, layer_norm_eps=1e-6),
            text_config=text,
        )
        model = MadtpBlipForNLVR2(config).eval()
        model.vision_model.load_state_dict(renamed(load_file(GOLDEN / folder / "model.safetensors")))
        model.attach(settings)
        return model

    return build


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with timm's names under transformers' names."""
    names = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        "patch_embed.proj.": "embeddings.patch_embedding.",
        "blocks.": "encoder.layers.",
        "norm1.": "layer_norm1.",
        "norm2.": "layer_norm2.",
        "attn.qkv.": "self_attn.qkv.",
        "attn.proj.": "self_attn.projection.",
    }
    result = {}
    for name, value in weights.items():
        if name.startswith("head."):
            continue
        name = "post_layernorm." + name.removeprefix("norm.") if name.startswith("norm.") else name
        for old, new in names.items():
            name = name.replace(old, new)
        result[name] = value
    return result


RUNS = {
    # The scale that merges an eighth of 64 tokens, that keeps nine tenths, and that keeps each block's share.
    "tome_a/prop": PruningSettings("tome", 1 / 7 * (1 + 1e-9), scales={"vision": [1.0] * 4}),
    "tome_a/plain": PruningSettings(
        "tome", 1 / 7 * (1 + 1e-9), scales={"vision": [1.0] * 4}, parameters={"proportional": False}
    ),
    "pitome_a/pitome": PruningSettings("pitome", 1 / 9, scales={"vision": [1.0, 1.0, 1.0, 0.0]}),
    "evit_a/fuse": PruningSettings("evit", 1.0, scales={"vision": [0.0, 1 / 0.7 - 1, 0.0, 1 / 0.6 - 1]}),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_whole_model_gives_the_numbers_of_the_authors_code(run: str, padded: bool, small: Any) -> None:
    """In the packed engine and in the padded one that exporters trace: the last tokens and the class token."""
    folder, name = run.split("/")
    model = small(folder, RUNS[run])
    model.padded = padded
    expected = tensors(folder, "model_outputs", name)
    pixels = load_file(GOLDEN / folder / "model_inputs.safetensors")["pixel_values"].float()
    pruner = model.pruner("vision")
    with torch.no_grad():
        found = model.encode_images(pixels, pruner)
        last = expected.get("out", model.vision_model.post_layernorm(expected["block.3"]))
    tokens = found.data if padded else found.data.unflatten(0, (len(pixels), -1))
    assert tokens.shape == last.shape
    torch.testing.assert_close(tokens[:, 0], last[:, 0], **TOLERANCE)
    for own, golden in zip(tokens, last, strict=True):  # the original's order differs, so the nearest are compared
        nearest = torch.cdist(own, golden).min(1).indices
        assert sorted(nearest.tolist()) == list(range(len(golden)))
        torch.testing.assert_close(own, golden[nearest], **TOLERANCE)
