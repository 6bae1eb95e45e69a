"""MADTP's own result files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from madtp_cli.checkpoint import formats, load
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.reading import read


def test_dense_logits_equal_the_originals(
    golden: Path, overrides: CheckpointOverrides, judge: Callable[..., dict[str, Tensor]]
) -> None:
    """At temperature 0 the original prunes nothing, so its weights are a BLIP's."""
    found = load.recognise(golden / "madtp_nlvr_a/checkpoint.pth", overrides)
    answers = judge(load.build(found), "madtp_nlvr_a")
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_the_dictionary_is_kept_apart(golden: Path, overrides: CheckpointOverrides) -> None:
    """It belongs to a pruning rule that is not ours, and the notes say so."""
    path = golden / "madtp_nlvr_a/checkpoint.pth"
    found = load.recognise(path, overrides)
    assert found.dictionary is not None
    assert torch.equal(found.dictionary, torch.load(path, weights_only=True)["model"]["space_dict"])
    assert "space_dict" not in found.weights
    assert "temperature 3.0" in found.notes[0]
    assert "24 tokens of width 48" in found.notes[0]


@pytest.mark.parametrize("task", ["vqa", "caption", "retrieval"])
def test_a_published_size_of_any_task_has_every_key_and_no_other(
    inventory: Callable[[str], Source], stock: Callable[[Recognised], Any], task: str
) -> None:
    """MADTP adds its dictionary to BLIP's keys and nothing else."""
    source = inventory(f"madtp_{task}_base")
    found = formats.recognise(source, CheckpointOverrides())
    assert (found.format, found.task, found.refusal) == ("MADTP (Salesforce BLIP)", task, None)
    stock(found)
    assert len(found.weights) + sum(map(len, found.dropped.values())) == len(source.weights) - 1


def test_a_published_size_for_nlvr2_has_every_key_and_no_other(inventory: Callable[[str], Source]) -> None:
    """The same, for the task that transformers has no class for."""
    source = inventory("madtp_nlvr_base")
    found = load.compare(source.path, formats.recognise(source, CheckpointOverrides()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.format == "MADTP (Salesforce BLIP)"


def test_madtps_clip_is_a_clip(inventory: Callable[[str], Source], stock: Callable[[Recognised], Any]) -> None:
    """Beside CLIP's keys it has momentum copies, queues, and a map in each block of all four towers."""
    found = formats.recognise(inventory("madtp_clip_vit_l14_336"), CheckpointOverrides())
    assert (found.format, found.task, found.refusal) == ("MADTP (OpenAI CLIP)", "retrieval", None)
    stock(found)
    assert found.dictionary is not None
    assert found.dictionary.shape == (100, 768)
    assert len(found.dropped["each block's own map into the dictionary"]) == 2 * 2 * (24 + 12)
    assert {"text_projection_m", "visual_m.proj"} < set(found.dropped["momentum copies"])
    assert len(found.dropped["queues of the contrastive loss"]) == 4


def test_dense_clip_features_equal_the_originals(golden: Path, stock: Callable[[Recognised], Any]) -> None:
    """The momentum copies have other values, so taking one for the model itself would show."""
    model = stock(formats.recognise(read(golden / "madtp_clip_a/checkpoint.pth"), CheckpointOverrides()))
    given = load_file(golden / "madtp_clip_a/inputs.safetensors")
    original = load_file(golden / "madtp_clip_a/outputs.safetensors")
    with torch.no_grad():
        answer = model(given["token_ids"], given["pixel_values"].float())
    for ours, name in ((answer.image_embeds, "image_features"), (answer.text_embeds, "text_features")):
        expected = functional.normalize(original[f"b4/{name}"], dim=-1)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
