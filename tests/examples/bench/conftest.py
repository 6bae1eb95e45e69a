"""A small BLIP that prunes its image tower, a batch for it, and a small architecture for whole scripts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from examples.bench import token_plans
from examples.bench.cases import BLIP
from madtp_cli import models
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of
from madtp_cli.models.blip.family import architecture
from tests import drawing

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
#: Shares of the tokens that three images have before the first block and after each of two blocks.
SHARES = np.array([[0.95, 0.9, 0.6], [0.75, 0.5, 0.4], [0.85, 0.7, 0.1]])


@pytest.fixture
def model(blip) -> Any:
    """Return a BLIP that prunes before the first block and in all three blocks of the image tower."""
    return drawing.attached(blip, 1.0, scales={"text": [0.0] * 3})


@pytest.fixture
def batch(samples, collate) -> dict[str, torch.Tensor]:
    """Return a batch of five pairs."""
    return inputs_of(collate(samples))


def small_architecture() -> Any:
    """Return the configuration of a BLIP for NLVR2 with three narrow layers at 48 pixels."""
    sizes: Any = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2)
    config: Any = architecture("nlvr2", 48, **sizes)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config.text_config.update(text | {"encoder_hidden_size": 32, "vocab_size": 200})
    config.merge_from = 2
    return config


@pytest.fixture
def small_blip(monkeypatch) -> None:
    """Make the benchmark use a small BLIP, and shares that need no run of the example."""
    monkeypatch.setattr(models, "architectures", lambda: {BLIP: small_architecture})
    monkeypatch.setattr(token_plans, "example_shares", lambda *_: SHARES)
