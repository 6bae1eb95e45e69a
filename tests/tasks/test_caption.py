"""The caption task: its batches, predictions and scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from madtp_cli import tasks
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.evaluation import run
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.metrics.captioning import bleu4, cider_d
from madtp_cli.models.blip.family import FAMILY
from madtp_cli.tasks.caption import TASK
from tests.decoding import attached, captioner
from tests.tasks.words import processor, tokenizer

CPU = ComputeConfig(torch.device("cpu"), torch.float32)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Three images, each with a caption and a list of all its captions."""
    texts = [("A red ring.", ("A red ring.", "a ring in the dark")), ("two", ("two", "two blue box")), ("", ())]
    for number in range(3):
        Image.effect_noise((48, 48), 40 + 60 * number).convert("RGB").save(tmp_path / f"{number}.png")
    return [Row(str(number), (ImageFile(tmp_path / f"{number}.png"),), text, references=references)
            for number, (text, references) in enumerate(texts)]  # fmt: skip


def _ids(words: str) -> list[int]:
    made: list[int] = tokenizer().convert_tokens_to_ids(words.split())
    return made


def test_a_batch_has_the_inputs_of_the_model(rows) -> None:
    """The prompt is before each caption. The prompt and padding take no part in the loss."""
    batch = TASK.collate(rows[:2], processor())
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask", "labels"}
    assert batch["pixel_values"].shape == (2, 3, 48, 48)
    assert batch["input_ids"].tolist() == [_ids("[DEC] a picture of a red ring [SEP]"),
                                           _ids("[DEC] a picture of two [SEP] [PAD] [PAD]")]  # fmt: skip
    assert batch["attention_mask"].sum(1).tolist() == [8, 6]
    assert batch["labels"].tolist() == [[*[-100] * 4, *_ids("a red ring [SEP]")],
                                        [*[-100] * 4, *_ids("two [SEP]"), -100, -100]]  # fmt: skip


def test_an_image_without_a_caption_has_only_the_prompt(rows) -> None:
    """Calibration needs no captions, so there are no labels."""
    batch = TASK.collate(rows, processor())
    assert "labels" not in batch
    assert batch["input_ids"][2, :5].tolist() == _ids("[DEC] a picture of [SEP]")


def test_text_lengths_equal_those_of_a_batch(rows) -> None:
    """Costs are computed before a batch is made."""
    batch = TASK.collate(rows, processor())
    assert TASK.text_lengths(rows, processor()) == {"decoder": batch["attention_mask"].sum(1).tolist()}


def test_captions_are_cleaned_as_blip_was_trained(rows) -> None:
    """At most 30 words, punctuation replaced by spaces; at most 40 tokens, or the positions of the model."""
    limit = FAMILY.text_limits["caption"]
    assert TASK.kind.prepared('A "Red" ring; a.b', limit) == "a picture of a red ring a b"
    assert TASK.kind.prepared("word " * 40, limit) == "a picture of " + "word " * 29 + "word"
    wide = processor()
    wide.tokenizer.model_max_length = 512
    long = [Row("d", rows[0].images, "x-y-z " * 30)]
    assert TASK.text_lengths(long, wide) == {"decoder": [40]}
    assert TASK.text_lengths(long, processor()) == {"decoder": [24]}


def test_the_prompt_is_that_of_the_model(rows) -> None:
    """A BLIP that was fine-tuned in transformers has none: its captions follow [DEC]."""
    model, small = captioner(), processor()
    model.config.prompt = ""
    task = tasks.prepared("caption", small, Dataset("caption", "here", {}), config=model.config)
    batch = task.collate(rows[:2], small)
    assert batch["input_ids"][0].tolist() == _ids("[DEC] a red ring [SEP]")
    assert batch["labels"][0].tolist() == [-100, *_ids("a red ring [SEP]")]
    generated = model.generate(batch["pixel_values"])
    measured = run.run(model, [batch], task, CPU)
    assert measured.answers == [tokenizer().decode(row[1:], skip_special_tokens=True).strip() for row in generated]


def test_predicted_captions_do_not_have_the_prompt(rows) -> None:
    """They equal the output of `generate`, and do not depend on the batch."""
    model, small = attached(captioner(), 0.4), processor()
    task = tasks.prepared("caption", small, Dataset("caption", "here", {}))
    batch = task.collate(rows, small)
    measured = run.run(model, [batch], task, CPU)
    prompt = torch.tensor([_ids("[DEC] a picture of")] * 3)
    generated = model.generate(batch["pixel_values"], prompt)
    known = tokenizer()
    assert measured.answers == [known.decode(row[4:], skip_special_tokens=True).strip() for row in generated]
    assert measured.answers == [run.run(model, [task.collate([row], small)], task, CPU).answers[0] for row in rows]
    assert not any(answer.startswith("a picture of") for answer in measured.answers)


def test_captions_are_scored_by_cider_and_bleu(rows) -> None:
    """Each image with references has a CIDEr-D score; the quality is 100 times the mean, as in papers."""
    captions = ["a red ring", "a blue box", "no"]
    result = TASK.score(None, captions, rows)
    references = [row.references for row in rows[:2]]
    assert result.scores == cider_d(captions[:2], references)
    assert (result.answers, result.unlabelled) == (captions, 1)
    assert TASK.quality([1.0, 1.5]) == 125
    perfect = ["a ring in the dark", "two blue box"]
    assert TASK.score(None, perfect, rows).parts == {"BLEU-4": pytest.approx(100)}
    assert result.parts == {"BLEU-4": 100 * bleu4(captions[:2], references)}
    unscored = TASK.score(None, captions, ())
    assert (unscored.scores, unscored.parts) == ([], {})
    assert (TASK.name, TASK.metric) == ("caption", "CIDEr")
