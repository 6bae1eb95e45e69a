"""Result files of the released MADTP code."""

from __future__ import annotations

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


def test_dense_logits_equal_those_of_the_original(
    golden: Path, overrides: CheckpointOverrides, compared_logits: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    """At temperature 0 the original code prunes nothing, so it is a plain BLIP."""
    found = inspection.recognise(golden / "madtp_nlvr_a/checkpoint.pth", overrides)
    ours, original = compared_logits(loading.build(found), "madtp_nlvr_a")
    torch.testing.assert_close(ours, original, rtol=0, atol=1e-4)


def test_the_dictionary_is_not_among_the_weights(golden: Path, overrides: CheckpointOverrides) -> None:
    """It belongs to another pruning rule, and the notes say so."""
    path = golden / "madtp_nlvr_a/checkpoint.pth"
    found = inspection.recognise(path, overrides)
    assert "space_dict" not in found.weights
    assert "temperature 3.0" in found.notes[0]
    assert "24 atoms of width 48" in found.notes[0]


@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval"])
def test_a_published_model_of_any_task_has_exactly_the_keys_of_its_class(
    inventory: Callable[[str], Source], transformers_model: Callable[[Recognised], Any], task: str
) -> None:
    """MADTP adds only its dictionary to the keys of BLIP."""
    source = inventory(f"madtp_{task}_base")
    found = formats.recognise(source, CheckpointOverrides())
    assert (found.format, found.task, found.refusal) == ("MADTP (Salesforce BLIP)", task, None)
    transformers_model(found)
    assert len(found.weights) + sum(map(len, found.dropped.values())) == len(source.weights) - 1


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
    transformers_model(found)
    assert "100 atoms of width 768" in found.notes[0]
    assert len(found.dropped["projections of single blocks to the dictionary"]) == 2 * 2 * (24 + 12)
    assert {"text_projection_m", "visual_m.proj"} < set(found.dropped["momentum copies"])
    assert len(found.dropped["queues of the contrastive loss"]) == 4


def test_dense_clip_features_equal_those_of_the_original(
    golden: Path, transformers_model: Callable[[Recognised], Any]
) -> None:
    """The momentum copies have other values, so using one by mistake would change the features."""
    model = transformers_model(formats.recognise(read(golden / "madtp_clip_a/checkpoint.pth"), CheckpointOverrides()))
    inputs = load_file(golden / "madtp_clip_a/inputs.safetensors")
    outputs = load_file(golden / "madtp_clip_a/outputs.safetensors")
    with torch.no_grad():
        output = model(inputs["token_ids"], inputs["pixel_values"].float())
    for ours, name in ((output.image_embeds, "image_features"), (output.text_embeds, "text_features")):
        expected = functional.normalize(outputs[f"b4/{name}"], dim=-1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
