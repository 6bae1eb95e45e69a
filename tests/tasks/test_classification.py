"""Zero-shot classification by CLIP and SigLIP: scores, cost, distillation, and checkpoints of other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from examples.training.vocabularies import siglip_tokenizer
from madtp_cli import models
from madtp_cli.checkpoint import inspection, loading, processors
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.save import save
from madtp_cli.compression import distillation
from madtp_cli.data import Row
from madtp_cli.errors import CheckpointError
from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops import fvcore_check
from madtp_cli.tasks.classification import Classification
from tests import drawing, siglips
from tests.clip_words import clip_words

NAMES = ("dog", "cat", "sea horse")
TEMPLATES = ("a photo of a {}.", "art of the {}")


@pytest.fixture(scope="module", params=["clip", "siglip"])
def dense(request: pytest.FixtureRequest, clip: Any) -> Any:
    """A dense classifier with the weights of a model for retrieval."""
    retrieval = clip if request.param == "clip" else siglips.dense()
    config = type(retrieval.config)(**{**retrieval.config.to_dict(), "task": "classification"})
    model = models.get(f"{request.param}.classification")(config).eval()
    model.load_state_dict(retrieval.state_dict())
    return model


@pytest.fixture(scope="module")
def task(dense: Any, tmp_path_factory: pytest.TempPathFactory) -> Classification:
    """The task for that model, with three classes and two templates."""
    tokenizer: Any = siglip_tokenizer(16)
    if not models.family_of(dense.config).padded_texts:
        tokenizer = CLIPTokenizer.from_pretrained(clip_words(tmp_path_factory.mktemp("words"), 70))
    tokenizer.model_max_length = 16
    processor = processors.build(dense.config, tokenizer)
    return Classification().with_templates(TEMPLATES).for_model(dense.config, processor, NAMES)


@pytest.fixture(scope="module")
def pixels(captioned: list[dict[str, Tensor]]) -> Tensor:
    """Five images."""
    return torch.cat([sample["pixel_values"] for sample in captioned])


def embedded(dense: Any, pixels: Tensor) -> list[Tensor]:
    """Return the predictions of the task."""
    with torch.no_grad():
        return list(dense(pixels).image_embeds)


def _clamped(ids: Tensor) -> Tensor:
    """Keep token numbers within the 70 word pieces of the small SigLIP."""
    return ids.clamp_max(69)


@pytest.fixture(autouse=True)
def small_vocabulary(dense: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer of the scenes has more word pieces than the small model."""
    original = dense.text_model.embeddings.forward
    monkeypatch.setattr(dense.text_model.embeddings, "forward", lambda ids: original(_clamped(ids)))


def test_the_embedding_of_a_class_is_the_mean_over_templates(dense: Any, task: Classification) -> None:
    """Of normalised embeddings, and normalised again, as CLIP ensembles its prompts."""
    found = task.class_embeddings(dense)
    one = [task.with_templates([template]).class_embeddings(dense) for template in TEMPLATES]
    torch.testing.assert_close(found, torch.nn.functional.normalize(one[0] + one[1], dim=1), rtol=0, atol=1e-6)


def test_a_template_may_have_other_braces() -> None:
    """They belong to the text; only {} stands for the name of the class."""
    assert Classification(classes=("dog",), templates=("a {small} {} {", "{}")).prompts() == ["a {small} dog {", "dog"]


def test_scores_are_top_1_and_top_5_by_class(dense: Any, task: Classification, pixels: Tensor) -> None:
    """With three classes all labels are among the best five."""
    predictions = embedded(dense, pixels)
    similar = torch.stack(predictions) @ task.class_embeddings(dense).T
    best = similar.argmax(1).tolist()
    labels = [*best[:3], (best[3] + 1) % 3, None]
    rows = [Row(str(number), (), "", label) for number, label in enumerate(labels)]
    result = task.score(dense, predictions, rows)
    assert (result.answers, result.scores, result.unlabelled) == (best, [1.0, 1.0, 1.0, 0.0], 1)
    assert result.parts == {"top-5 accuracy": 100.0}
    assert task.quality(result.scores) == 75
    by_class = {name: [] for name in NAMES}  # type: dict[str, list[float]]
    for label, score in zip(labels[:4], result.scores, strict=True):
        by_class[NAMES[int(label or 0)]].append(score)
    assert result.by_class == {name: scores for name, scores in by_class.items() if scores}


def test_the_texts_of_classes_are_counted_apart(dense: Any, task: Classification, pixels: Tensor) -> None:
    """A sample is one image; the class texts run once, and cost what fvcore counts."""
    model = drawing.attached(dense, 0.6)
    with torch.no_grad():
        counts = sample_costs.counts_of(model, model(pixels[:1]).trace)
    assert sample_costs.per_sample(model.config, counts).tolist() == [
        fvcore_check.count_with_fvcore(model, {"pixel_values": pixels[:1]})
    ]
    runs: list[TextRun] = []
    task.class_embeddings(model, runs.append)
    assert [list(run.texts) for run in runs] == [[6]]
    whole = sample_costs.GenerationCost(model.config)
    whole.recorder(counts)(runs[0])
    assert whole.total == whole.dense > 0


def test_a_fine_tune_distils_embeddings_and_logits(dense: Any, task: Classification, pixels: Tensor) -> None:
    """No label takes part, and the text tower does not change."""
    student = drawing.attached(dense, 0.6).train()
    task.prepare(student)
    task.prepare(dense)
    with torch.no_grad():
        targets = dense(pixels, return_targets=True).targets
    losses = distillation.step_losses(student(pixels), targets)
    assert losses.keys() == {"state", "embedding", "tokens", "logits"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(value.grad is None for value in student.text_model.parameters())
    own = distillation.step_losses(dense(pixels, return_targets=True), targets)
    assert all(abs(float(loss.detach())) < 1e-5 for loss in own.values())


def test_images_with_texts_are_compared_as_for_retrieval(dense: Any, captioned: list[dict[str, Tensor]]) -> None:
    """An exported classifier takes the texts of its classes as inputs."""
    sample = siglips.padded(captioned[0]) if models.family_of(dense.config).padded_texts else captioned[0]
    with torch.no_grad():
        output = dense(sample["pixel_values"], sample["input_ids"])
    assert output.logits.shape == (1, 1)
    assert [block.left for block in output.trace["text"]] == [block.entered for block in output.trace["text"]]


def test_a_checkpoint_for_retrieval_serves_classification(
    dense: Any, task: Classification, tmp_path: Path, clip: Any
) -> None:
    """Their tensors are the same. A pruned one serves classification too, but not the other way round."""
    retrieval = siglips.dense() if models.family_of(dense.config).padded_texts else clip
    pruned = drawing.attached(retrieval, 0.5)
    save(pruned, task.processor, tmp_path / "retrieval")
    recognised = loading.recognise(tmp_path / "retrieval", CheckpointOverrides(task="classification"))
    compared = inspection.compare(tmp_path, recognised)
    assert (compared.refusal, compared.missing, compared.unexpected) == (None, [], [])
    model = loading.build(recognised)
    assert type(model) is type(dense)
    save(model, task.processor, tmp_path / "classification")
    with pytest.raises(CheckpointError, match="pruned for classification"):
        loading.recognise(tmp_path / "classification", CheckpointOverrides(task="retrieval"))
