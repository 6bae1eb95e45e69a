"""Image encoders alone: parity with transformers, checkpoints, scores, index compatibility and its gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
    pipeline,
)

import madtp_cli
from madtp_cli import models
from madtp_cli.checkpoint import inspection, loading, processors
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.save import save
from madtp_cli.compression import distillation
from madtp_cli.config.gates import GateSettings
from madtp_cli.data import Dataset, Row
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.evaluation import gates, sample_costs
from madtp_cli.evaluation.index_compatibility import index_part
from madtp_cli.evaluation.quality import compared
from madtp_cli.evaluation.run import Measured
from madtp_cli.flops import fvcore_check
from madtp_cli.metrics.nearest_images import neighbours, overlap
from madtp_cli.pipelines import gating
from madtp_cli.reporting.schema import EvalReport
from madtp_cli.tasks import TaskResult
from madtp_cli.tasks.embedding import TASK
from tests import drawing, encoders, siglips

SIZES: dict[str, Any] = dict(
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=48,
    patch_size=8,
)
STOCK = {
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
    "clip with projection": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=28, **SIZES)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SIZES)),
}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def retrieval(request: pytest.FixtureRequest, clip: Any) -> Any:
    """A dense model for retrieval."""
    return clip if request.param == "clip" else siglips.dense()


@pytest.fixture(scope="module")
def pixels(captioned: list[dict[str, Tensor]]) -> Tensor:
    """Five images."""
    return torch.cat([sample["pixel_values"] for sample in captioned])


@pytest.mark.parametrize("name", STOCK)
def test_folders_of_image_encoders_give_the_features_of_transformers(name: str, pixels: Tensor, tmp_path: Path) -> None:
    """They have no text tower and no tokenizer; their keys may lack the beginning that whole models have."""
    stock: Any = STOCK[name]().eval()
    drawing.draw(stock, seed=1)
    stock.save_pretrained(tmp_path)
    own, processor = madtp_cli.load(tmp_path, head_width=16)
    with torch.no_grad():
        expected, found = stock(pixels), own(pixels)
    features = expected.image_embeds if "image_embeds" in expected else expected.pooler_output
    torch.testing.assert_close(found.pooler_output, features, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0], functional.normalize(features, dim=-1), rtol=0, atol=1e-5)
    assert not hasattr(processor, "tokenizer")
    assert inspection.inspect(tmp_path, head_width=16).towers.keys() == {"vision"}
    cost = fvcore_check.count_with_fvcore(own, own.dummy_inputs(1))
    with torch.no_grad():
        counts = sample_costs.counts_of(own, own(pixels[:1]).trace)
    assert sample_costs.per_sample(own.config, counts).tolist() == [cost]


def test_an_encoder_without_pooling_is_refused(tmp_path: Path) -> None:
    """A SigLIP without its head has tokens but no embedding."""
    stock: Any = SiglipVisionModel(SiglipVisionConfig(vision_use_head=False, **SIZES))
    stock.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="without its attention pooling"):
        madtp_cli.load(tmp_path)


def test_a_pruned_encoder_costs_what_fvcore_counts(retrieval: Any, pixels: Tensor) -> None:
    """The sample is one image."""
    model = drawing.attached(encoders.for_task(retrieval, "embedding"), 0.6)
    with torch.no_grad():
        counts = sample_costs.counts_of(model, model(pixels[:1]).trace)
    counted = fvcore_check.count_with_fvcore(model, {"pixel_values": pixels[:1]})
    assert sample_costs.per_sample(model.config, counts).tolist() == [counted]


def test_a_checkpoint_for_retrieval_gives_its_image_tower(retrieval: Any, pixels: Tensor, tmp_path: Path) -> None:
    """Also a pruned one. What is saved is the image tower alone, which serves no task with texts."""
    pruned = drawing.attached(retrieval, 0.5)
    processor = processors.build(retrieval.config, None)
    save(pruned, processor, tmp_path / "retrieval")
    loaded = loading.load(tmp_path / "retrieval", task="embedding")
    with torch.no_grad():
        expected = pruned(pixels).image_embeds
        torch.testing.assert_close(loaded.model(pixels).image_embeds, expected, rtol=0, atol=1e-6)
    save(loaded.model, loaded.processor, tmp_path / "encoder")
    again = loading.recognise(tmp_path / "encoder", CheckpointOverrides(task="retrieval"))
    assert again.task == "embedding"
    assert not any(key.startswith("text_model") for key in again.weights)
    compared = inspection.compare(tmp_path, again)
    assert (compared.refusal, compared.missing, compared.unexpected) == (None, [], [])
    pipe = pipeline("image-feature-extraction", model=str(tmp_path / "encoder"))
    assert type(pipe.model) is models.get(models.kind_of(retrieval.config).replace("retrieval", "embedding"))


def test_a_fine_tune_distils_the_embedding(retrieval: Any, pixels: Tensor) -> None:
    """No label and no text take part."""
    dense = encoders.for_task(retrieval, "embedding")
    student = drawing.attached(dense, 0.6).train()
    with torch.no_grad():
        targets = dense(pixels, return_targets=True).targets
    losses = distillation.step_losses(student(pixels), targets)
    assert losses.keys() == {"state", "embedding", "tokens"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(float(loss.detach()) > 0 for loss in losses.values())
    own = distillation.step_losses(dense(pixels, return_targets=True), targets)
    assert all(abs(float(loss.detach())) < 1e-5 for loss in own.values())


def test_neighbours_are_other_images() -> None:
    """By hand: on a circle at 0, 10, 30 and 180 degrees, the nearest of 10 is 0; a tie goes to the first image."""
    angles = np.deg2rad([0, 10, 30, 180])
    index = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert neighbours(index, index, 10).tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    assert neighbours(index, index[[0, 0, 0, 0]], 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    assert overlap(np.array([[1, 2], [0, 2]]), np.array([[2, 1], [3, 2]])) == [1.0, 0.5]


def _measured(embeddings: Any) -> Measured:
    result = TASK.score(None, list(functional.normalize(torch.as_tensor(embeddings), dim=-1)), ())
    counts: Any = {"vision": SimpleNamespace(entered=np.zeros((1, len(embeddings), 1)))}
    return Measured(result, counts, generation=Any)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def session() -> Any:
    """What the parts of a report need of a session with 40 images."""
    rows = [Row(str(number), (str(number),), "") for number in range(40)]  # type: ignore[arg-type]
    data = Dataset("images", "images", {"test": rows})
    settings = SimpleNamespace(split="test", limit=None, data=Path("images"))
    return SimpleNamespace(task=TASK, data=data, settings=settings, labelled=True)


def test_index_compatibility_compares_with_dense_queries_in_the_dense_index(session: Any) -> None:
    """Of equal embeddings everything is 100 %; of turned ones only a search in their own index still works."""
    dense = _measured(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)))
    same = compared(session, dense, dense)
    part = index_part(session, dense, same)
    assert part is not None
    assert part.cosine == pytest.approx(1)
    both = [part.pruned_in_dense, part.dense_in_pruned, part.pruned_in_pruned]
    assert [(one.top1, one.top10) for one in both] == [(100, 100)] * 3
    assert part.pruned_in_dense.top1_interval95.low == pytest.approx(100 * 40 / (40 + 1.959964**2))
    turned = compared(session, dense, _measured(-dense.result.embeddings))
    assert np.mean(turned.scores) == pytest.approx(-1)
    part = index_part(session, dense, turned)
    assert part is not None
    assert (part.pruned_in_pruned.top1, part.pruned_in_pruned.top10) == (100, 100)
    assert (part.pruned_in_dense.top1, part.dense_in_pruned.top1) == (0, 0)
    assert part.cosine_p5 == pytest.approx(-1)


@pytest.mark.parametrize(
    ("gate", "passing", "failing"),
    [("min_cosine", 0.9, 0.999), ("min_overlap_top1", 20, 99), ("min_overlap_top10", 20, 99)],
)
def test_gates_bound_the_cosine_and_the_overlap(session: Any, gate: str, passing: float, failing: float) -> None:
    """A pipeline can refuse a model whose users would have to embed their images again."""
    generator = torch.Generator().manual_seed(0)
    dense = _measured(torch.randn(40, 8, generator=generator))
    noisy = torch.as_tensor(dense.result.embeddings) + 0.1 * torch.randn(40, 8, generator=generator)
    part = index_part(session, dense, compared(session, dense, _measured(noisy)))
    report = EvalReport.model_construct(index=part, change=None)
    assert gates.decide(report, GateSettings.model_validate({gate: passing})).gates[0].verdict == "pass"
    assert gates.decide(report, GateSettings.model_validate({gate: failing})).gates[0].verdict == "fail"
    with pytest.raises(UsageError, match="is for the task embedding"):
        gating.require_possible(GateSettings.model_validate({gate: passing}), {"task": "vqa"})


def test_answers_are_the_nearest_images() -> None:
    """They show in the samples of a run which image a search finds first."""
    result: TaskResult = replace(_measured(torch.eye(3) + 0.1 * torch.ones(3, 3)).result)
    assert (result.answers, result.scores) == ([1, 0, 0], [])


@pytest.mark.slow
def test_an_image_encoder_goes_through_every_command(tmp_path: Path) -> None:
    """Compressed with a folder of images; evaluated against the dense model that its report names; exported."""
    stock: Any = SiglipVisionModel(SiglipVisionConfig(**{**SIZES, "hidden_size": 128, "num_attention_heads": 2}))
    stock.save_pretrained(tmp_path / "dense")
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(30):
        pixels = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{number:02}.png")
    given: Any = {"data": tmp_path / "images", "batch_size": 4}
    made = madtp_cli.compress(tmp_path / "dense", gflops_budget=0.7, steps=1, output=tmp_path / "pruned", **given)
    assert (made.task, made.quality.samples, made.quality.metric) == ("embedding", 6, TASK.metric)
    assert made.index is not None
    assert made.quality.pruned == pytest.approx(100 * made.index.cosine)
    assert made.quality.dense == pytest.approx(100, abs=1e-3)
    card = (tmp_path / "pruned/README.md").read_text(encoding="utf-8")
    assert f"mean cosine of {made.index.cosine:.5f} to the dense ones" in card
    assert "pipeline_tag: image-feature-extraction" in card
    found = madtp_cli.evaluate(tmp_path / "pruned", min_cosine=-1, min_overlap_top10=0, **given)
    assert found.index is not None
    assert found.index.cosine == pytest.approx(made.index.cosine, abs=1e-5)
    assert found.gates is not None
    assert [gate.verdict for gate in found.gates.gates] == ["pass", "pass"]
    written = madtp_cli.export(tmp_path / "pruned", tmp_path / "encoder.pt2")
    assert list(written.inputs) == ["pixel_values"]
    assert list(written.outputs) == ["image_embedding", "kept_vision"]
    assert written.check.text_tokens is None
