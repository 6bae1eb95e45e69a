"""Golden checkpoints of the original code, with its inputs and outputs."""

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

#: Width of the heads of the golden models; published models have wider ones.
HEAD_WIDTH = 16


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of small random checkpoints, with the inputs and outputs of the original code."""
    return GOLDEN


@pytest.fixture(scope="session")
def overrides() -> CheckpointOverrides:
    """What a golden file does not state."""
    return CheckpointOverrides(head_width=HEAD_WIDTH)


@pytest.fixture(scope="session")
def compared_logits() -> Callable[..., tuple[Tensor, Tensor]]:
    """Returns the logits of a model for the inputs of a golden case, and those of the original code."""

    def compared(model: nn.Module, case: str) -> tuple[Tensor, Tensor]:
        inputs = load_file(GOLDEN / case / "inputs.safetensors")
        outputs = load_file(GOLDEN / case / "outputs.safetensors")
        images = inputs["pixel_values"].float()
        pairs = torch.stack(images.chunk(2), 1)  # the left images come first
        with torch.no_grad():
            logits = model(pairs, inputs["input_ids"], inputs["attention_mask"]).logits
        return logits, outputs["b4/logits" if "b4/logits" in outputs else "logits"]

    return compared


@pytest.fixture(scope="session")
def inventory() -> Callable[[str], Source]:
    """Returns a checkpoint of published size by name: its keys and shapes, on the meta device."""
    with gzip.open(GOLDEN / "key_inventory.json.gz") as file:
        inventories: dict[str, dict[str, tuple[list[int], str]]] = json.load(file)

    def source(name: str) -> Source:
        weights = {
            key: torch.empty(shape, dtype=getattr(torch, kind), device="meta")
            for key, (shape, kind) in inventories[name].items()
        }
        return Source(Path(f"{name}.pth"), "pickle", weights)

    return source


#: The class of transformers for each task of BLIP; there is none for NLVR2.
BLIP_CLASSES = {"vqa": BlipForQuestionAnswering, "caption": BlipForConditionalGeneration,
                "retrieval": BlipForImageTextRetrieval}  # fmt: skip
#: Fields that the configurations of transformers do not have.
ADDED_FIELDS = ("model_type", "task", "merge_from", "trained_on")


@pytest.fixture(scope="session")
def transformers_model() -> Callable[[Recognised], Any]:
    """Builds the model of transformers for a checkpoint; it must have the same tensors as the checkpoint."""

    def build(recognised: Recognised) -> nn.Module:
        config = {name: copy.deepcopy(value) for name, value in recognised.config.items() if name not in ADDED_FIELDS}
        with next(iter(recognised.weights.values())).device:
            if recognised.config["model_type"] == "madtp_clip":
                model: nn.Module = CLIPModel(CLIPConfig(**config))
            else:
                model = BLIP_CLASSES[recognised.task](BlipConfig(**config))
            if recognised.task == "vqa":
                _set_question_width(model)
        model.load_state_dict(dict(recognised.weights), strict=True)
        return model.eval()

    return build


def _set_question_width(model: Any) -> None:
    """Let the VQA decoder attend to question states; transformers uses the width of the image tokens instead."""
    text = copy.deepcopy(model.config.text_config)
    text.encoder_hidden_size = text.hidden_size
    model.text_decoder = BlipTextLMHeadModel(text)


@pytest.fixture
def recognising_formats() -> Callable[[Source], list[str]]:
    """Returns the names of the formats that recognise a source, without fallbacks."""

    def recognising(source: Source) -> list[str]:
        found = [(entry.NAME, entry.recognise(source, CheckpointOverrides())) for entry in formats.all_formats()]
        return [name for name, recognised in found if recognised is not None and not recognised.fallback]

    return recognising
