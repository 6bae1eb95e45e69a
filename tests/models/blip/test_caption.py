"""BLIP for captions: the dense model equals transformers' model, and a sample does not depend on its batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BlipForConditionalGeneration

from madtp_cli.compression.distillation import step_losses
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.methods import names
from madtp_cli.models.blip.caption import MadtpBlipForConditionalGeneration
from tests.decoding import ANSWERS, DEC, SEP, attached, captioner, captions, collate, counts, forward

CPU = ComputeConfig.of("cpu", "float32")

#: A prompt as a tokenizer returns it: [CLS] first, [SEP] last.
PROMPT = [4, 12, 30, SEP]


@pytest.fixture(scope="module")
def dense() -> MadtpBlipForConditionalGeneration:
    """The dense model; tests must not change it."""
    return captioner()


@pytest.fixture(scope="module")
def stock(dense) -> BlipForConditionalGeneration:
    """transformers' model with the same weights. It is right as long as no image token is pruned."""
    model = BlipForConditionalGeneration(dense.config).eval()
    model.load_state_dict(dense.state_dict())
    return model


def _text(ids: Tensor) -> list[int]:
    """Return the tokens up to and including [SEP]."""
    row: list[int] = ids.tolist()
    return row[: row.index(SEP) + 1] if SEP in row else row


def test_state_dict_keys_are_those_of_transformers(dense, stock) -> None:
    """The dictionary adds keys for the image tower only, since there is no text tower."""
    shapes = {key: value.shape for key, value in stock.state_dict().items()}
    assert {key: value.shape for key, value in dense.state_dict().items()} == shapes
    added = attached(dense, 0.4).state_dict().keys() - dense.state_dict().keys()
    assert added == {"madtp.dictionary", "madtp.projections.vision.weight"}


def test_logits_equal_those_of_transformers(dense, stock) -> None:
    """For captions of different lengths, the packed logits equal the unpadded part of transformers' logits."""
    batch = collate(captions(), extra=1)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        expected = stock(**inputs).logits[batch["attention_mask"].bool()]
    torch.testing.assert_close(forward(dense, batch).logits, expected, rtol=0, atol=1e-5)


def test_the_loss_is_that_of_blip(dense, stock) -> None:
    """The loss is the mean over the words after the prompt and [SEP], with label smoothing 0.1."""
    batch = collate(captions()[:2], extra=1)
    batch["labels"][:, :2] = -100
    with torch.no_grad():
        loss = dense(**batch).loss
        logits = stock(**{name: value for name, value in batch.items() if name != "labels"}).logits
    predicted, words = [], []
    for row, length in enumerate(ANSWERS[:2]):
        for index in range(2, length):
            predicted.append(logits[row, index - 1])
            words.append(batch["input_ids"][row, index])
    assert len(words) == 1 + 4
    expected = functional.cross_entropy(torch.stack(predicted), torch.stack(words), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_generated_caption_equals_that_of_transformers(dense, stock, beams) -> None:
    """With a prompt, whose first token becomes [DEC], and without one."""
    pixels = collate(captions()[:2])["pixel_values"]
    for prompt in (None, torch.tensor([PROMPT] * 2)):
        own = dense.generate(pixels, prompt, num_beams=beams, max_length=9)
        given = None if prompt is None else prompt.clone()
        expected = stock.generate(pixels, given, num_beams=beams, min_length=5, max_length=9)
        assert own.tolist() == expected.tolist()


def test_sep_is_removed_from_the_end_of_a_prompt(dense) -> None:
    """Only [SEP] is removed, not a word. Prompts of different lengths are refused."""
    pixels = captions()[0]["pixel_values"]
    with_end = dense.generate(pixels, torch.tensor([PROMPT]), max_length=6)
    without = dense.generate(pixels, torch.tensor([PROMPT[:-1]]), max_length=6)
    assert with_end.tolist() == without.tolist()
    assert with_end[0, :3].tolist() == [DEC, *PROMPT[1:3]]
    with pytest.raises(ValueError, match="different lengths"):
        dense.generate(pixels, torch.tensor([PROMPT]), torch.tensor([[1, 1, 1, 0]]))


def test_the_default_caption_length_is_that_of_the_original_code(dense) -> None:
    """Five to twenty tokens, with three beams."""
    settings = dense.generation_config
    assert (settings.num_beams, settings.min_length, settings.max_length) == (3, 5, 20)


def test_threshold_scale_zero_is_the_dense_model(dense) -> None:
    """A dictionary that is attached but not used must not change a logit or cost anything."""
    batch = collate(captions())
    expected, pruned = forward(dense, batch), forward(attached(dense, 0.0), batch)
    torch.testing.assert_close(pruned.logits, expected.logits, rtol=0, atol=1e-5)
    assert counts(pruned) == counts(expected)
    assert not any(block.scored for blocks in pruned.trace.values() for block in blocks)


@pytest.mark.parametrize("method", ["madtp", "madtp-paper"])
def test_a_sample_does_not_depend_on_its_batch(dense, method) -> None:
    """Each caption attends to the kept tokens of its own image."""
    model, each = attached(dense, 0.4, method=method), captions()
    together, alone = forward(model, collate(each, extra=2)), [forward(model, sample) for sample in each]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=0, atol=1e-5)
    for number, one in enumerate(alone):
        own = {tower: [[block[number]] for block in blocks] for tower, blocks in counts(together).items()}
        assert own == counts(one)
    assert len(set(counts(together)["vision"][-1])) > 1
    assert together.trace.keys() == {"vision", "decoder"}
    assert counts(together)["decoder"] == [list(ANSWERS)] * 2


@pytest.mark.parametrize("beams", [1, 3])
def test_generated_captions_do_not_depend_on_the_batch(dense, beams) -> None:
    """transformers' decoder would ignore the mask of the image tokens."""
    model, each = attached(dense, 0.4), captions()
    together = model.generate(collate(each)["pixel_values"], num_beams=beams, max_length=8)
    for sample, row in zip(each, together, strict=True):
        alone = model.generate(sample["pixel_values"], num_beams=beams, max_length=8)
        assert _text(alone[0]) == _text(row)


def test_generation_agrees_with_teacher_forcing(dense) -> None:
    """Generation and the forward weight merged image tokens in the same way."""
    model, pixels = attached(dense, 0.4), collate(captions())["pixel_values"]
    written = model.generate(pixels, num_beams=1, min_length=0, max_length=8)
    forced = forward(model, {"pixel_values": pixels, "input_ids": written[:, :-1]})
    assert forced.memory.sizes is not None
    for row, following in zip(written, forced.logits.unflatten(0, (5, -1)).argmax(-1).tolist(), strict=True):
        words = _text(row)
        assert words[1:] == following[: len(words) - 1]


def test_keys_and_values_of_an_image_are_computed_once(dense) -> None:
    """They are computed for the kept tokens only, and not again for each step or beam."""
    model, rows = attached(dense, 0.4), []
    for layer in model.text_decoder.bert.encoder.layer:
        for linear in (layer.crossattention.self.key, layer.crossattention.self.value):
            linear.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))
    batch = collate(captions())
    memory = forward(model, batch).memory
    rows.clear()
    model.generate(batch["pixel_values"], max_length=6)
    assert rows == [sum(memory.lengths)] * 4
    assert sum(memory.lengths) < 5 * 37


def test_the_distillation_loss_is_zero_at_threshold_scale_zero(dense) -> None:
    """The targets are image tokens, decoder states after each layer, and logits."""
    batch = {name: value for name, value in collate(captions(), extra=1).items() if name != "labels"}
    output = attached(dense, 0.0).train()(**batch)
    assert output.targets.keys() == {"logits", "state.image", "tokens.vision", "words.decoder"}
    losses = step_losses(output, TeacherCache(dense, CPU).targets(batch))
    assert losses.keys() == {"logits", "state", "tokens", "words"}
    assert max(losses.values()).item() < 1e-4


@pytest.mark.parametrize("method", names())
def test_every_method_works_without_a_text_tower(dense, method) -> None:
    """The preset may name towers that the model does not have. The dictionary's width is usually the text tower's."""
    settings = PruningSettings.preset(method, dense.widths, dense.blocks)
    assert (settings.dictionary_width, settings.dictionary_size) == (48, 12)
    assert settings.scales.keys() == {"vision"}
    student = attached(dense, 0.4, method=method).train()
    output = student(**collate(captions()))
    output.loss.backward()
    assert output.alignment is None
    assert output.loss.isfinite()


def test_a_loaded_model_generates_the_same_captions(dense, tmp_path) -> None:
    """The word embeddings are tied, and the generation settings are saved too."""
    model, pixels = attached(dense, 0.4), collate(captions())["pixel_values"]
    model.generation_config.max_length = 7
    model.save_pretrained(tmp_path)
    again = MadtpBlipForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.generation_config.max_length == 7
    assert again.generate(pixels).tolist() == model.generate(pixels).tolist()
