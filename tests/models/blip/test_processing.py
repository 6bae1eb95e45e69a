"""The processor of NLVR2 and VQA: its result is what the model's forward needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.save import save
from madtp_cli.data.dataset import Row
from madtp_cli.models.blip.family import FAMILY
from madtp_cli.models.blip.processing import MadtpBlipProcessor
from madtp_cli.tasks.nlvr2 import TASK as NLVR2
from tests import decoding
from tests.tasks import words

ENC, CLS = 69, 3
LEFT, RIGHT = (Image.new("RGB", (60, 50), color) for color in ((200, 30, 60), (10, 90, 240)))
SHORT, LONG = "the red ring", "is the red ring in the blue box"


@dataclass(frozen=True)
class _Drawn:
    """An image in memory as the source of a row."""

    image: Image.Image
    opens_fast: bool = True

    def open(self) -> Image.Image:
        """Return a copy, which the reader may close."""
        return self.image.copy()


@pytest.fixture(scope="module")
def pairs() -> MadtpBlipProcessor:
    """The processor of NLVR2."""
    made: MadtpBlipProcessor = FAMILY.task_processor(words.processor(), "nlvr2")
    return made


def test_a_pair_becomes_the_input_of_the_forward(pairs: MadtpBlipProcessor, attached: Callable[..., Any]) -> None:
    """The images are those of the image processor in their order, and the text begins with [ENC]."""
    made = pairs(images=[LEFT, RIGHT], text=SHORT, return_tensors="pt")
    assert set(made) == {"pixel_values", "input_ids", "attention_mask"}
    expected = pairs.image_processor([LEFT, RIGHT], return_tensors="pt")["pixel_values"]
    assert torch.equal(made["pixel_values"], expected[None])
    assert made["input_ids"][0, 0] == ENC
    assert made["input_ids"][0, 1:].tolist() == pairs.tokenizer(SHORT)["input_ids"][1:]
    with torch.no_grad():
        assert attached(0.4)(**made).logits.shape == (1, 2)


def test_a_batch_is_what_the_task_makes(pairs: MadtpBlipProcessor) -> None:
    """`madtp eval` and a user's script give the model the same numbers. Pairs may be nested or in one list."""
    left, right = _Drawn(LEFT), _Drawn(RIGHT)
    batch = NLVR2.collate([Row("1", (left, right), SHORT), Row("2", (right, right), LONG)], pairs)
    for images in ([[LEFT, RIGHT], [RIGHT, RIGHT]], [LEFT, RIGHT, RIGHT, RIGHT]):
        made = pairs(images=images, text=[SHORT, LONG], return_tensors="pt")
        assert all(torch.equal(made[name], batch[name]) for name in batch)


def test_every_form_of_result_begins_with_enc(pairs: MadtpBlipProcessor) -> None:
    """Without `return_tensors` the result has lists, for one text a list of numbers."""
    assert pairs(text=SHORT)["input_ids"][0] == ENC
    assert [ids[0] for ids in pairs(text=[SHORT, LONG])["input_ids"]] == [ENC, ENC]
    made = pairs(images=[LEFT, RIGHT], text=[SHORT], return_tensors="np")
    assert made["input_ids"][0, 0] == ENC
    assert np.shape(made["pixel_values"]) == (1, 2, 3, 48, 48)
    assert np.shape(pairs(images=[LEFT, RIGHT])["pixel_values"]) == (1, 2, 3, 48, 48)
    bare = pairs(text=SHORT, add_special_tokens=False)["input_ids"]
    assert bare == pairs.tokenizer(SHORT, add_special_tokens=False)["input_ids"]


def test_a_question_begins_with_enc_too() -> None:
    """VQA has one image per question; the other tasks keep transformers' processor."""
    questions = FAMILY.task_processor(words.processor(), "vqa")
    made = questions(images=[LEFT, RIGHT], text=[SHORT, LONG], return_tensors="pt")
    assert made["pixel_values"].shape == (2, 3, 48, 48)
    assert made["input_ids"][:, 0].tolist() == [ENC, ENC]
    with torch.no_grad():
        assert decoding.vqa()(**made).logits.shape[0] == 2
    captions = FAMILY.task_processor(words.processor(), "caption")
    assert captions(text=SHORT)["input_ids"][0] == CLS


@pytest.mark.parametrize(
    ("images", "text", "error"),
    [
        ([LEFT], SHORT, "needs 2 images, but 1 are given.*left, right"),
        ([LEFT, RIGHT, LEFT], [SHORT], "needs 2 images, but 3 are given"),
        ([LEFT, RIGHT] * 2, [SHORT] * 3, "3 texts need 6 images.*but 4 are given"),
        ([LEFT, RIGHT] * 2, SHORT, "1 texts need 2 images.*but 4 are given"),
    ],
)
def test_a_wrong_number_of_images_is_an_error(
    pairs: MadtpBlipProcessor, images: list[Any], text: Any, error: str
) -> None:
    """The error states both numbers."""
    with pytest.raises(ValueError, match=error):
        pairs(images=images, text=text, return_tensors="pt")


def test_a_wrong_shape_in_the_forward_is_an_error(pairs: MadtpBlipProcessor, attached: Callable[..., Any]) -> None:
    """transformers' BLIP takes too small images without an error, and computes wrong numbers."""
    model, made = attached(0.4), pairs(images=[LEFT, RIGHT], text=SHORT, return_tensors="pt")
    pixels = made.pop("pixel_values")
    with pytest.raises(ValueError, match=r"needs pairs, \[pairs, 2, 3, height, width\].*images=\[left, right\]"):
        model(pixels[0], **made)
    with pytest.raises(ValueError, match=r"\[2, 3, 36, 48\], but this model needs \[images, 3, 48, 48\]"):
        model(pixels[..., :36, :], **made)
    with pytest.raises(ValueError, match="1 sentences cannot be divided among 2 pairs"):
        model(pixels.repeat(2, 1, 1, 1, 1), **made)


def test_the_folder_keeps_the_processor(tmp_path: Path, attached: Callable[..., Any]) -> None:
    """AutoProcessor finds the class after `import madtp_cli.models`, and `checkpoint.processors` builds it."""
    model = attached(0.4)
    made = processors.build(model.config, words.tokenizer())
    assert (type(made), made.images_per_text) == (MadtpBlipProcessor, 2)
    save(model, made, tmp_path / "out")
    again = AutoProcessor.from_pretrained(tmp_path / "out")
    assert (type(again), again.images_per_text) == (MadtpBlipProcessor, 2)
    given = dict(images=[LEFT, RIGHT], text=SHORT, return_tensors="pt")
    assert all(torch.equal(again(**given)[name], value) for name, value in made(**given).items())
