"""BLIP for VQA: the dense model equals the original code, and a sample does not depend on its batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint import loading
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.compression.distillation import step_losses
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution.packed import Packed
from madtp_cli.models.blip.decoding import IGNORED, sum_per_text, token_losses
from madtp_cli.models.blip.vqa import MadtpBlipForQuestionAnswering
from tests.decoding import ANSWERS, attached, collate, counts, forward, questions, up_to_sep, vqa
from tests.paths import GOLDEN

CPU = ComputeConfig.of("cpu", "float32")

FOLDER = GOLDEN / "blip_vqa_a"
#: Scales that leave the other tower unpruned.
BOTH: dict[str, Any] = {}
IMAGES = {"scales": {"text": [0.0, 0.0]}}


@pytest.fixture(scope="module")
def original() -> MadtpBlipForQuestionAnswering:
    """The golden checkpoint: width 48 (vision) and 32 (text), heads 16 wide. Its [SEP] is that of BERT."""
    model = loading.build(loading.recognise(FOLDER / "checkpoint.pth", CheckpointOverrides(head_width=16))).eval()
    model.config.text_config.update({"sep_token_id": 102, "pad_token_id": 0})
    return model


@pytest.fixture(scope="module")
def case() -> dict[str, Tensor]:
    """The golden inputs and the original code's outputs."""
    made = load_file(FOLDER / "inputs.safetensors") | load_file(FOLDER / "outputs.safetensors")
    return made | {"pixel_values": made["pixel_values"].float()}


def _inputs(case: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"pixel_values": case["pixel_values"], "input_ids": case["question_ids"],
            "attention_mask": case["question_mask"]}  # fmt: skip


def _training_batch(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch in which each training answer is a sample of its own."""
    owner = torch.arange(4).repeat_interleave(case["n"])
    labels = case["answer_ids"].masked_fill(case["answer_mask"] == 0, IGNORED)
    answers = {"decoder_input_ids": case["answer_ids"], "decoder_attention_mask": case["answer_mask"], "labels": labels}
    return {name: value[owner] for name, value in _inputs(case).items()} | answers


def test_question_states_equal_the_original_code(original, case) -> None:
    """The decoder attends to these states only. Padding has no states here."""
    states = forward(original, _inputs(case)).memory
    expected = case["question.layer.2"][case["question_mask"].bool()]
    torch.testing.assert_close(states.data, expected, rtol=0, atol=1e-4)


def test_logits_and_losses_of_answers_equal_the_original_code(original, case) -> None:
    """With label smoothing, sums over an answer's tokens, and weights of a question's several answers."""
    with torch.no_grad():
        output = original(**_training_batch(case))
    real = case["answer_mask"].bool()
    torch.testing.assert_close(output.logits, case["answer.logits"][real], rtol=0, atol=1e-4)
    losses = sum_per_text(
        token_losses(Packed(output.logits, real.sum(1).tolist()), _training_batch(case)["labels"], real)
    )
    torch.testing.assert_close(losses, case["answer_losses"], rtol=0, atol=1e-4)
    torch.testing.assert_close(output.loss, losses.mean())
    torch.testing.assert_close((case["weights"] * losses).sum() / 4, case["train_loss"], rtol=0, atol=1e-4)


def test_without_an_answer_the_first_word_is_predicted(original, case) -> None:
    """The decoder's input is then [DEC] alone, whose number the checkpoint states."""
    logits = forward(original, _inputs(case)).logits
    torch.testing.assert_close(logits, case["first_token_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("most", [1, 4, 12])
def test_ranking_equals_the_original_code(original, case, most) -> None:
    """For several numbers of answers that are scored in full."""
    with torch.no_grad():
        memory = forward(original, _inputs(case)).memory
        best = original.rank(memory, case["candidate_ids"], case["candidate_mask"], most)
    assert best.tolist() == case[f"rank.top{most}"].tolist()


def test_scores_of_all_answers_equal_the_original_code(original, case) -> None:
    """The original code computes a question's keys and values once per answer, ours once per question."""
    memory = forward(original, _inputs(case)).memory
    for number, expected in enumerate(case["rank.scores_all"]):
        with torch.no_grad():
            own = memory.part(slice(number, number + 1))
            scores = original.scores(own, case["candidate_ids"], case["candidate_mask"])
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_generation_equals_the_original_code_without_padding(original, case) -> None:
    """With three beams. Only the third question is unpadded; for the others the original attends to padding."""
    assert case["question_mask"][2].all()
    written = original.generate(**_inputs(case))
    assert written[2].tolist() == case["generate.token_ids"][2].tolist()
    assert written[3].tolist() != case["generate.token_ids"][3].tolist()


def test_threshold_scale_zero_is_the_dense_model() -> None:
    """A dictionary that is attached but not used must not change a logit or cost anything."""
    model, batch = vqa(), collate(questions())
    dense, pruned = forward(model, batch), forward(attached(model, 0.0), batch)
    torch.testing.assert_close(pruned.logits, dense.logits, rtol=0, atol=1e-5)
    assert counts(pruned) == counts(dense)
    assert not any(block.scored for blocks in pruned.trace.values() for block in blocks)


@pytest.mark.parametrize(("method", "towers"), [("madtp", IMAGES), ("madtp", BOTH), ("madtp-paper", BOTH)])
def test_a_sample_does_not_depend_on_its_batch(method, towers) -> None:
    """In the released code it does: it keeps the batch's largest count, and answers attend to padding."""
    model, each = attached(vqa(), 0.4, method=method, **towers), questions()
    together, alone = forward(model, collate(each, extra=2)), [forward(model, sample) for sample in each]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=0, atol=1e-5)
    for number, one in enumerate(alone):
        own = {tower: [[block[number]] for block in blocks] for tower, blocks in counts(together).items()}
        assert own == counts(one)
    assert len(set(counts(together)["vision"][-1])) > 1


def test_the_trace_has_every_tower() -> None:
    """The decoder is not pruned. Its costs are counted from each answer's own tokens."""
    output = forward(attached(vqa(), 0.4), collate(questions(), extra=1))
    assert output.trace.keys() == {"vision", "text", "decoder"}
    assert [block.entered for block in output.trace["decoder"]] == [list(ANSWERS)] * 2
    assert counts(output)["decoder"] == [list(ANSWERS)] * 2
    assert max(counts(output)["text"][-1]) < 12


@pytest.mark.parametrize(("method", "beams"), [("madtp", 3), ("madtp-paper", 1)])
def test_generated_answers_do_not_depend_on_the_batch(method, beams) -> None:
    """Questions keep different numbers of tokens. All beams of a sample attend to the same ones."""
    model, each = attached(vqa(), 0.2, method=method), questions()
    names = ("input_ids", "pixel_values", "attention_mask")
    padded = collate(each)
    together = model.generate(**{name: padded[name] for name in names}, num_beams=beams, max_length=7)
    assert len(set(counts(forward(model, padded))["text"][-1])) > 1
    for sample, row in zip(each, together, strict=True):
        alone = model.generate(**{name: sample[name] for name in names}, num_beams=beams, max_length=7)
        assert up_to_sep(alone[0]) == up_to_sep(row)


def test_generation_agrees_with_teacher_forcing() -> None:
    """Generation uses transformers' decoder step by step, the forward uses packed tokens."""
    model, batch = attached(vqa(), 0.4), collate(questions())
    inputs = {name: batch[name] for name in ("input_ids", "pixel_values", "attention_mask")}
    written = model.generate(**inputs, num_beams=1, max_length=8)
    forced = forward(model, {**inputs, "decoder_input_ids": written[:, :-1]})
    predicted = forced.logits.unflatten(0, (5, -1)).argmax(-1)
    assert forced.memory.sizes is not None
    for row, following in zip(written.tolist(), predicted.tolist(), strict=True):
        length = len(up_to_sep(torch.tensor(row)))
        assert row[1:length] == following[: length - 1]


def test_keys_and_values_of_a_question_are_computed_once() -> None:
    """transformers computes them for each beam, and without a cache for each step."""
    model, rows = attached(vqa(), 0.4), []
    for layer in model.text_decoder.bert.encoder.layer:
        for linear in (layer.crossattention.self.key, layer.crossattention.self.value):
            linear.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))
    memory = forward(model, collate(questions())).memory
    rows.clear()
    model.generate_from(memory, num_beams=3, max_length=6)
    assert rows == [sum(memory.lengths)] * 4


def test_ranking_does_not_depend_on_the_batch_and_takes_the_first_of_equal_scores() -> None:
    """A list can contain an answer twice, and sorting is not stable everywhere."""
    model, each = attached(vqa(), 0.4), questions()
    answers = torch.tensor([[68, 9, 2, 0], [68, 7, 8, 2], [68, 9, 2, 0], [68, 7, 8, 2], [68, 30, 31, 2]])
    mask = (answers > 0).long()
    with torch.no_grad():
        together = model.rank(forward(model, collate(each)).memory, answers, mask, 4)
        alone = [model.rank(forward(model, sample).memory, answers, mask, 4).item() for sample in each]
    assert together.tolist() == alone
    assert set(alone) <= {0, 1, 4}


def test_generate_replaces_the_first_token_by_enc(original, case) -> None:
    """transformers' processor puts [CLS] there, but BLIP was trained with [ENC]."""
    inputs = case["question_ids"][:1].clone()
    pixels = case["pixel_values"][:1].float()
    mask = case["question_mask"][:1]
    expected = original.generate(inputs, pixels, mask)
    inputs[:, 0] = 101
    assert torch.equal(original.generate(inputs, pixels, mask), expected)
    assert inputs[0, 0] == 101


def test_generation_settings_are_applied() -> None:
    """transformers' pipelines pass them. The defaults are those of the original code."""
    model, sample = vqa(), questions()[0]
    memory = forward(model, sample).memory
    assert (model.generation_config.num_beams, model.generation_config.max_length) == (3, 10)
    assert model.generate_from(memory, max_new_tokens=12, min_length=13, num_beams=1).shape == (1, 13)
    assert model.generate_from(memory, num_return_sequences=2, min_length=10).shape == (2, 10)
    settings = copy.deepcopy(model.generation_config)
    settings.update(max_length=4, min_length=4)
    assert model.generate_from(memory, generation_config=settings).shape == (1, 4)


def test_distillation_targets() -> None:
    """The logits leave out those after [SEP]. Of a pruned text, the states of the kept tokens are there."""
    batch = collate(questions())
    targets = forward(vqa(), batch, return_targets=True).targets
    assert targets.keys() == {"logits", "state.image", "state.question", "tokens.vision", "words.text"}
    assert targets["logits"].lengths == [length - 1 for length in ANSWERS]
    pruned = forward(attached(vqa(), 0.4), batch, return_targets=True)
    kept = (pruned.trace["text"][-1].positions >= 0).sum()
    assert len(pruned.targets["words.text"].data) == kept < len(targets["words.text"].data)
    torch.testing.assert_close(pruned.targets["logits"].data[:2], pruned.logits[:2], rtol=0, atol=0)
    torch.testing.assert_close(pruned.targets["logits"].data[2], pruned.logits[3], rtol=0, atol=0)


def test_the_distillation_loss_is_zero_at_threshold_scale_zero() -> None:
    """The teacher's targets are found by sample, also if the samples were in another batch."""
    teacher, each = vqa(), questions()
    teacher_cache = TeacherCache(teacher, CPU)
    teacher_cache.targets(collate(each[2:]))
    batch = {name: value for name, value in collate(each, extra=1).items() if name != "labels"}
    losses = step_losses(attached(teacher, 0.0).train()(**batch), teacher_cache.targets(batch))
    assert losses.keys() == {"logits", "state", "tokens", "words"}
    assert max(losses.values()).item() < 1e-4


def test_both_losses_have_gradients_for_the_dictionary() -> None:
    """The loss of the answers, and the alignment loss of image and question."""
    for part in ("loss", "alignment"):
        model = attached(vqa(), 0.4).train()
        output = model(**collate(questions()))
        getattr(output, part).backward()
        assert all(value.grad.abs().sum() > 0 for value in model.madtp.parameters())


def test_a_loaded_model_gives_the_same_answers(tmp_path) -> None:
    """from_pretrained builds on the meta device, where a forgotten parameter stays unset. Embeddings are tied."""
    model, batch = attached(vqa(), 0.4), collate(questions())
    model.save_pretrained(tmp_path)
    again = MadtpBlipForQuestionAnswering.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(forward(again, batch).logits, forward(model, batch).logits, rtol=0, atol=1e-6)
    memory = forward(model, batch).memory
    assert again.generate_from(memory).tolist() == model.generate_from(memory).tolist()
    embedded = again.text_decoder.bert.embeddings.word_embeddings.weight
    assert again.text_decoder.cls.predictions.decoder.weight is embedded


def test_generation_works_in_half_precision() -> None:
    """Under autocast, as with `--dtype bfloat16`, and with bfloat16 weights."""
    model, batch = attached(vqa(), 0.4), collate(questions())
    with torch.autocast("cpu", torch.bfloat16):
        output = forward(model, batch)
        assert model.generate_from(output.memory, max_length=4).shape[0] == 5
    assert output.logits.isfinite().all()
    whole = forward(model.bfloat16(), {**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    assert whole.logits.dtype == torch.bfloat16
    assert model.generate_from(whole.memory, max_length=4).shape[0] == 5
