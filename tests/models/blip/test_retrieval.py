"""BLIP for retrieval: the dense model equals transformers' model, a pair does not depend on its batch, and the
losses.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BlipConfig, BlipForImageTextRetrieval

from madtp_cli import models
from madtp_cli.compression import distillation
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution.packed import Packed
from madtp_cli.models.blip.retrieval import MadtpBlipForImageTextRetrieval
from tests.retrieving import CLS, ENC, Batch, attached, collate, dense, samples

CPU = ComputeConfig.of("cpu", "float32")

#: At the last two scales both methods prune, each image and text by a different number of tokens.
THRESHOLD_SCALES = [0.0, 0.5, 0.6]
METHODS = ["madtp", "madtp-paper"]


@pytest.fixture(scope="module")
def blip() -> MadtpBlipForImageTextRetrieval:
    """The dense model; tests must not change it."""
    return dense()


@pytest.fixture(scope="module")
def stock(blip) -> BlipForImageTextRetrieval:
    """transformers' model with the same weights under the same keys."""
    parts = ("vision_config", "text_config", "image_text_hidden_size")
    config = {name: value for name, value in blip.config.to_dict().items() if name in parts}
    model = BlipForImageTextRetrieval(BlipConfig(**config))
    model.load_state_dict(blip.state_dict())
    return model.eval()


def forward(model: MadtpBlipForImageTextRetrieval, batch: Batch, **more: Any) -> Any:
    """Run the model without gradients, with distillation targets."""
    with torch.no_grad():
        return model(**batch, return_targets=True, **more)


def counts(output: Any, sample: int | None = None) -> dict[str, list[list[int]]]:
    """Return the number of tokens that left each block, per tower, of one sample or of all."""
    chosen = slice(None) if sample is None else slice(sample, sample + 1)
    return {tower: [block.left[chosen] for block in blocks] for tower, blocks in output.trace.items()}


def test_the_model_is_found_by_its_configuration(blip) -> None:
    """`checkpoint.load` finds the model class in this way."""
    assert models.get(models.kind_of(blip.config)) is MadtpBlipForImageTextRetrieval


def test_embeddings_equal_those_of_transformers(blip, stock) -> None:
    """All images are compared with all texts, with padding."""
    batch = collate(samples())
    ours = forward(blip, batch)
    with torch.no_grad():
        theirs = stock(**batch, use_itm_head=False).itm_score
    torch.testing.assert_close(ours.image_embedding @ ours.text_embedding.T, theirs, rtol=0, atol=1e-5)


def test_the_matching_score_equals_that_of_transformers_with_enc(blip, stock) -> None:
    """transformers expects [ENC] as first token, but its processor puts [CLS] there."""
    batch = collate(samples())
    ours = forward(blip, batch).logits
    with torch.no_grad():
        wrong = stock(**batch).itm_score
        batch["input_ids"][:, 0] = ENC
        right = stock(**batch).itm_score
    torch.testing.assert_close(ours, right, rtol=0, atol=1e-5)
    assert (ours - wrong).abs().max() > 0.1


@pytest.mark.parametrize("backend", ["auto", "loop", "padded"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_a_sample_does_not_depend_on_its_batch(blip, threshold_scale, method, backend) -> None:
    """Neither padding nor other samples matter, with and without cross-attention."""
    model, each = attached(blip, threshold_scale, method=method), samples()
    model.backend = backend
    together = forward(model, collate(each, longest=16))
    for number, sample in enumerate(each):
        alone = forward(model, sample)
        for name in ("logits", "image_embedding", "text_embedding"):
            torch.testing.assert_close(together[name][number], alone[name][0], rtol=0, atol=1e-5)
        assert counts(together, number) == counts(alone)
    if threshold_scale:  # otherwise this test would prove nothing
        assert len(set(together.trace["vision"][-1].left)) > 1
        assert together.trace["text"][-1].left != together.trace["text"][0].entered


@pytest.mark.parametrize("method", METHODS)
def test_threshold_scale_zero_is_the_dense_model(blip, method) -> None:
    """A dictionary that is attached but not used must not change a logit or cost anything."""
    batch = collate(samples())
    one, other = forward(blip, batch), forward(attached(blip, 0.0, method=method), batch)
    for name in ("logits", "image_embedding", "text_embedding"):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
    assert counts(one) == counts(other)
    assert not any(block.scored for blocks in other.trace.values() for block in blocks)


def test_the_trace_has_both_runs_of_the_text_encoder(blip) -> None:
    """The two runs have separate token counts. They differ only through cross-attention."""
    batch = collate(samples())
    output = forward(attached(blip, 0.5), batch)
    assert list(output.trace) == ["vision", "text", "pair"]
    lengths = batch["attention_mask"].sum(1).tolist()
    assert output.trace["text"][0].entered == output.trace["pair"][0].entered == lengths
    assert min(output.trace["pair"][-1].left) < min(lengths) + 1
    assert not torch.allclose(output.targets["state.text"], output.targets["state.pair"], atol=0.1)


def test_an_unpruned_text_tower_is_unpruned_in_both_runs(blip) -> None:
    """`madtp` does not prune texts. The second run has another name in the trace but the same settings."""
    output = forward(attached(blip, 0.5, scales={"text": [0.0, 0.0]}), collate(samples()))
    for tower in ("text", "pair"):
        assert all(block.entered == block.left and not block.scored for block in output.trace[tower])
    assert output.trace["vision"][-1].left != output.trace["vision"][0].entered


@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_embedding_and_matching_equal_the_forward(blip, threshold_scale) -> None:
    """Evaluation embeds a whole split and matches pairs later. Both must equal the forward, which is counted."""
    model, batch = attached(blip, threshold_scale), collate(samples())
    whole = forward(model, batch)
    with torch.no_grad():
        embedding, tokens = model.embed_images(batch["pixel_values"])
        texts = model.embed_texts(batch["input_ids"], batch["attention_mask"])
        match = model.match(tokens, batch["input_ids"], batch["attention_mask"])
        odds = model.match(tokens, batch["input_ids"], batch["attention_mask"], log_odds=True)
    torch.testing.assert_close(embedding, whole.image_embedding, rtol=0, atol=1e-6)
    torch.testing.assert_close(texts, whole.text_embedding, rtol=0, atol=1e-6)
    torch.testing.assert_close(match, whole.logits[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(odds, whole.logits[:, 1] - whole.logits[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_texts_that_share_an_image_match_as_single_pairs(blip, threshold_scale, method) -> None:
    """The image's keys and values are computed once for its two, one and two texts."""
    model, batch = attached(blip, threshold_scale, method=method), collate(samples())
    with torch.no_grad():
        _, tokens = model.embed_images(batch["pixel_values"][:3])
        shared = model.match(tokens, batch["input_ids"], batch["attention_mask"], [2, 1, 2])
        for text, (image, sample) in enumerate(zip((0, 0, 1, 2, 2), samples(), strict=True)):
            alone = model.match(tokens.part(slice(image, image + 1)), sample["input_ids"])
            torch.testing.assert_close(shared[text], alone[0], rtol=0, atol=1e-5)


def test_match_replaces_the_first_token_by_enc(blip) -> None:
    """A caption is tokenized once for both runs. The caller's tokens are not changed."""
    batch = collate(samples())
    with torch.no_grad():
        _, tokens = blip.embed_images(batch["pixel_values"])
        one = blip.match(tokens, batch["input_ids"], batch["attention_mask"])
        assert (batch["input_ids"][:, 0] == CLS).all()
        batch["input_ids"][:, 0] = ENC
        assert torch.equal(one, blip.match(tokens, batch["input_ids"], batch["attention_mask"]))


def test_dummy_inputs_are_one_image_and_one_text(blip) -> None:
    """`profile --arch` counts them."""
    output = forward(blip, blip.dummy_inputs(6))
    assert output.logits.shape == (1, 2)
    assert counts(output) == {"vision": [[37]] * 3, "text": [[6]] * 2, "pair": [[6]] * 2}


def _loss(model: MadtpBlipForImageTextRetrieval, batch: Batch, labels: list[int]) -> Tensor:
    return forward(model, batch, labels=torch.tensor(labels)).loss


def _matched(model: MadtpBlipForImageTextRetrieval, image: Batch, text: Batch) -> Tensor:
    """Return the matching logits of the image of one sample and the text of another."""
    return forward(model, {**text, "pixel_values": image["pixel_values"]}).logits


def test_the_loss_is_contrastive_plus_matching_with_hardest_negatives(blip) -> None:
    """Computed pair by pair from single forwards: each own pair and the two most similar wrong pairs."""
    each = samples()[:3]
    alone = [forward(blip, sample) for sample in each]
    images, texts = (torch.cat([getattr(one, f"{of}_embedding") for one in alone]) for of in ("image", "text"))
    similar = images @ texts.T
    own = torch.arange(3)
    assert blip.temperature == pytest.approx(0.07, rel=1e-4)
    forth, back = (functional.cross_entropy(way / blip.temperature, own) for way in (similar, similar.T))
    others = similar - 9 * torch.eye(3)
    pairs = [(number, number, 1) for number in range(3)]
    pairs += [(image, int(others[image].argmax()), 0) for image in range(3)]
    pairs += [(int(others[:, text].argmax()), text, 0) for text in range(3)]
    logits = torch.cat([_matched(blip, each[image], each[text]) for image, text, _ in pairs])
    matching = functional.cross_entropy(logits, torch.tensor([truth for *_, truth in pairs]))
    torch.testing.assert_close(_loss(blip, collate(each), [0, 1, 2]), (forth + back) / 2 + matching, rtol=0, atol=1e-4)


def test_captions_of_one_image_are_not_negatives(blip) -> None:
    """With equal labels all pairs match, so every text is as right as the others."""
    first, *others = samples()[:3]
    alike = collate([first, *({**other, "pixel_values": first["pixel_values"]} for other in others)])
    output = forward(blip, alike, labels=torch.tensor([7, 7, 7]))
    similar = output.image_embedding @ output.text_embedding.T / blip.temperature
    contrast = -(functional.log_softmax(similar, 1).mean() + functional.log_softmax(similar, 0).mean()) / 2
    matching = functional.cross_entropy(output.logits, torch.tensor([1, 1, 1]))
    torch.testing.assert_close(output.loss, contrast + matching, rtol=0, atol=1e-5)
    assert _loss(blip, alike, [0, 1, 2]) > output.loss


def test_a_batch_of_one_has_a_loss(blip) -> None:
    """The last batch of a pass may have one sample. Its contrastive loss is zero, its matching loss is not."""
    sample = samples()[0]
    output = forward(blip, sample, labels=torch.tensor([0]))
    torch.testing.assert_close(output.loss, functional.cross_entropy(output.logits, torch.tensor([1])))


def test_negatives_are_not_in_the_trace(blip) -> None:
    """A sample costs one image, one text and one pair, also in training."""
    model, batch = attached(blip, 0.5), collate(samples())
    with_labels = forward(model, batch, labels=torch.arange(5))
    assert counts(with_labels) == counts(forward(model, batch))


@pytest.mark.parametrize("loss", ["loss", "alignment"])
def test_each_loss_has_gradients_for_the_dictionary_and_both_projections(blip, loss) -> None:
    """In the released code the dictionary hardly changes."""
    model = attached(blip, 0.4).train()
    getattr(model(**collate(samples()), labels=torch.arange(5)), loss).backward()
    assert model.madtp is not None
    assert min(float(value.grad.abs().sum()) for value in model.madtp.parameters() if value.grad is not None) > 0
    assert all(value.grad is not None for value in model.madtp.parameters())


def test_negatives_do_not_change_the_alignment_loss(blip) -> None:
    """MAG aligns an image with its own text only."""
    model, batch = attached(blip, 0.4).train(), collate(samples())
    plain, labelled = model(**batch), model(**batch, labels=torch.arange(5))
    torch.testing.assert_close(plain.alignment, labelled.alignment)
    assert labelled.alignment > 0


def test_distillation_targets(blip) -> None:
    """Embeddings, matching logits and both runs of the text. Kept tokens of pruned texts are compared too."""
    teacher = dense().requires_grad_(False)
    batch = {**collate(samples()), "labels": torch.arange(5)}
    targets = TeacherCache(teacher, CPU).targets(batch)
    assert targets.keys() == forward(blip, collate(samples())).targets.keys()
    assert {"words.text", "words.pair"} <= targets.keys()
    learned = distillation.step_losses(attached(blip, 0.5).train()(**batch), targets)
    assert learned.keys() == {"logits", "embedding", "state", "tokens", "words", "contrast", "task", "alignment"}
    assert learned["contrast"] > 1e-3
    same = distillation.step_losses(attached(blip, 0.0).train()(**collate(samples())), targets)
    assert max(loss.item() for loss in same.values()) < 1e-5


def test_distillation_targets_do_not_depend_on_the_batch(blip) -> None:
    """The teacher cache stores them by sample and uses them in other batches."""
    teacher = dense().requires_grad_(False)
    teacher_cache, each = TeacherCache(teacher, CPU), samples()
    for sample in each:
        teacher_cache.targets(sample)
    for name, value in teacher_cache.targets(collate(each[::-1])).items():
        whole = forward(blip, collate(each[::-1])).targets[name]
        one, other = (part.data if isinstance(part, Packed) else part for part in (value, whole))
        torch.testing.assert_close(one.float(), other, rtol=2e-3, atol=2e-3)  # cached tokens have half precision


def test_training_works_under_autocast(blip) -> None:
    """Forward and backward in bfloat16 leave finite gradients everywhere."""
    model = attached(blip, 0.4).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**collate(samples()), labels=torch.arange(5))
    (output.loss + output.alignment).backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


def test_the_temperature_comes_from_the_configuration(blip) -> None:
    """BLIP learns the temperature. transformers' state dict does not have it."""
    blip.config.logit_scale_init_value, before = math.log(1 / 0.02), blip.config.logit_scale_init_value
    try:
        assert blip.temperature == pytest.approx(0.02)
    finally:
        blip.config.logit_scale_init_value = before
