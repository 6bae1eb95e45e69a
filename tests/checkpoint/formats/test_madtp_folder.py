"""Folders that madtp writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from madtp_cli import models
from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Source, madtp_folder
from madtp_cli.errors import CheckpointError

GRID = torch.randn(1, 1 + 9, 4)
CONFIG = {"model_type": "madtp_blip", "task": "nlvr2", "vision_config": {"image_size": 48, "patch_size": 16}}


@pytest.fixture
def folder() -> Callable[[dict[str, torch.Tensor]], Source]:
    """Returns a folder with these weights."""
    return lambda weights: Source(Path("compressed"), "folder", weights, config=CONFIG)


def test_nothing_is_assumed_about_a_folder(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """config.json states everything, so there are no notes."""
    found = formats.recognise(folder({models.families()["blip"].position_key: GRID}), CheckpointOverrides())
    assert (found.format, found.task, found.notes, found.refusal) == (madtp_folder.NAME, "nlvr2", (), None)
    assert json.loads(json.dumps(found.config)) == CONFIG


def test_another_image_size_resizes_the_positions(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """3 by 3 patches at 48 pixels become 5 by 5 at 80. The source does not change."""
    source = folder({models.families()["blip"].position_key: GRID})
    found = formats.recognise(source, CheckpointOverrides(image_size=80))
    assert found.weights[models.families()["blip"].position_key].shape == (1, 26, 4)
    assert found.config["vision_config"]["image_size"] == 80
    assert CONFIG["vision_config"] == {"image_size": 48, "patch_size": 16}
    assert "from 48 to 80 pixels" in found.notes[0]


def test_position_embeddings_of_clip_have_no_batch_axis() -> None:
    """They are the weight of an embedding layer, and resizing must keep this shape."""
    key = models.families()["clip"].position_key
    source = Source(Path("compressed"), "folder", {key: GRID[0]}, config={**CONFIG, "model_type": "madtp_clip"})
    assert formats.recognise(source, CheckpointOverrides(image_size=80)).weights[key].shape == (26, 4)


def test_a_folder_without_weights_is_incomplete(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """It may have been copied without its largest file."""
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        formats.recognise(folder({}), CheckpointOverrides())


def test_tied_weights_are_added(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """safetensors stores a tied tensor once, and the model needs it under both names."""
    key = "text_decoder.bert.embeddings.word_embeddings.weight"
    weights = {models.families()["blip"].position_key: GRID, key: torch.ones(5, 4)}
    found = formats.recognise(folder(weights), CheckpointOverrides())
    assert found.weights["text_decoder.cls.predictions.decoder.weight"] is weights[key]
