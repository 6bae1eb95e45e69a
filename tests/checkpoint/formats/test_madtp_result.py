"""Result files of the released MADTP code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from madtp_cli.checkpoint import formats, inspection, loading
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.reading import read


def _host(found: Recognised) -> Recognised:
    """Return the model without pruning, which transformers can build."""
    weights = {key: value for key, value in found.weights.items() if not key.startswith("madtp.")}
    config = {name: value for name, value in found.config.items() if name != "madtp"}
    return dataclasses.replace(found, weights=weights, config=config)


def test_dense_logits_equal_those_of_the_original(
    golden: Path, overrides: CheckpointOverrides, compared_logits: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """At temperature 0 the original code prunes nothing, so it is a plain BLIP."""
    found = inspection.recognise(golden / "madtp_nlvr_a/checkpoint.pth", overrides)
    model = loading.build(found)
    assert model.pruning is not None
    model.attach(dataclasses.replace(model.pruning, threshold_scale=0.0))
    ours, original = compared_logits(model, "madtp_nlvr_a")
    torch.testing.assert_close(ours, original, rtol=0, atol=1e-4)


def test_the_dictionary_is_among_the_weights(golden: Path, overrides: CheckpointOverrides) -> None:
    """BLIP files have no projection to it, so ours is the identity."""
    found = inspection.recognise(golden / "madtp_nlvr_a/checkpoint.pth", overrides)
    source = read(golden / "madtp_nlvr_a/checkpoint.pth")
    assert torch.equal(found.weights["madtp.dictionary"], source.weights["space_dict"])
    assert torch.equal(found.weights["madtp.projections.text.weight"], torch.eye(48))
    assert "temperature 3 " in found.notes[0]
    assert "24 atoms of width 48" in found.notes[0]


@pytest.mark.parametrize(
    ("stated", "scale", "note"),
    [({"temperature": 2}, 1.0, "temperature 2 "), ({"temperature": 0}, 0.0, "temperature 0,"), ({}, 0.0, "no temper"),
     ({"temperature": float("nan")}, 0.0, "no temper"), ({"temperature": "high"}, 0.0, "no temper")],
)  # fmt: skip
def test_without_a_usable_temperature_nothing_is_pruned(
    inventory: Callable[[str], Source], stated: dict[str, Any], scale: float, note: str
) -> None:
    """The dictionary stays, so a compression can start from it."""
    source = dataclasses.replace(inventory("madtp_nlvr_base"), extras=stated)
    found = formats.recognise(source, CheckpointOverrides())
    assert found.config["madtp"]["threshold_scale"] == scale
    assert note in found.notes[0]
    assert "madtp.dictionary" in found.weights


def test_a_dictionary_of_another_width_is_left_out(inventory: Callable[[str], Source]) -> None:
    """The released code cannot run its large BLIP: the tower is wider than the dictionary."""
    source = inventory("madtp_vqa_base")
    weights = {**source.weights, "space_dict": torch.empty(100, 512, device="meta")}
    found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
    assert "madtp" not in found.config
    assert "width 512, but the vision tower 768" in found.notes[0]


def test_a_missing_projection_of_a_block_is_named(inventory: Callable[[str], Source]) -> None:
    """Without it the block cannot be scored, but the dense weights can be used."""
    source = inventory("madtp_clip_vit_l14_336")
    weights = {key: value for key, value in source.weights.items() if "visual.transformer.resblocks.5.query" not in key}
    found = formats.recognise(dataclasses.replace(source, weights=weights), CheckpointOverrides())
    assert "madtp.projections.vision.5.weight" in found.notes[0]
    assert not [key for key in found.weights if key.startswith("madtp.")]


@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval"])
def test_a_published_model_of_any_task_has_exactly_the_keys_of_its_class(
    inventory: Callable[[str], Source], transformers_model: Callable[[Recognised], Any], task: str
) -> None:
    """MADTP adds only its dictionary to the keys of BLIP."""
    source = inventory(f"madtp_{task}_base")
    found = formats.recognise(source, CheckpointOverrides())
    assert (found.format, found.task, found.refusal) == ("MADTP (Salesforce BLIP)", task, None)
    transformers_model(_host(found))
    own = [key for key in found.weights if key.startswith("madtp.projections.")]
    assert len(found.weights) - len(own) + sum(map(len, found.dropped.values())) == len(source.weights)


def test_a_published_model_for_nlvr2_has_exactly_the_keys_of_its_class(inventory: Callable[[str], Source]) -> None:
    """transformers has no class for this task, so ours is compared."""
    source = inventory("madtp_nlvr_base")
    found = inspection.compare(source.path, formats.recognise(source, CheckpointOverrides()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.format == "MADTP (Salesforce BLIP)"


def test_a_clip_file_of_madtp_is_a_clip(
    inventory: Callable[[str], Source], transformers_model: Callable[[Recognised], Any]
) -> None:
    """It also has momentum copies, queues, and a projection in each block of all four towers."""
    found = formats.recognise(inventory("madtp_clip_vit_l14_336"), CheckpointOverrides())
    assert (found.format, found.task, found.refusal) == ("MADTP (OpenAI CLIP)", "retrieval", None)
    transformers_model(_host(found))
    assert "100 atoms of width 768" in found.notes[0]
    assert len([key for key in found.weights if key.startswith("madtp.projections.")]) == 2 * (24 + 12)
    assert {"text_projection_m", "visual_m.proj"} < set(found.dropped["momentum copies"])
    assert len(found.dropped["queues of the contrastive loss"]) == 4


def test_dense_clip_features_equal_those_of_the_original(
    golden: Path, transformers_model: Callable[[Recognised], Any]
) -> None:
    """The momentum copies have other values, so using one by mistake would change the features."""
    found = formats.recognise(read(golden / "madtp_clip_a/checkpoint.pth"), CheckpointOverrides())
    model = transformers_model(_host(found))
    inputs = load_file(golden / "madtp_clip_a/inputs.safetensors")
    outputs = load_file(golden / "madtp_clip_a/outputs.safetensors")
    with torch.no_grad():
        output = model(inputs["token_ids"], inputs["pixel_values"].float())
    for ours, name in ((output.image_embeds, "image_features"), (output.text_embeds, "text_features")):
        expected = functional.normalize(outputs[f"b4/{name}"], dim=-1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
