"""Small ViLT models whose sizes all differ, and transformers' models with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import ViltForImagesAndTextClassification, ViltForQuestionAnswering

from madtp_cli.models.vilt.nlvr2 import MadtpViltForNLVR2
from madtp_cli.models.vilt.towers import MadtpViltConfig
from madtp_cli.models.vilt.vqa import MadtpViltForQuestionAnswering
from tests.drawing import attached as attached
from tests.drawing import draw

Batch = dict[str, Tensor]
#: Number of tokens of each text; rows and columns of the patches of each image. The model's grid is 6 by 6.
TEXT_LENGTHS, GRIDS = (9, 4, 12, 3, 7), ((6, 6), (6, 9), (6, 6), (4, 6), (6, 7))
ANSWERS = ["yes", "no", "red", "blue", "two", "box", "ring"]


def config(task: str) -> MadtpViltConfig:
    """Return a configuration: 3 blocks of width 48, 37 tokens of a square image, 70 word pieces."""
    blocks = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=3)
    image = blocks | dict(image_size=48, patch_size=8)
    text = blocks | dict(vocab_size=70, max_position_embeddings=16, modality_type_vocab_size=3)
    return MadtpViltConfig(task=task, vision_config=image, text_config=text, answers=ANSWERS if task == "vqa" else None)


def dense(task: str) -> Any:
    """Return the dense model for a task."""
    model = {"nlvr2": MadtpViltForNLVR2, "vqa": MadtpViltForQuestionAnswering}[task](config(task)).eval()
    draw(model, seed=1)
    return model


def original(model: Any) -> Any:
    """Return transformers' model with the same weights."""
    flat = model.config.flat()
    if model.config.task == "nlvr2":
        flat.num_images, flat.num_labels = 2, 2
        theirs: Any = ViltForImagesAndTextClassification(flat)
    else:
        flat.id2label = dict(enumerate(ANSWERS))
        theirs = ViltForQuestionAnswering(flat)
    assert theirs.state_dict().keys() == model.state_dict().keys()
    theirs.load_state_dict(model.state_dict())
    return theirs.eval()


def samples(task: str, *, square: bool = False) -> list[Batch]:
    """Return five samples of different sizes, each in a batch of its own without padding."""
    generator, made = torch.Generator().manual_seed(3), []
    images = 2 if task == "nlvr2" else 1
    for number, length in enumerate(TEXT_LENGTHS):
        rows, columns = (6, 6) if square else GRIDS[number]
        coarse = torch.randn(images, 3, 3, 3, generator=generator) * (1 + number)
        pixels = functional.interpolate(coarse, size=(8 * rows, 8 * columns))
        pixels = pixels + torch.randn(pixels.shape, generator=generator)
        words = torch.randint(5, 68, (1, length), generator=generator)
        made.append({
            "pixel_values": pixels[None] if images == 2 else pixels,
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
        })  # fmt: skip
    return made


def collate(each: Sequence[Batch]) -> Batch:
    """Return one batch with padded images and texts, and the masks of both."""
    sides = [max(one["pixel_values"].shape[axis] for one in each) for axis in (-2, -1)]
    longest = max(one["input_ids"].shape[1] for one in each)

    def image(values: Tensor) -> Tensor:
        return functional.pad(values, (0, sides[1] - values.shape[-1], 0, sides[0] - values.shape[-2]))

    def text(values: Tensor) -> Tensor:
        return functional.pad(values, (0, longest - values.shape[1]))

    return {
        "pixel_values": torch.cat([image(one["pixel_values"]) for one in each]),
        "pixel_mask": torch.cat([image(torch.ones_like(one["pixel_values"]))[..., 0, :, :] for one in each]).long(),
        "input_ids": torch.cat([text(one["input_ids"]) for one in each]),
        "attention_mask": torch.cat([text(one["attention_mask"]) for one in each]),
    }
