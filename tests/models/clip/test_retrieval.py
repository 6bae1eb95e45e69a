"""CLIP's losses, embeddings, zero-shot classification and distillation targets."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer, pipeline

from madtp_cli.checkpoint import processors
from madtp_cli.compression import distillation
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval, contrastive_loss
from tests.clip_words import clip_words

METHODS = ["madtp", "madtp-paper"]


def forward(model: MadtpClipForRetrieval, batch: dict[str, Tensor]) -> Any:
    """Run the model without gradients and labels, with distillation targets."""
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)


def _contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return contrastive_loss(logits, logits.T, labels[:, None] == labels)


def test_pairs_of_one_image_are_not_negatives() -> None:
    """Computed by hand: rows 0 and 2 are one image, so both texts are right for both."""
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, -1.0], [1.0, 0.0, 2.5]])
    by_image, by_text = logits.log_softmax(1), logits.log_softmax(0)
    right = [[0, 2], [1], [0, 2]]
    expected = sum(
        -by_image[i, j] / len(js) / 6 - by_text[j, i] / len(js) / 6 for i, js in enumerate(right) for j in js
    )
    torch.testing.assert_close(_contrastive_loss(logits, torch.tensor([5, 7, 5])), torch.as_tensor(expected))
    diagonal = (
        functional.cross_entropy(logits, torch.arange(3)) + functional.cross_entropy(logits.T, torch.arange(3))
    ) / 2
    torch.testing.assert_close(_contrastive_loss(logits, torch.arange(3)), diagonal)


def test_labels_give_the_contrastive_loss(clip, collate, captioned) -> None:
    """The loss uses the scaled similarities, as in CLIP's training."""
    batch = collate(captioned)
    with torch.no_grad():
        output = clip(**{**batch, "labels": torch.tensor([0, 1, 0, 3, 4])})
    torch.testing.assert_close(output.loss, _contrastive_loss(output.logits, torch.tensor([0, 1, 0, 3, 4])))
    assert forward(clip, batch).loss is None


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_have_gradients_for_the_dictionary_and_both_projections(
    attached_clip, collate, captioned, method
) -> None:
    """MAG aligns both towers, also an unpruned one."""
    model = attached_clip(method, 0.6).train()
    output = model(**collate(captioned))
    (output.loss + output.alignment).backward()
    assert min(float(value.grad.abs().sum()) for value in model.madtp.parameters()) > 0


def test_distillation_targets_do_not_depend_on_the_batch(clip, attached_clip, collate, captioned) -> None:
    """The teacher cache stores targets by sample, so the similarity matrix is not a target."""
    batch = collate(captioned)
    teacher = forward(clip, batch)
    assert teacher.targets.keys() == {
        *("state.image", "state.text", "embedding.image", "embedding.text", "tokens.vision", "words.text"),
    }
    assert teacher.targets["words.text"].data.shape == (34, 4, 32)
    losses = distillation.step_losses(attached_clip("madtp", 0.6).train()(**batch), teacher.targets)
    assert losses.keys() == {"state", "embedding", "tokens", "words", "contrast", "task", "alignment"}
    assert all(loss.isfinite() for loss in losses.values())
    assert min(losses[name] for name in ("state", "embedding", "tokens", "contrast", "task", "alignment")) > 0
    own = distillation.step_losses(clip(**batch, return_targets=True), teacher.targets)
    assert own.pop("task") > 0
    assert all(abs(loss) < 1e-5 for loss in own.values())


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_are_those_of_the_forward(attached_clip, collate, captioned, method) -> None:
    """A gallery is embedded once, image by image and text by text, and ranked later."""
    model, batch = attached_clip(method, 0.6), collate(captioned)
    output = forward(model, batch)
    with torch.no_grad():
        images, tokens = model.embed_images(batch["pixel_values"])
        texts = model.embed_texts(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(images, output.targets["embedding.image"], rtol=0, atol=2e-5)
    torch.testing.assert_close(texts, output.targets["embedding.text"], rtol=0, atol=2e-5)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(5))
    assert tokens.lengths == output.trace["vision"][-1].left
    torch.testing.assert_close(model.logit_scale.detach().exp() * images @ texts.T, output.logits, rtol=0, atol=1e-4)
    assert not model.reranks


def test_the_loss_limits_the_scale_to_a_hundred(clip, collate, captioned) -> None:
    """CLIP's training does so too. A larger scale from a file still has a gradient, and logits use it."""
    model, batch = copy.deepcopy(clip), collate(captioned)
    losses, logits = [], []
    for scale in (100.0, 400.0):
        model.logit_scale.data.fill_(math.log(scale))
        model.zero_grad()
        output = model(**batch)
        output.loss.backward()
        losses.append(output.loss.item())
        logits.append(output.logits.detach())
        assert model.logit_scale.grad.abs() > 0
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(logits[1], 4 * logits[0], rtol=1e-4, atol=1e-3)
    model.logit_scale.data.fill_(math.log(50))
    assert model(**batch).loss.item() == pytest.approx(
        _contrastive_loss(logits[0] / 2, batch["labels"]).item(), rel=1e-4
    )


def test_zero_shot_classes_are_texts(clip, collate, captioned) -> None:
    """There are as many classes as texts, for any number of images."""
    batch = collate(captioned)
    with torch.no_grad():
        probable = clip.classify(batch["pixel_values"][:2], batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(probable, forward(clip, batch).logits[:2].softmax(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(probable.sum(1), torch.ones(2))


def test_transformers_zero_shot_pipeline_works(attached_clip, tmp_path) -> None:
    """The pipeline passes one image and several labels, and reads `logits_per_image`."""
    words = CLIPTokenizer.from_pretrained(clip_words(tmp_path, 70))
    model = attached_clip("madtp-paper", 0.6)
    ready = processors.build(model.config, words)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    pipe = pipeline(
        "zero-shot-image-classification", model=model, tokenizer=words, image_processor=ready.image_processor
    )
    answers = pipe(picture, candidate_labels=["dog", "cat", "a dog and a cat"], hypothesis_template="{}")
    given = ready(text=["dog", "cat", "a dog and a cat"], images=picture, return_tensors="pt", padding=True)
    with torch.no_grad():
        probable = model.classify(**given)[0]
    for answer in answers:
        number = ["dog", "cat", "a dog and a cat"].index(answer["label"])
        assert answer["score"] == pytest.approx(probable[number].item(), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_images_or_texts_alone_give_their_embeddings(attached_clip, collate, captioned, method) -> None:
    """They are those of the whole forward, which has transformers' names for them too, and the model prunes."""
    model, batch = attached_clip(method, 0.4), collate(captioned)
    whole = forward(model, batch)
    with torch.no_grad():
        images = model(pixel_values=batch["pixel_values"])
        texts = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    torch.testing.assert_close(images.image_embeds, whole.image_embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(texts.text_embeds, whole.text_embeds, rtol=0, atol=1e-6)
    assert (images[0] is images.image_embeds, images.text_embeds) == (True, None)
    assert (texts[0] is texts.text_embeds, texts.image_embeds) == (True, None)
    for tower, alone in (("vision", images), ("text", texts)):
        assert [block.left for block in alone.trace[tower]] == [block.left for block in whole.trace[tower]]


def test_neither_images_nor_texts_is_an_error(clip, captioned, collate) -> None:
    """A loss needs both."""
    with pytest.raises(ValueError, match="nothing to embed"):
        clip()
    with pytest.raises(ValueError, match="compares images with texts"):
        clip(pixel_values=collate(captioned)["pixel_values"], labels=torch.arange(2))


def test_transformers_feature_pipeline_works(attached_clip, tmp_path) -> None:
    """The pipeline passes images alone and returns the first entry of the output."""
    model = attached_clip("madtp", 0.4)
    made = processors.build(model.config, CLIPTokenizer.from_pretrained(clip_words(tmp_path / "words", 70)))
    pipe = pipeline("image-feature-extraction", model=model, image_processor=made.image_processor)
    picture = Image.new("RGB", (70, 60), (200, 30, 60))
    with torch.no_grad():
        embeds = model(**made.image_processor(picture, return_tensors="pt")).image_embeds
    assert pipe(picture) == embeds.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_similarities_are_float32_in_half_precision(attached_clip, collate, captioned, method) -> None:
    """Under autocast and with bfloat16 weights: half precision cannot rank the near neighbours of a gallery."""
    model, batch = attached_clip(method, 0.6), collate(captioned)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = forward(model, batch)
    whole = forward(copy.deepcopy(model).bfloat16(), {**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    for output in (autocast, whole):
        assert output.targets["embedding.image"].dtype == output.logits.dtype == torch.float32
        assert output.logits.isfinite().all()
        assert max(output.trace["vision"][-1].left) < 37
        assert output.trace["text"][0].scored
