"""CLIP's towers: the dense model equals the original code, and a sample does not depend on its batch."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from madtp_cli.checkpoint import loading
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from madtp_cli.models.clip.towers import MadtpClipConfig
from tests.paths import GOLDEN

METHODS = ["madtp", "madtp-paper"]
Batch = dict[str, Tensor]


def golden(case: str, file: str) -> tuple[MadtpClipForRetrieval, Batch]:
    """Return a model from an original checkpoint, with its inputs and the original code's outputs."""
    model: Any = loading.build(loading.recognise(GOLDEN / case / file, CheckpointOverrides()))
    given = load_file(GOLDEN / case / "inputs.safetensors")
    inputs = {"pixel_values": given["pixel_values"].float(), "input_ids": given["token_ids"].long()}
    return model, inputs | load_file(GOLDEN / case / "outputs.safetensors")


@pytest.fixture(scope="module")
def original() -> tuple[MadtpClipForRetrieval, Batch]:
    """OpenAI's checkpoint."""
    return golden("clip_a", "archive.pt")


def forward(model: MadtpClipForRetrieval, batch: Batch) -> Any:
    """Run the model without gradients and labels, with distillation targets."""
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)


def counts(output: Any) -> dict[str, list[list[int]]]:
    """Return the number of tokens that left each block, per tower: [blocks][samples]."""
    return {tower: [block.left for block in blocks] for tower, blocks in output.trace.items()}


def of_sample(counts: dict[str, list[list[int]]], sample: int) -> dict[str, list[list[int]]]:
    """Return one sample's part of a batch's counts."""
    return {tower: [[block[sample]] for block in blocks] for tower, blocks in counts.items()}


def test_features_and_logits_equal_the_original_code(original) -> None:
    """Images, texts of 5 to 77 tokens padded with zeros, and their scaled similarities."""
    model, case = original
    with torch.no_grad():
        images = model.get_image_features(case["pixel_values"]).pooler_output
        texts = model.get_text_features(case["input_ids"]).pooler_output
        logits = model(case["pixel_values"], case["input_ids"]).logits
    torch.testing.assert_close(images, case["image_features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(texts, case["text_features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, case["logits_per_image"], rtol=0, atol=1e-4)


def test_every_block_equals_the_original_code(original) -> None:
    """Tokens after a text's end are not computed. All others equal the original's 77 positions."""
    model, case = original
    blocks: list[Tensor] = []
    hook = model.vision_model.encoder.layers[1].layer_norm1.register_forward_pre_hook(
        lambda _, given: blocks.append(given[0])
    )
    states: list[Tensor] = []
    with torch.no_grad():
        blocks.append(model.encode_images(case["pixel_values"], model.pruner("vision")).data)
        tokens = model.encode_text(case["input_ids"], None, model.pruner("text"), states)
    hook.remove()
    assert tokens.lengths == [5, 11, 77, 8]
    for number in range(2):
        torch.testing.assert_close(blocks[number].view(3, 17, 128), case[f"vision.block.{number}"], rtol=0, atol=2e-4)
        known = torch.cat(
            [row[:length] for row, length in zip(case[f"text.block.{number}"], tokens.lengths, strict=True)]
        )
        torch.testing.assert_close(states[number], known, rtol=0, atol=2e-4)


def test_a_checkpoint_of_the_released_code_at_temperature_zero_is_the_dense_model() -> None:
    """Its dictionary is not used then, and its momentum copies are never used."""
    model, case = golden("madtp_clip_a", "checkpoint.pth")
    assert model.pruning is not None
    model.attach(replace(model.pruning, threshold_scale=0.0))
    with torch.no_grad():
        images = model.get_image_features(case["pixel_values"]).pooler_output
        texts = model.get_text_features(case["input_ids"]).pooler_output
        similar = model.embed_images(case["pixel_values"])[0] @ model.embed_texts(case["input_ids"]).T
    torch.testing.assert_close(images, case["b4/image_features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(texts, case["b4/text_features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(similar, case["batch4.eval.sims"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_dense_model_equals_transformers_clip(clip, collate, captioned, activation) -> None:
    """Same state-dict keys. Texts are padded with the end-of-text token, as transformers' tokenizer does."""
    config = clip.config.to_dict()
    for tower in ("vision_config", "text_config"):
        config[tower]["hidden_act"] = activation
    ours = MadtpClipForRetrieval(MadtpClipConfig.from_dict(config)).eval()
    theirs = CLIPModel(CLIPConfig.from_dict({**config, "model_type": "clip"})).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(clip.state_dict())
    theirs.load_state_dict(clip.state_dict())
    batch = {**collate(captioned, longest=16, padding=69)}
    batch.pop("labels")
    with torch.no_grad():
        own, expected = ours(**batch), theirs(**batch)
        images = ours.get_image_features(batch["pixel_values"]).pooler_output
        texts = ours.get_text_features(batch["input_ids"], batch["attention_mask"]).pooler_output
    torch.testing.assert_close(own.logits_per_image, expected.logits_per_image, rtol=0, atol=2e-5)
    torch.testing.assert_close(own.logits_per_text, expected.logits_per_text, rtol=0, atol=2e-5)
    torch.testing.assert_close(images, expected.vision_model_output.pooler_output, rtol=0, atol=2e-5)
    torch.testing.assert_close(texts, expected.text_model_output.pooler_output, rtol=0, atol=2e-5)


def test_new_weights_are_initialised_as_in_transformers(clip) -> None:
    """from_pretrained leaves weights unset that the file does not have."""
    model = MadtpClipForRetrieval.from_pretrained(None, config=copy.deepcopy(clip.config), state_dict={})
    assert model.visual_projection.weight.std().item() == pytest.approx(48**-0.5, rel=0.1)
    assert model.text_projection.weight.std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert model.logit_scale.item() == pytest.approx(2.6592)
    assert torch.equal(model.text_model.embeddings.position_ids, torch.arange(16)[None])


@pytest.mark.parametrize("method", METHODS)
def test_threshold_scale_zero_is_the_dense_model(clip, attached_clip, collate, captioned, method) -> None:
    """A dictionary that is attached but not used must not change a logit or cost anything."""
    dense, pruned = forward(clip, collate(captioned)), forward(attached_clip(method, 0.0), collate(captioned))
    assert torch.equal(pruned.logits, dense.logits)
    assert counts(pruned) == counts(dense)
    assert not any(block.scored for blocks in pruned.trace.values() for block in blocks)


@pytest.mark.parametrize(
    ("method", "threshold_scale"), [("madtp", 0.0), ("madtp", 0.05), ("madtp-paper", 0.6), ("madtp-paper", 1.2)]
)
@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_a_sample_does_not_depend_on_its_batch(
    attached_clip, collate, captioned, method, threshold_scale, backend
) -> None:
    """In the released code it does: it keeps the batch's largest token count."""
    model = attached_clip(method, threshold_scale)
    model.backend = backend
    together = forward(model, collate(captioned))
    for number, sample in enumerate(captioned):
        alone = forward(model, sample)
        torch.testing.assert_close(together.logits[number, number], alone.logits[0, 0], rtol=0, atol=2e-5)
        for name in ("state.image", "state.text", "embedding.image", "embedding.text"):
            torch.testing.assert_close(together.targets[name][number], alone.targets[name][0], rtol=0, atol=2e-5)
        assert of_sample(counts(together), number) == counts(alone)
    if threshold_scale > 0:
        assert len(set(counts(together)["vision"][-1])) > 1  # otherwise this test would prove nothing


@pytest.mark.parametrize("method", METHODS)
def test_tokens_after_the_end_do_not_matter(attached_clip, collate, captioned, method) -> None:
    """Neither padding with a mask nor, without one, words after the first end-of-text token."""
    model = attached_clip(method, 0.6)
    plain = forward(model, collate(captioned))
    for padding in (0, 69):
        batch = collate(captioned, longest=16, padding=padding)
        batch["input_ids"][0, -2:] = torch.tensor([69, 7])
        own_mask = batch.pop("attention_mask")
        for mask in (own_mask, None, torch.ones_like(own_mask)):
            other = forward(model, batch | ({} if mask is None else {"attention_mask": mask}))
            torch.testing.assert_close(other.logits, plain.logits, rtol=0, atol=2e-5)
            assert counts(other) == counts(plain)


@pytest.mark.parametrize("threshold_scale", [0.9, 1e9])
@pytest.mark.parametrize("method", METHODS)
def test_start_and_end_of_a_text_are_kept_and_the_end_is_last(
    attached_clip, collate, captioned, method, threshold_scale
) -> None:
    """Merged tokens come before the end, since under the causal mask it attends only to earlier tokens."""
    trace = forward(attached_clip(method, threshold_scale, scales={}), collate(captioned)).trace
    lengths, merged = [9, 4, 12, 2, 7], 0
    for block in trace["text"]:
        for own, length in zip(block.positions.split(block.left), lengths, strict=True):
            kept = [position for position in own.tolist() if position >= 0]
            assert (kept[0], kept[-1], own[-1]) == (0, length - 1, length - 1)
            assert kept == sorted(set(kept))
            made = len(own) - len(kept)  # an earlier block's merged token may have been kept
            assert own.tolist() == [*kept[:-1], *[-1] * made, kept[-1]]
            merged += made
    assert (merged > 0) == (method == "madtp-paper")
    assert all(own[0] == 0 for block in trace["vision"] for own in block.positions.split(block.left))


def test_the_method_determines_the_pruned_towers(attached_clip, collate, captioned) -> None:
    """Our method and the paper's prune both towers; most baselines leave captions whole."""
    dtp, paper = (counts(forward(attached_clip(method, 1.0), collate(captioned))) for method in METHODS)
    assert max(sum(tokens["text"][-1]) for tokens in (dtp, paper)) < sum([9, 4, 12, 2, 7])
    assert (
        PruningSettings.preset("tome", {"vision": 48, "text": 32}, {"vision": 3, "text": 4}).scales["text"] == [0] * 4
    )
    for tokens in (dtp["vision"], paper["vision"]):
        assert max(tokens[-1]) < 37


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_caption_works(attached_clip, captioned, method) -> None:
    """It has only start and end, so nothing is scored. It must not make the batch's loss NaN."""
    model = attached_clip(method, 1.0, scales={}).train()
    empty = {**captioned[3], "input_ids": torch.tensor([[68, 69]])}
    output = model(**empty)
    assert counts(output)["text"] == [[2]] * 4
    (output.loss + output.alignment).backward()
    assert all(value.grad.isfinite().all() for value in model.madtp.parameters())


def test_a_second_attach_keeps_the_dictionary(clip, attached_clip) -> None:
    """The other state-dict keys stay those of transformers."""
    model = attached_clip("madtp", 0.4)
    own = {"madtp.dictionary", "madtp.projections.vision.weight", "madtp.projections.text.weight"}
    assert model.state_dict().keys() - clip.state_dict().keys() == own
    learned = model.madtp.dictionary
    model.attach(PruningSettings(threshold_scale=3.0, dictionary_size=7, dictionary_width=20))
    assert model.madtp.dictionary is learned
