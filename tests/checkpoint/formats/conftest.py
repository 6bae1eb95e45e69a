"""Golden checkpoints of the original code, and what it makes of them."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
)
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from tests.paths import GOLDEN

#: The golden models' heads are narrower than any published one's.
HEAD_WIDTH = 16


@pytest.fixture(scope="session")
def golden() -> Path:
    """Small random checkpoints with the original code's inputs and outputs."""
    return GOLDEN


@pytest.fixture(scope="session")
def overrides() -> CheckpointOverrides:
    """What a golden file does not say."""
    return CheckpointOverrides(head_width=HEAD_WIDTH)


@pytest.fixture(scope="session")
def judge() -> Callable[..., dict[str, Tensor]]:
    """A model's answer to a case's inputs, beside the original's."""

    def judged(model: nn.Module, case: str) -> dict[str, Tensor]:
        given = load_file(GOLDEN / case / "inputs.safetensors")
        outputs = load_file(GOLDEN / case / "outputs.safetensors")
        images = given["pixel_values"].float()
        pairs = torch.stack(images.chunk(2), 1)  # the left images come first
        with torch.no_grad():
            logits = model(pairs, given["input_ids"], given["attention_mask"]).logits
        return {"ours": logits, "original": outputs["b4/logits" if "b4/logits" in outputs else "logits"]}

    return judged


@pytest.fixture(scope="session")
def inventory() -> Callable[[str], Source]:
    """A full-size checkpoint without its memory: the right keys and shapes on the meta device."""
    with gzip.open(GOLDEN / "key_inventory.json.gz") as file:
        known: dict[str, dict[str, tuple[list[int], str]]] = json.load(file)

    def source(name: str) -> Source:
        weights = {
            key: torch.empty(shape, dtype=getattr(torch, kind), device="meta")
            for key, (shape, kind) in known[name].items()
        }
        return Source(Path(f"{name}.pth"), "pickle", weights)

    return source


#: transformers' class for each task of a BLIP; it has none for NLVR2.
THEIRS = {"vqa": BlipForQuestionAnswering, "caption": BlipForConditionalGeneration,
          "retrieval": BlipForImageTextRetrieval}  # fmt: skip
#: Fields that transformers' configurations do not know.
ADDED = ("model_type", "task", "merge_from", "trained_on")


@pytest.fixture(scope="session")
def stock() -> Callable[[Recognised], Any]:
    """transformers' own model of a recognised checkpoint; it must have a place for every weight, and no other."""

    def built(found: Recognised) -> nn.Module:
        config = {name: copy.deepcopy(value) for name, value in found.config.items() if name not in ADDED}
        with next(iter(found.weights.values())).device:
            if found.config["model_type"] == "madtp_clip":
                model: nn.Module = CLIPModel(CLIPConfig(**config))
            else:
                model = THEIRS[found.task](BlipConfig(**config))
            if found.task == "vqa":
                _narrow(model)
        model.load_state_dict(dict(found.weights), strict=True)
        return model.eval()

    return built


def _narrow(model: Any) -> None:
    """Let VQA's decoder look at question states; transformers gives it the images' width, which may be another."""
    text = copy.deepcopy(model.config.text_config)
    text.encoder_hidden_size = text.hidden_size
    model.text_decoder = BlipTextLMHeadModel(text)


@pytest.fixture
def claims() -> Callable[[Source], list[Any]]:
    """The formats that take a source for theirs."""
    return lambda source: [
        one.NAME for one in formats.all_formats() if one.recognise(source, CheckpointOverrides()) is not None
    ]
