"""BLIP for NLVR2: the dense model equals the original code, and a sample does not depend on its batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint import loading
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.pruning import thresholds
from tests.paths import GOLDEN

FOLDER = GOLDEN / "blip_nlvr_a"
THRESHOLD_SCALES = [0.0, 0.2, 0.4, 0.6]


@pytest.fixture(scope="module")
def original() -> MadtpBlipForNLVR2:
    """The golden checkpoint, whose heads are 16 wide."""
    return loading.build(loading.recognise(FOLDER / "checkpoint.pth", CheckpointOverrides(head_width=16))).eval()


@pytest.fixture(scope="module")
def case() -> dict[str, Tensor]:
    """The golden inputs, left images first as in the original code, and the original code's outputs."""
    return load_file(FOLDER / "inputs.safetensors") | load_file(FOLDER / "outputs.safetensors")


def _pairs(case: dict[str, Tensor]) -> Tensor:
    return torch.stack(case["pixel_values"].float().chunk(2), 1)


def forward(model: MadtpBlipForNLVR2, batch: dict[str, Tensor]) -> Any:
    """Run the model without gradients and labels, with distillation targets."""
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)


def counts(output: Any) -> dict[str, list[list[int]]]:
    """Return the number of tokens that left each block, per tower: [blocks][inputs]."""
    return {tower: [block.left for block in blocks] for tower, blocks in output.trace.items()}


def of_sample(counts: dict[str, list[list[int]]], sample: int, batch: int) -> dict[str, list[list[int]]]:
    """Return one sample's part of a batch's counts: its left image, right image and sentence."""
    return {"vision": [[block[sample], block[batch + sample]] for block in counts["vision"]],
            "text": [[block[sample]] for block in counts["text"]]}  # fmt: skip


def test_image_tower_states_equal_the_original_code(original, case) -> None:
    """Everything later depends on these states."""
    with torch.no_grad():
        states = original.encode_images(case["pixel_values"].float(), original.pruner("vision")).data
    torch.testing.assert_close(states.view(8, 37, 48), case["vision.out"], rtol=0, atol=1e-4)


def test_logits_and_loss_equal_the_original_code(original, case) -> None:
    """The whole model: twin cross-attention with mean and with merge layer, padding, head."""
    with torch.no_grad():
        output = original(_pairs(case), case["input_ids"], case["attention_mask"], labels=case["targets"])
    torch.testing.assert_close(output.logits, case["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(output.loss, case["loss"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pair", range(4))
def test_a_single_pair_equals_the_original_code(original, case, pair) -> None:
    """Without padding and without a mask."""
    length = int(case["attention_mask"][pair].sum())
    with torch.no_grad():
        output = original(_pairs(case)[pair : pair + 1], case["input_ids"][pair : pair + 1, :length])
    torch.testing.assert_close(output.logits, case[f"single.{pair}.logits"], rtol=0, atol=1e-4)


def test_threshold_scale_zero_is_the_dense_model(original, case) -> None:
    """A dictionary that is attached but not used must not change a logit or cost anything."""
    student = copy.deepcopy(original)
    student.attach(PruningSettings(threshold_scale=0.0, dictionary_size=5, dictionary_width=12))
    inputs = {"pixel_values": _pairs(case), "input_ids": case["input_ids"], "attention_mask": case["attention_mask"]}
    dense, pruned = forward(original, inputs), forward(student, inputs)
    torch.testing.assert_close(pruned.logits, dense.logits, rtol=0, atol=1e-5)
    assert counts(pruned) == counts(dense)
    assert not any(block.scored for blocks in pruned.trace.values() for block in blocks)


@pytest.mark.parametrize("backend", ["auto", "loop", "padded"])
@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_a_sample_does_not_depend_on_its_batch(attached, collate, samples, threshold_scale, backend) -> None:
    """In the released code it does, since the code keeps the batch's largest token count."""
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
        assert len(set(counts(together)["vision"][-1])) > 1  # otherwise this test would prove nothing


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4], [1, 1]])
def test_the_order_of_a_batch_does_not_matter(attached, collate, samples, order) -> None:
    """The batch is shuffled, shortened, or has one sample twice."""
    model = attached(0.4)
    straight = forward(model, collate(samples))
    mixed = forward(model, collate([samples[number] for number in order]))
    torch.testing.assert_close(mixed.logits, straight.logits[order], rtol=0, atol=1e-5)
    for index, number in enumerate(order):
        assert of_sample(counts(mixed), index, len(order)) == of_sample(counts(straight), number, len(samples))


@pytest.mark.parametrize("threshold_scale", [0.0, 1.0])
def test_padding_does_not_matter(attached, collate, samples, threshold_scale) -> None:
    """In the released code padding is scored like any token and can be kept."""
    model = attached(threshold_scale)
    narrow, wide = forward(model, collate(samples)), forward(model, collate(samples, longest=16, padding=33))
    torch.testing.assert_close(narrow.logits, wide.logits, rtol=0, atol=1e-6)
    assert counts(narrow) == counts(wide)


def test_a_sample_does_not_depend_on_another_samples_content(attached, collate, samples) -> None:
    """Samples do not mix in the towers or between them."""
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
    """The same batch is used for the teacher, the student, and many calibration passes."""
    batch = collate(samples)
    before = {name: value.clone() for name, value in batch.items()}
    model = attached(0.4).train()
    model(**batch).logits.sum().backward()
    assert all(torch.equal(batch[name], value) for name, value in before.items())


def test_image_state_targets_are_ordered_by_pair(attached, collate, samples) -> None:
    """They are [pairs, 2, width], the left image first."""
    model, batch = attached(0.4), collate(samples)
    together = forward(model, batch).targets["state.image"]
    swapped = {**batch, "pixel_values": batch["pixel_values"].flip(1)}
    torch.testing.assert_close(forward(model, swapped).targets["state.image"], together.flip(1), rtol=0, atol=2e-5)
    assert not torch.allclose(together, together.flip(1), atol=0.1)


@pytest.mark.parametrize("threshold_scale", [0.0, 1.0])
def test_several_sentences_per_pair_equal_single_sentences(attached, collate, samples, threshold_scale) -> None:
    """The sentences of a pair share the pair's image tokens."""
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


def test_the_task_loss_has_gradients_for_the_dictionary_and_both_projections(attached, collate, samples) -> None:
    """In the released code the dictionary hardly changes."""
    model = attached(0.4).train()
    model(**collate(samples)).loss.backward()
    assert min(_gradients(model)) > 0


def test_the_alignment_loss_has_gradients_for_the_dictionary_and_both_projections(attached, collate, samples) -> None:
    """The alignment loss of MAG needs no labels."""
    model, batch = attached(0.4).train(), collate(samples)
    batch.pop("labels")
    output = model(**batch)
    assert output.loss is None
    assert 0 <= output.alignment.item() <= 2
    output.alignment.backward()
    assert min(_gradients(model)) > 0


def test_the_alignment_loss_is_computed_only_in_training(attached, collate, samples) -> None:
    """Otherwise every forward would pay for pooling that nothing uses."""
    assert forward(attached(0.4), collate(samples)).alignment is None
    assert forward(attached(0.0).train(), collate(samples)).alignment is None


def test_attach_adds_only_the_dictionary(blip, attached) -> None:
    """The other state-dict keys stay. A second `attach` changes the settings and keeps the learned dictionary."""
    model = attached(0.4)
    own = {"madtp.dictionary", "madtp.projections.vision.weight", "madtp.projections.text.weight"}
    assert model.state_dict().keys() - blip.state_dict().keys() == own
    assert blip.state_dict().keys() <= model.state_dict().keys()
    learned = model.madtp.dictionary
    model.attach(PruningSettings(threshold_scale=3.0, dictionary_size=7, dictionary_width=20))
    assert model.madtp.dictionary is learned
    assert model.pruning.threshold_scale == 3.0


def test_merge_layers_begin_at_merge_from(blip) -> None:
    """In lower layers the outputs for the two images are averaged, as in the original code."""
    layers = blip.text_encoder.encoder.layer
    assert [hasattr(layer.crossattention.output, "merge_layer") for layer in layers] == [False, False, True]


def test_scores_are_float32_under_autocast(attached, collate, samples, monkeypatch) -> None:
    """Importance scores and thresholds of every block and before the first one, as with `--dtype bfloat16`."""
    dtypes, keep_above = [], thresholds.keep_above

    def recorded(score, threshold, mask, min_keep):
        dtypes.append((score.dtype, threshold.dtype))
        return keep_above(score, threshold, mask, min_keep)

    monkeypatch.setattr(thresholds, "keep_above", recorded)
    model = attached(0.4)
    with torch.autocast("cpu", torch.bfloat16):
        output = forward(model, collate(samples))
    assert output.logits.isfinite().all()
    assert dtypes == [(torch.float32, torch.float32)] * 7


def test_training_works_under_autocast(attached, collate, samples) -> None:
    """Forward and backward in bfloat16 leave finite float32 gradients on the dictionary."""
    model = attached(0.4).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**collate(samples))
    (output.loss + output.alignment).backward()
    assert model.madtp.dictionary.grad.dtype == torch.float32
    assert all(value.grad.isfinite().all() for value in model.madtp.parameters())


def test_a_bfloat16_model_prunes(attached, collate, samples) -> None:
    """Tokens in half precision are used together with scores in single precision."""
    model, batch = attached(0.4).bfloat16(), collate(samples)
    output = forward(model, {**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    assert output.logits.dtype == torch.bfloat16
    assert output.logits.isfinite().all()
    assert max(counts(output)["vision"][-1]) < 37


def test_distillation_targets_do_not_change_the_logits(blip, collate, samples) -> None:
    """The targets include the text states after every layer, in packed order."""
    batch = {name: value for name, value in collate(samples).items() if name != "labels"}
    with torch.no_grad():
        output = blip(**batch, return_targets=True)
    torch.testing.assert_close(output.logits, forward(blip, batch).logits, rtol=0, atol=1e-5)
    words = output.targets["words.text"].data
    assert words.shape == (batch["attention_mask"].sum(), 3, 32)
    torch.testing.assert_close(words[0, -1], output.targets["state.text"][0])
