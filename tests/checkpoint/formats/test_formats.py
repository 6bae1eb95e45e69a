"""One format for each source, chosen by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Source
from madtp_cli.errors import CheckpointError

EXPECTED = {"blip_nlvr_base": "Salesforce BLIP", "blip_vqa_large": "Salesforce BLIP",
            "blip_caption_base": "Salesforce BLIP", "blip_pretrain_base": "Salesforce BLIP",
            "madtp_nlvr_base": "MADTP", "madtp_caption_base": "MADTP", "madtp_clip_vit_l14_336": "MADTP",
            "openai_clip_vit_b16": "OpenAI CLIP"}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_one_format_claims_a_source(
    inventory: Callable[[str], Source], claims: Callable[[Source], list[Any]], name: str, expected: str
) -> None:
    """With two, the order of files in a folder would decide."""
    assert claims(inventory(name)) == [expected]


@pytest.mark.parametrize("kind", ["madtp_blip", "madtp_clip", "blip", "clip", "siglip"])
def test_one_format_claims_a_folder(claims: Callable[[Source], list[Any]], kind: str) -> None:
    """Ours and transformers' differ in the model type alone; a BLIP's text has the original's names in both."""
    weights = {key: torch.zeros(1) for key in ("vision_model.any", "text_encoder.embeddings.any")}
    config = {"model_type": kind, "vision_config": {"image_size": 48}, "text_config": {}}
    source = Source(Path("folder"), "folder", weights, config=config)
    assert len(claims(source)) == 1


def test_an_unknown_model_names_its_keys_and_what_is_known() -> None:
    """The keys tell an expert at once what it is."""
    source = Source(Path("resnet.pth"), "pickle", {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"resnet\.pth: 2 tensors(?s:.)*conv1\.weight(?s:.)*Salesforce BLIP"):
        formats.recognise(source, CheckpointOverrides())


@pytest.mark.parametrize(
    ("weights", "config", "sign"),
    [
        ({"text_model.a.weight": torch.zeros(2, dtype=torch.int8)}, {"model_type": "clip"}, "text_model.a.weight"),
        ({"text_model.a.weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, None, "text_model.a.weight"),
        ({"visual_encoder.a.qweight": torch.zeros(2, dtype=torch.int32)}, None, "a.qweight"),
        ({"text_model.a.weight": torch.zeros(2), "text_model.a.SCB": torch.zeros(2)}, None, "a.SCB"),
        ({}, {"model_type": "blip", "quantization_config": {"load_in_8bit": True}}, "quantization_config"),
    ],
)
def test_quantised_weights_are_refused(weights: dict[str, Tensor], config: dict[str, Any] | None, sign: str) -> None:
    """As numbers of the wrong scale they would load, and answer nonsense."""
    refusal = formats.recognise(Source(Path("a"), "folder", weights, config=config), CheckpointOverrides()).refusal
    assert refusal is not None
    assert "quantised" in refusal
    assert sign in refusal


def test_whole_numbers_that_are_no_weights_are_no_quantisation(inventory: Callable[[str], Source]) -> None:
    """Position numbers and a queue's pointer are whole numbers in every retrieval file."""
    assert formats.recognise(inventory("blip_retrieval_base"), CheckpointOverrides()).refusal is None


def test_a_grid_that_is_no_square_is_refused() -> None:
    """BLIP's images are square; 12 patches would be 3 by 4."""
    with pytest.raises(CheckpointError, match="12 patch positions are no square grid"):
        formats.grid_side(12)


def test_positions_on_the_same_grid_are_untouched() -> None:
    """Resizing by nothing must not smooth anything."""
    positions = torch.randn(1, 10, 2)
    assert formats.resize_positions(positions, 48, 16) is positions


def test_a_constant_position_grid_stays_constant() -> None:
    """Any interpolation keeps a constant; [CLS] is no part of the grid."""
    positions = torch.cat([torch.full((1, 1, 3), 5.0), torch.full((1, 9, 3), 2.0)], 1)
    resized = formats.resize_positions(positions, 80, 16)
    assert resized.shape == (1, 26, 3)
    assert resized[:, 0].eq(5).all()
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 25, 3), 2.0))
