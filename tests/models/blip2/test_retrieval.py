"""BLIP-2 for retrieval equals transformers' class, also where samples keep different numbers of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, Blip2Config, Blip2ForImageTextRetrieval, pipeline

from madtp_cli.checkpoint import loading, processors
from madtp_cli.checkpoint.save import save
from madtp_cli.compression import distillation
from madtp_cli.models.blip2.retrieval import MadtpBlip2ForImageTextRetrieval
from madtp_cli.models.prunable import best_similarities
from madtp_cli.tasks.retrieval import Retrieval
from tests import querying
from tests.drawing import attached
from tests.retrieving import collate, samples
from tests.tasks import words

Batch = dict[str, Tensor]
QUERIES = 5


@pytest.fixture(scope="module")
def model() -> MadtpBlip2ForImageTextRetrieval:
    """The dense model; tests must not change it."""
    return querying.dense()


@pytest.fixture(scope="module")
def original(model: MadtpBlip2ForImageTextRetrieval) -> Blip2ForImageTextRetrieval:
    """transformers' model with the same weights."""
    config = Blip2Config(
        vision_config=model.config.vision_config.to_dict(),
        qformer_config=model.config.text_config.to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=20,
    )
    theirs = Blip2ForImageTextRetrieval(config).eval()
    assert theirs.state_dict().keys() == model.state_dict().keys()
    theirs.load_state_dict(model.state_dict())
    return theirs


def forward(model: Any, batch: Batch, **settings: Any) -> Any:
    """Run a model without gradients."""
    with torch.no_grad():
        return model(**batch, **settings)


def test_the_dense_model_equals_transformers(model, original) -> None:
    """Embeddings, similarities and matching logits, for ragged texts."""
    batch = collate(samples())
    ours, contrast = forward(model, batch), forward(original, batch)
    matched = forward(original, batch, use_image_text_matching_head=True)
    torch.testing.assert_close(ours.image_embedding, contrast.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.text_embedding, contrast.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.logits_per_image, contrast.logits_per_image, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.logits, matched.logits_per_image, rtol=0, atol=1e-5)
    assert ours.logits.std(0).min() > 0.01, "all samples have the same logits, so the comparison proves little"


@pytest.mark.parametrize("settings", [{}, {"method": "madtp-paper"}, {"proportional": False}])
def test_a_sample_does_not_depend_on_its_batch(model, settings) -> None:
    """Each image keeps its own number of tokens, and the queries attend to all of them by their sizes."""
    pruned, each = attached(model, 0.5, **settings), samples()
    together = forward(pruned, collate(each, longest=16))
    assert len(set(together.trace["vision"][-1].left)) > 1
    for number, sample in enumerate(each):
        alone = forward(pruned, sample)
        for name in ("logits", "image_embedding", "text_embedding"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[number], rtol=0, atol=1e-4)


def test_the_queries_attend_to_merged_tokens_by_their_sizes(model) -> None:
    """A token that stands for three patches counts as three equal tokens."""
    images = model.to_tokens(torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(0)))
    sizes = torch.tensor([1.0, 3.0, 1.0, 2.0])
    spread = images.data.repeat_interleave(sizes.long(), 0)[None]
    with torch.no_grad():
        merged = model.query(type(images)(images.data, images.lengths, sizes), model.unpruned("queries"))
        whole = model.query(model.to_tokens(spread), model.unpruned("queries"))
    torch.testing.assert_close(merged, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold_scale", [0.0, 0.5])
def test_matching_several_texts_per_image_equals_matching_pairs(model, threshold_scale) -> None:
    """The keys and values of an image are computed once for all its texts."""
    pruned, batch = attached(model, threshold_scale), collate(samples())
    memory = forward(pruned, batch).memory
    ids, mask = batch["input_ids"].repeat_interleave(2, 0), batch["attention_mask"].repeat_interleave(2, 0)
    with torch.no_grad():
        each = pruned.match(memory, batch["input_ids"], batch["attention_mask"])
        twice = pruned.match(memory, ids, mask, [2] * 5)
        odds = pruned.match(memory, batch["input_ids"], batch["attention_mask"], log_odds=True)
    logits = forward(pruned, batch).logits
    torch.testing.assert_close(each, logits[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(odds, logits[:, 1] - logits[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(twice.view(5, 2), each[:, None].expand(5, 2), rtol=0, atol=1e-5)


def test_the_most_similar_query_counts() -> None:
    """By hand: the second query of the first image equals the text."""
    images = torch.tensor([[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [0.0, 1.0]]])
    found = best_similarities(images, torch.tensor([[0.6, 0.8]]))
    assert found.flatten().tolist() == pytest.approx([1.0, 0.8])


def test_the_task_ranks_by_similarity_and_match(model) -> None:
    """Every pair is a candidate here, so a score is the sum of both."""
    batch = collate(samples())
    output = forward(model, batch)
    captions = {f"captions.{name}": batch[name] for name in ("input_ids", "attention_mask")}
    task = Retrieval(k_test=16)
    with torch.no_grad():
        found = task.predict(model, output, {**batch, **captions, "captions.sample": torch.arange(5)})
        scores, _ = task.candidates(model, found)
        match = model.match(output.memory, batch["input_ids"], batch["attention_mask"])
    expected = output.logits_per_image.diagonal() + match
    torch.testing.assert_close(scores.diagonal(), expected, rtol=0, atol=1e-4)


def test_a_student_learns(model) -> None:
    """Every loss has a gradient, in the image tower, in the Q-Former and in the dictionary."""
    scales = {"vision": [1.0] * 3, "text": [0.0] * 3}  # the states of all words of a text are taught if none is pruned
    student, batch = attached(model, 0.5, scales=scales).train(), collate(samples())
    output = student(**batch, labels=torch.arange(5))
    teacher = forward(model, batch, return_targets=True).targets
    losses = distillation.step_losses(output, teacher)
    assert {"logits", "embedding", "state", "tokens", "words", "contrast", "task", "alignment"} == losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    unused = [name for name, value in student.named_parameters() if value.grad is None or not value.grad.any()]
    # The last layers of the Q-Former have no cross-attention, and a key's bias cancels in the softmax.
    assert [name for name in unused if not name.endswith("key.bias")] == []


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """A saved pruned model."""
    pruned = attached(model, 0.4)
    path: Path = tmp_path_factory.mktemp("saved") / "blip2"
    save(pruned, processors.build(pruned.config, words.tokenizer()), path)
    return path


def test_a_saved_folder_is_loaded_by_madtp_and_by_auto_model(model, folder) -> None:
    """Both give bitwise the same logits."""
    batch = collate(samples())
    expected = forward(attached(model, 0.4), batch).logits
    assert torch.equal(forward(loading.load(folder).model, batch).logits, expected)
    assert torch.equal(forward(AutoModel.from_pretrained(folder), batch).logits, expected)


def test_the_zero_shot_pipeline_gives_the_similarities(folder) -> None:
    """transformers has this pipeline for BLIP-2; it takes one image and several texts."""
    pipe = pipeline("zero-shot-image-classification", model=str(folder))
    labels, picture = ["red ring", "a blue box", "dark"], Image.new("RGB", (60, 50), (200, 30, 60))
    answers = {answer["label"]: answer["score"] for answer in pipe(picture, labels, hypothesis_template="{}")}
    given = pipe.tokenizer(labels, padding=True, return_tensors="pt")
    pixels = pipe.image_processor(picture, return_tensors="pt")["pixel_values"]
    scores = pipe.model.classify(pixels, given["input_ids"], given["attention_mask"])[0].softmax(-1)
    assert [answers[label] for label in labels] == pytest.approx(scores.tolist(), abs=1e-6)
