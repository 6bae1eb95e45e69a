"""The folders that madtp writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from madtp_cli import formats
from madtp_cli.errors import CheckpointError
from madtp_cli.formats import Source, Told, own

POSITIONS = torch.randn(1, 1 + 9, 4)
CONFIG = {"model_type": "madtp_blip", "task": "nlvr2", "vision_config": {"image_size": 48, "patch_size": 16}}


@pytest.fixture
def folder() -> Callable[[dict[str, torch.Tensor]], Source]:
    """A folder with such weights."""
    return lambda weights: Source(Path("compressed"), "folder", weights, config=CONFIG)


def test_a_folder_says_itself_what_it_is(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """Nothing is guessed, so there is nothing to note."""
    found = formats.recognise(folder({own.POSITIONS: POSITIONS}), Told())
    assert (found.format, found.task, found.notes, found.refusal) == (own.NAME, "nlvr2", (), None)
    assert json.loads(json.dumps(found.config)) == CONFIG


def test_another_image_size_resizes_the_positions(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """3 by 3 patches at 48 pixels are 5 by 5 at 80; the source stays as it is."""
    source = folder({own.POSITIONS: POSITIONS})
    found = formats.recognise(source, Told(image_size=80))
    assert found.weights[own.POSITIONS].shape == (1, 26, 4)
    assert found.config["vision_config"]["image_size"] == 80
    assert CONFIG["vision_config"] == {"image_size": 48, "patch_size": 16}
    assert "from 48 to 80 pixels" in found.notes[0]


def test_a_folder_without_weights_is_incomplete(folder: Callable[[dict[str, torch.Tensor]], Source]) -> None:
    """Copied without its largest file."""
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        formats.recognise(folder({}), Told())
