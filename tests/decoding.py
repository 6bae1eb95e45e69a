"""Small BLIP models for VQA and captions whose sizes all differ, and images with texts of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.models.blip.caption import MadtpBlipForConditionalGeneration
from madtp_cli.models.blip.decoding import DecodingBlip
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.blip.vqa import MadtpBlipForQuestionAnswering
from tests.drawing import attached as attached
from tests.drawing import draw

Batch = dict[str, Tensor]
Model = TypeVar("Model", bound=DecodingBlip)
#: Number of tokens of each question with [ENC], and of each answer or caption with [DEC] and [SEP].
QUESTIONS, ANSWERS = (9, 4, 12, 3, 7), (3, 6, 2, 4, 5)
SEP, DEC, ENC = 2, 68, 69


def config(task: str, **vision: Any) -> MadtpBlipConfig:
    """Return a configuration: vision 3 x 48 with 37 tokens, text 2 x 32, 70 word pieces."""
    image = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=3,
                 image_size=48, patch_size=8)  # fmt: skip
    text = dict(hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2, vocab_size=70,
                max_position_embeddings=24, bos_token_id=DEC, sep_token_id=SEP, eos_token_id=SEP)  # fmt: skip
    return MadtpBlipConfig(task=task, vision_config=image | vision, text_config=text)


def vqa(**vision: Any) -> MadtpBlipForQuestionAnswering:
    """Return the dense model for questions."""
    return _drawn(MadtpBlipForQuestionAnswering(config("vqa", **vision)))


def captioner() -> MadtpBlipForConditionalGeneration:
    """Return the dense model for captions."""
    return _drawn(MadtpBlipForConditionalGeneration(config("caption")))


def _drawn(model: Model) -> Model:
    draw(model, seed=1)
    with torch.no_grad():  # otherwise the large word embeddings give large logits
        model.text_decoder.cls.predictions.transform.LayerNorm.weight *= 0.1
    return model.eval()


def questions() -> list[Batch]:
    """Return five images with question and answer, each in a batch of its own without padding."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for sample, length in zip(captions(), QUESTIONS, strict=True):
        words = torch.randint(5, 68, (1, length), generator=generator)
        words[0, 0] = ENC
        answer = {f"decoder_{name}": sample[name] for name in ("input_ids", "attention_mask")}
        made.append({"pixel_values": sample["pixel_values"], "input_ids": words,
                     "attention_mask": torch.ones_like(words), **answer, "labels": sample["labels"]})  # fmt: skip
    return made


def captions() -> list[Batch]:
    """Return five images with a caption, each in a batch of its own without padding."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, length in enumerate(ANSWERS):
        coarse = torch.randn(1, 3, 6, 6, generator=generator) * (1 + number)
        fine = torch.randn(1, 3, 48, 48, generator=generator)
        words = torch.randint(5, 68, (1, length), generator=generator)
        words[0, 0], words[0, -1] = DEC, SEP
        made.append({"pixel_values": functional.interpolate(coarse, size=(48, 48)) + fine, "input_ids": words,
                     "attention_mask": torch.ones_like(words), "labels": words})  # fmt: skip
    return made


def collate(samples: Sequence[Batch], extra: int = 0, padding: int = 33) -> Batch:
    """Return samples in one batch. Texts are padded with a real word, and with `extra` more tokens."""
    batch = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        fill = 0 if name.endswith("mask") else -100 if name == "labels" else padding
        if values[0].dim() == 2:
            longest = max(value.shape[1] for value in values) + extra
            values = [functional.pad(value, (0, longest - value.shape[1]), value=fill) for value in values]
        batch[name] = torch.cat(values)
    return batch


def forward(model: DecodingBlip, batch: Batch, **settings: Any) -> Any:
    """Run the model without gradients and labels."""
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, **settings)


def counts(output: Any) -> dict[str, list[list[int]]]:
    """Return the number of tokens that left each block, per tower: [blocks][samples]."""
    return {tower: [block.left for block in blocks] for tower, blocks in output.trace.items()}


def up_to_sep(ids: Tensor) -> list[int]:
    """Return the tokens up to and including [SEP]."""
    row: list[int] = ids.tolist()
    return row[: row.index(SEP) + 1] if SEP in row else row
