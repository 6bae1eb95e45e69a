"""Beam search against the rule of transformers 4.15, with which BLIP was released, written out for single texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipTextLMHeadModel

from madtp_cli.models.blip.caption import MadtpBlipForConditionalGeneration
from tests.decoding import DEC, SEP, captioner, captions, collate, questions, vqa

PROMPT = [DEC, 4, 12, 30]
#: Added to the logit of [SEP], so that texts end at different lengths.
END_BIASES = (1.8, 2.0, 2.2, 2.5)


def released_search(
    log_probabilities: Callable[[list[int]], Tensor],
    prompt: list[int],
    *,
    num_beams: int,
    max_length: int,
    min_length: int,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> list[int]:
    """Return the best text. Its score is its log-probability / tokens ** penalty, with the prompt but without [SEP]."""
    running, finished, done = [(0.0, prompt)], [], False

    def add(score: float, text: list[int], tokens: list[int]) -> None:
        finished.append((score / len(text) ** length_penalty, tokens))
        finished.sort(key=lambda entry: -entry[0])
        del finished[num_beams:]

    while not done and len(running[0][1]) < max_length:
        length, candidates = len(running[0][1]), []
        for score, text in running:
            following = log_probabilities(text).tolist()
            if length < min_length:
                following[SEP] = -math.inf
            candidates += [(score + value, text, token) for token, value in enumerate(following)]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * num_beams]
        for score, text, token in candidates[:num_beams]:
            if token == SEP:
                add(score, text, [*text, SEP])
        running = [(score, [*text, token]) for score, text, token in candidates if token != SEP][:num_beams]
        if len(finished) == num_beams:
            done = early_stopping or finished[-1][0] >= candidates[0][0] / length**length_penalty
    if not done:
        for score, text in running:
            add(score, text, text)
    return finished[0][1]


def _with_end_bias(model: Any, bias: float) -> Any:
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[SEP] += bias
    return model


def _expected(model: Any, memory: Any, prompt: list[int], **settings: Any) -> list[int]:
    def log_probabilities(text: list[int]) -> Tensor:
        logits = model.decode(torch.tensor([text]), None, memory, model.decoder_pruner()).data
        return logits[-1].double().log_softmax(-1)

    return released_search(log_probabilities, prompt, **settings)


def _generated(row: Tensor) -> list[int]:
    """Return a text up to its [SEP]."""
    tokens: list[int] = row.tolist()
    return tokens[: tokens.index(SEP) + 1] if SEP in tokens else tokens


def _transformers(model: MadtpBlipForConditionalGeneration) -> None:
    """Let a model search as transformers does."""
    model.text_decoder.__class__ = BlipTextLMHeadModel


SETTINGS: tuple[dict[str, Any], ...] = (
    {"num_beams": 3, "max_length": 12, "min_length": 5},
    {"num_beams": 2, "max_length": 9, "min_length": 5, "length_penalty": 2.0},
    {"num_beams": 4, "max_length": 14, "min_length": 6, "length_penalty": 0.0},
    {"num_beams": 3, "max_length": 16, "min_length": 5, "length_penalty": -1.0},
    {"num_beams": 3, "max_length": 12, "min_length": 5, "early_stopping": True},
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_captions_are_those_of_the_released_code(settings) -> None:
    """CIDEr of a published checkpoint depends on the length that a caption's score is divided by."""
    pixels = collate(captions())["pixel_values"]
    for bias in END_BIASES:
        model = _with_end_bias(captioner(), bias)
        with torch.no_grad():
            memory = model.encode_images(pixels, model.pruner("vision"))
            expected = [_expected(model, memory.part(slice(number, number + 1)), PROMPT, **settings)
                        for number in range(len(pixels))]  # fmt: skip
        found = model.generate_from(memory, torch.tensor([PROMPT]), **settings)
        assert [_generated(row) for row in found] == expected


def test_transformers_gives_other_captions() -> None:
    """So the tests here can fail: transformers counts only the tokens after the prompt."""
    pixels, differences = collate(captions())["pixel_values"], 0
    for bias in END_BIASES:
        model = _with_end_bias(captioner(), bias)
        with torch.no_grad():
            memory = model.encode_images(pixels, model.pruner("vision"))
        found = {}
        for name in ("released", "transformers"):
            found[name] = [
                _generated(row) for row in model.generate_from(memory, torch.tensor([PROMPT]), **SETTINGS[0])
            ]
            _transformers(model)
        differences += sum(one != other for one, other in zip(*found.values(), strict=True))
    assert differences


def test_answers_are_those_of_the_released_code() -> None:
    """The prompt of an answer is one token, which counts as [SEP] does in transformers."""
    batch = collate(questions())
    for bias in END_BIASES:
        model = _with_end_bias(vqa(), bias)
        with torch.no_grad():
            memory = model(**{name: value for name, value in batch.items() if name != "labels"}).memory
            settings = {"num_beams": 3, "max_length": 10, "min_length": 1}
            expected = [_expected(model, memory.part(slice(number, number + 1)), [DEC], **settings)
                        for number in range(len(batch["input_ids"]))]  # fmt: skip
        assert [_generated(row) for row in model.generate_from(memory)] == expected


def test_greedy_search_is_that_of_transformers() -> None:
    """One beam has no scores to compare."""
    pixels, model = collate(captions())["pixel_values"], _with_end_bias(captioner(), 2.0)
    prompt = torch.tensor([PROMPT] * len(pixels))
    found = model.generate(pixels, prompt, num_beams=1)
    _transformers(model)
    assert found.tolist() == model.generate(pixels, prompt, num_beams=1).tolist()
