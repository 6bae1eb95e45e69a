"""BLIP for NLVR2 on packed tokens: dense as the original, and each sample pruned as if alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint import load
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.pruning import thresholds
from tests.paths import GOLDEN

FOLDER = GOLDEN / "blip_nlvr_a"
KNOBS = [0.0, 0.2, 0.4, 0.6]


@pytest.fixture(scope="module")
def original() -> MadtpBlipForNLVR2:
    """The golden checkpoint; its heads are 16 wide."""
    return load.build(load.recognise(FOLDER / "checkpoint.pth", CheckpointOverrides(head_width=16))).eval()


@pytest.fixture(scope="module")
def case() -> dict[str, Tensor]:
    """The golden inputs, left images first as the original takes them, and what the original made of them."""
    return load_file(FOLDER / "inputs.safetensors") | load_file(FOLDER / "outputs.safetensors")


def _pairs(case: dict[str, Tensor]) -> Tensor:
    return torch.stack(case["pixel_values"].float().chunk(2), 1)


def forward(model: MadtpBlipForNLVR2, batch: dict[str, Tensor]) -> Any:
    """Without gradients and labels, with what a student learns from."""
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)


def counts(output: Any) -> dict[str, list[list[int]]]:
    """Tokens that left each block, per tower: [blocks][inputs]."""
    return {tower: [block.left for block in blocks] for tower, blocks in output.trace.items()}


def of_sample(counts: dict[str, list[list[int]]], sample: int, batch: int) -> dict[str, list[list[int]]]:
    """One sample's share of a batch's counts: its left and right image, its sentence."""
    return {"vision": [[block[sample], block[batch + sample]] for block in counts["vision"]],
            "text": [[block[sample]] for block in counts["text"]]}  # fmt: skip


def test_the_image_tower_equals_the_original(original, case) -> None:
    """Everything downstream looks at these states."""
    with torch.no_grad():
        states = original.encode_images(case["pixel_values"].float(), original.pruner("vision")).data
    torch.testing.assert_close(states.view(8, 37, 48), case["vision.out"], rtol=0, atol=1e-4)


def test_logits_and_loss_equal_the_original(original, case) -> None:
    """The whole way through: twin cross-attention by mean and by merge layer, padding, head."""
    with torch.no_grad():
        output = original(_pairs(case), case["input_ids"], case["attention_mask"], labels=case["targets"])
    torch.testing.assert_close(output.logits, case["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(output.loss, case["loss"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pair", range(4))
def test_a_pair_alone_equals_the_original_alone(original, case, pair) -> None:
    """Without padding, and without a mask to say so."""
    length = int(case["attention_mask"][pair].sum())
    with torch.no_grad():
        output = original(_pairs(case)[pair : pair + 1], case["input_ids"][pair : pair + 1, :length])
    torch.testing.assert_close(output.logits, case[f"single.{pair}.logits"], rtol=0, atol=1e-4)


def test_knob_zero_is_the_dense_model(original, case) -> None:
    """A dictionary that is attached but not used must neither change an answer nor cost anything."""
    student = copy.deepcopy(original)
    student.attach(PruningSettings(threshold_scale=0.0, dictionary_size=5, dictionary_width=12))
    inputs = {"pixel_values": _pairs(case), "input_ids": case["input_ids"], "attention_mask": case["attention_mask"]}
    dense, pruned = forward(original, inputs), forward(student, inputs)
    torch.testing.assert_close(pruned.logits, dense.logits, rtol=0, atol=1e-5)
    assert counts(pruned) == counts(dense)
    assert not any(block.scored for blocks in pruned.trace.values() for block in blocks)


@pytest.mark.parametrize("backend", ["auto", "loop", "padded"])
@pytest.mark.parametrize("threshold_scale", KNOBS)
def test_a_sample_alone_equals_itself_in_a_batch(attached, collate, samples, threshold_scale, backend) -> None:
    """The released code keeps the batch's largest count, so answers depended on batch mates."""
    model = attached(threshold_scale)
    model.backend = backend
    together = forward(model, collate(samples))
    for number, sample in enumerate(samples):
        alone = forward(model, sample)
        torch.testing.assert_close(together.logits[number], alone.logits[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            together.targets["state.image"][number], alone.targets["state.image"][0], rtol=0, atol=2e-5
        )
        torch.testing.assert_close(
            together.targets["state.text"][number], alone.targets["state.text"][0], rtol=0, atol=2e-5
        )
        assert of_sample(counts(together), number, len(samples)) == counts(alone)
    if threshold_scale >= 0.2:
        assert len(set(counts(together)["vision"][-1])) > 1  # or this test would say nothing


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4], [1, 1]])
def test_the_order_of_a_batch_does_not_matter(attached, collate, samples, order) -> None:
    """Shuffled, in part, or with a sample twice."""
    model = attached(0.4)
    straight = forward(model, collate(samples))
    mixed = forward(model, collate([samples[number] for number in order]))
    torch.testing.assert_close(mixed.logits, straight.logits[order], rtol=0, atol=1e-5)
    for place, number in enumerate(order):
        assert of_sample(counts(mixed), place, len(order)) == of_sample(counts(straight), number, len(samples))


@pytest.mark.parametrize("threshold_scale", [0.0, 1.0])
def test_padding_never_matters(attached, collate, samples, threshold_scale) -> None:
    """In the released code padding is scored like any token and can be kept."""
    model = attached(threshold_scale)
    narrow, wide = forward(model, collate(samples)), forward(model, collate(samples, longest=16, padding=33))
    torch.testing.assert_close(narrow.logits, wide.logits, rtol=0, atol=1e-6)
    assert counts(narrow) == counts(wide)


def test_another_samples_content_changes_nothing(attached, collate, samples) -> None:
    """Nothing crosses segments, in either tower or between them."""
    model, batch = attached(0.4), collate(samples)
    before = forward(model, batch)
    changed = {name: value.clone() for name, value in batch.items()}
    changed["pixel_values"][1] *= -3
    changed["input_ids"][1, 1:] = 11
    changed["attention_mask"][1] = 1
    after = forward(model, changed)
    others = [0, 2, 3, 4]
    torch.testing.assert_close(after.logits[others], before.logits[others], rtol=0, atol=1e-5)
    assert (after.logits[1] - before.logits[1]).abs().max() > 0.1
    for number in others:
        assert of_sample(counts(after), number, 5) == of_sample(counts(before), number, 5)


def test_arguments_are_not_changed(attached, collate, samples) -> None:
    """The same batch goes to the teacher, the student, and through many passes of calibration."""
    batch = collate(samples)
    before = {name: value.clone() for name, value in batch.items()}
    model = attached(0.4).train()
    model(**batch).logits.sum().backward()
    assert all(torch.equal(batch[name], value) for name, value in before.items())


def test_image_states_are_each_images_own(attached, collate, samples) -> None:
    """[pairs, 2, width], left first: the student is distilled on them one by one."""
    model, batch = attached(0.4), collate(samples)
    together = forward(model, batch).targets["state.image"]
    swapped = {**batch, "pixel_values": batch["pixel_values"].flip(1)}
    torch.testing.assert_close(forward(model, swapped).targets["state.image"], together.flip(1), rtol=0, atol=2e-5)
    assert not torch.allclose(together, together.flip(1), atol=0.1)


@pytest.mark.parametrize("threshold_scale", [0.0, 1.0])
def test_several_sentences_equal_one_by_one(attached, collate, samples, threshold_scale) -> None:
    """Two sentences about each of two pairs share the pairs' image tokens."""
    model = attached(threshold_scale)
    words = collate(samples)
    pixels = torch.cat([samples[0]["pixel_values"], samples[4]["pixel_values"]])
    together = forward(model, {"pixel_values": pixels, "input_ids": words["input_ids"][:4],
                               "attention_mask": words["attention_mask"][:4]})  # fmt: skip
    assert together.logits.shape == (4, 2)
    for sentence in range(4):
        pair = sentence // 2
        alone = forward(model, {"pixel_values": pixels[pair : pair + 1], "input_ids": samples[sentence]["input_ids"]})
        torch.testing.assert_close(together.logits[sentence], alone.logits[0], rtol=0, atol=1e-5)
        assert [block[sentence] for block in counts(together)["text"]] == [b[0] for b in counts(alone)["text"]]


def _gradients(model: MadtpBlipForNLVR2) -> list[float]:
    assert model.madtp is not None
    return [0.0 if value.grad is None else float(value.grad.abs().sum()) for value in model.madtp.parameters()]


def test_the_task_loss_reaches_the_dictionary_and_both_projections(attached, collate, samples) -> None:
    """In the released code the dictionary hardly moves."""
    model = attached(0.4).train()
    model(**collate(samples)).loss.backward()
    assert min(_gradients(model)) > 0


def test_the_alignment_loss_reaches_the_dictionary_and_both_projections(attached, collate, samples) -> None:
    """MAG's own signal, which needs no labels."""
    model, batch = attached(0.4).train(), collate(samples)
    batch.pop("labels")
    output = model(**batch)
    assert output.loss is None
    assert 0 <= output.alignment.item() <= 2
    output.alignment.backward()
    assert min(_gradients(model)) > 0


def test_alignment_is_a_matter_of_training_alone(attached, collate, samples) -> None:
    """Pooling would be paid for in every forward and used in none."""
    assert forward(attached(0.4), collate(samples)).alignment is None
    assert forward(attached(0.0).train(), collate(samples)).alignment is None


def test_attaching_adds_the_dictionary_and_nothing_else(blip, attached) -> None:
    """State-dict keys stay transformers' own; a second attachment changes how to prune, not what was learned."""
    model = attached(0.4)
    own = {"madtp.dictionary", "madtp.projections.vision.weight", "madtp.projections.text.weight"}
    assert model.state_dict().keys() - blip.state_dict().keys() == own
    assert blip.state_dict().keys() <= model.state_dict().keys()
    learned = model.madtp.dictionary
    model.attach(PruningSettings(threshold_scale=3.0, dictionary_size=7, dictionary_width=20))
    assert model.madtp.dictionary is learned
    assert model.pruning.threshold_scale == 3.0


def test_the_merge_layer_begins_where_the_config_says(blip) -> None:
    """Below it both looks are averaged, as in the original."""
    layers = blip.text_encoder.encoder.layer
    assert [hasattr(layer.crossattention.output, "merge_layer") for layer in layers] == [False, False, True]


def test_half_precision_forwards_score_in_float32(attached, collate, samples, monkeypatch) -> None:
    """Importance and thresholds of every block, under autocast as `--dtype bfloat16` runs it."""
    seen, keep_above = [], thresholds.keep_above

    def spied(score, threshold, mask, min_keep):
        seen.append((score.dtype, threshold.dtype))
        return keep_above(score, threshold, mask, min_keep)

    monkeypatch.setattr(thresholds, "keep_above", spied)
    model = attached(0.4)
    with torch.autocast("cpu", torch.bfloat16):
        output = forward(model, collate(samples))
    assert output.logits.isfinite().all()
    assert seen == [(torch.float32, torch.float32)] * 6


def test_autocast_trains(attached, collate, samples) -> None:
    """Forward and backward in bfloat16 leave finite float32 gradients on the dictionary."""
    model = attached(0.4).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**collate(samples))
    (output.loss + output.alignment).backward()
    assert model.madtp.dictionary.grad.dtype == torch.float32
    assert all(value.grad.isfinite().all() for value in model.madtp.parameters())


def test_a_model_wholly_in_bfloat16_prunes(attached, collate, samples) -> None:
    """Tokens in half precision meet scores in single."""
    model, batch = attached(0.4).bfloat16(), collate(samples)
    output = forward(model, {**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    assert output.logits.dtype == torch.bfloat16
    assert output.logits.isfinite().all()
    assert max(counts(output)["vision"][-1]) < 37


def test_what_a_student_learns_from_changes_no_answer(blip, collate, samples) -> None:
    """The teacher gives it beside its logits: every word after every layer, in packing order."""
    batch = {name: value for name, value in collate(samples).items() if name != "labels"}
    with torch.no_grad():
        taught = blip(**batch, return_targets=True)
    torch.testing.assert_close(taught.logits, forward(blip, batch).logits, rtol=0, atol=1e-5)
    words = taught.targets["words.text"].data
    assert words.shape == (batch["attention_mask"].sum(), 3, 32)
    torch.testing.assert_close(words[0, -1], taught.targets["state.text"][0])
