"""ViLT equals transformers' classes, also for images of different sizes, and prunes patches alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from madtp_cli import tasks
from madtp_cli.checkpoint import loading, processors
from madtp_cli.checkpoint.save import save
from madtp_cli.compression import distillation
from madtp_cli.compression.student import prunable_student
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.pruned_samples import Viewer
from madtp_cli.flops import fvcore_check
from madtp_cli.models import architectures
from madtp_cli.models.vilt.family import tokens_of_image
from tests import vilts
from tests.tasks import words

TASKS = ("nlvr2", "vqa")
#: fvcore counts the resizing of position embeddings and masks; the formulas count no interpolation.
INTERPOLATIONS = ("upsample_bilinear2d", "upsample_nearest2d")


def forward(model: Any, batch: dict[str, Tensor], **settings: Any) -> Any:
    """Run a model without gradients."""
    with torch.no_grad():
        return model(**batch, **settings)


@pytest.mark.parametrize("task", TASKS)
def test_the_dense_model_equals_transformers(task) -> None:
    """For padded images and texts of different sizes. transformers draws another order of the patches each time."""
    model, batch = vilts.dense(task), vilts.collate(vilts.samples(task))
    torch.manual_seed(0)
    expected = forward(vilts.original(model), batch).logits
    torch.testing.assert_close(forward(model, batch).logits, expected, rtol=0, atol=1e-5)
    assert expected.std(0).max() > 0.01, "all samples have the same logits, so the comparison proves little"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("settings", [{}, {"method": "madtp-paper"}])
def test_a_sample_does_not_depend_on_its_batch(task, settings) -> None:
    """Neither on the padding of its image nor on that of its text."""
    model, each = vilts.attached(vilts.dense(task), 0.5, **settings), vilts.samples(task)
    together = forward(model, vilts.collate(each))
    assert len(set(together.trace["vision"][-1].left)) > 1
    for number, sample in enumerate(each):
        torch.testing.assert_close(forward(model, sample).logits[0], together.logits[number], rtol=0, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_words_and_the_first_image_token_are_never_pruned(task) -> None:
    """At the largest threshold scale one patch is left."""
    model, each = vilts.attached(vilts.dense(task), 1e9), vilts.samples(task)
    trace = forward(model, vilts.collate(each)).trace
    last = trace["vision"][-1]
    lengths = list(vilts.TEXT_LENGTHS) * (2 if task == "nlvr2" else 1)
    assert last.left == [length + 2 for length in lengths]
    for length, positions in zip(lengths, last.positions.split(last.left), strict=True):
        assert positions[: length + 1].tolist() == list(range(length + 1))


@pytest.mark.parametrize("task", TASKS)
def test_a_student_learns_from_both_modalities(task) -> None:
    """The alignment loss compares the pooled patches with the pooled words of the same stream."""
    dense, batch = vilts.dense(task), vilts.collate(vilts.samples(task))
    student = vilts.attached(dense, 0.5).train()
    labels = torch.ones(5, dtype=torch.long) if task == "nlvr2" else torch.rand(5, len(vilts.ANSWERS))
    output = student(**batch, labels=labels)
    losses = distillation.step_losses(output, forward(dense, batch, return_targets=True).targets)
    assert losses.keys() == {"logits", "state", "tokens", "task", "alignment"}
    output.alignment.backward(retain_graph=True)
    assert student.madtp.dictionary.grad.abs().max() > 0
    words_of = student.vilt.embeddings.text_embeddings.word_embeddings.weight.grad
    assert words_of.abs().max() > 0
    torch.stack(list(losses.values())).sum().backward()
    unused = [name for name, value in student.named_parameters() if value.grad is None or not value.grad.any()]
    assert [name for name in unused if not name.endswith("key.bias")] == []


def test_the_output_of_the_stock_processor_fits() -> None:
    """It returns the two images of a pair one after the other, and a mask."""
    model = vilts.dense("nlvr2")
    processor = processors.build(model.config, words.tokenizer())
    left, right = Image.new("RGB", (60, 50), (200, 30, 60)), Image.new("RGB", (50, 80), (10, 30, 200))
    made = processor(images=[left, right], text="the red ring", return_tensors="pt")
    grouped = {
        name: made[name][None] if name.startswith("pixel") else made[name]
        for name in ("pixel_values", "pixel_mask", "input_ids", "attention_mask")
    }
    flat, pairs = forward(model, dict(made)), forward(model, grouped)
    assert torch.equal(flat.logits, pairs.logits)
    expected = forward(vilts.original(model), grouped)
    torch.testing.assert_close(flat.logits, expected.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 48), (48, 48), (90, 60), (47, 61), (130, 128)])
def test_the_number_of_tokens_follows_from_the_size_of_the_image(size: tuple[int, int]) -> None:
    """The cost of a data set is known without decoding a pixel."""
    model = vilts.dense("vqa")
    processor = processors.build(model.config, words.tokenizer())
    made = processor(images=Image.new("RGB", size), text="red", return_tensors="pt")
    left = forward(model, dict(made)).trace["vision"][-1].left
    assert left == [made["input_ids"].shape[1] + tokens_of_image(*size, model.config.vision_config)]


class Logits(nn.Module):
    """transformers' model with its inputs by position."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, pixel_mask: Tensor) -> Tensor:
        output = self.model(input_ids=ids, attention_mask=mask, pixel_values=pixels, pixel_mask=pixel_mask)
        logits: Tensor = output.logits
        return logits


@pytest.mark.parametrize("task", TASKS)
def test_the_formula_equals_fvcore_for_transformers_model(task) -> None:
    """Without the interpolation of positions, which is no multiply-add of the model."""
    model, sample = vilts.dense(task), vilts.samples(task, square=True)[0]
    pixels = sample["pixel_values"]
    mask = torch.ones_like(pixels[..., 0, :, :]).long()
    analysis = FlopCountAnalysis(Logits(vilts.original(model)), (*sample.values(), mask))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.total() - sum(analysis.by_operator()[name] for name in INTERPOLATIONS)
    dense = sample_costs.dense_counts(model.config, {"text": [sample["input_ids"].shape[1]]})
    assert sample_costs.per_sample(model.config, dense).tolist() == [int(counted)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("threshold_scale", "method"), [(0.0, "madtp"), (0.5, "madtp"), (0.9, "madtp-paper"), (1.0, "madtp-released")]
)
def test_the_formula_equals_fvcore_for_a_pruned_model(task, threshold_scale, method) -> None:
    """Only patches are scored; words count as tokens of every block."""
    model = vilts.attached(vilts.dense(task), threshold_scale, method=method)
    sample = vilts.samples(task, square=True)[0]
    counts = sample_costs.counts_of(model, forward(model, sample).trace)
    assert sample_costs.per_sample(model.config, counts).tolist() == [fvcore_check.count_with_fvcore(model, sample)]


@pytest.mark.parametrize("task", TASKS)
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(task) -> None:
    """Words are protected, so it differs from sample to sample."""
    model, batch = vilts.attached(vilts.dense(task), 1e9), vilts.collate(vilts.samples(task))
    reached = sample_costs.counts_of(model, forward(model, batch).trace)
    images = [[rows * columns + 1] * (2 if task == "nlvr2" else 1) for rows, columns in vilts.GRIDS]
    least = sample_costs.least_counts(model, {"text": list(vilts.TEXT_LENGTHS), "image": images})
    costs = [sample_costs.per_sample(model.config, counts).tolist() for counts in (reached, least)]
    assert costs[0] == costs[1]


def test_published_architectures_have_a_formula() -> None:
    """By hand: 12 blocks of width 768 on 145 + 40 tokens, twice for NLVR2."""
    config: Any = architectures()["vilt-b32-nlvr2"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [40]}))
    tokens = 185
    block = 12 * tokens * 768**2 + 2 * tokens**2 * 768 + 2 * 5 * tokens * 768
    expected = 2 * (12 * block + 144 * 3 * 32**2 * 768 + 5 * tokens * 768)
    assert int(sample_costs.total(costs, "vision")[0]) == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_saved_folder_is_loaded_by_madtp_and_by_auto_model(task, tmp_path: Path) -> None:
    """Both give bitwise the same logits, and the answers are saved."""
    pruned = vilts.attached(vilts.dense(task), 0.4)
    save(pruned, processors.build(pruned.config, words.tokenizer()), tmp_path / "saved")
    batch = vilts.collate(vilts.samples(task))
    expected = forward(pruned, batch).logits
    loaded = loading.load(tmp_path / "saved")
    assert torch.equal(forward(loaded.model, batch).logits, expected)
    assert torch.equal(forward(AutoModel.from_pretrained(tmp_path / "saved"), batch).logits, expected)
    assert loaded.model.config.answers == pruned.config.answers


def test_pictures_show_images_of_any_shape(tmp_path: Path) -> None:
    """A pair of a wide and a tall image: padding is no part of either, and every kept patch is one of its own."""
    sizes = [(96, 48), (48, 72)]
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for file, size in zip(files, sizes, strict=True):
        Image.effect_noise(size, 90).convert("RGB").save(file)
    dense, tokenizer = vilts.dense("nlvr2"), words.tokenizer()
    tokenizer.model_max_length = 16
    processor = processors.build(dense.config, tokenizer)
    processor.image_processor.size_divisor = 8
    task = tasks.prepared("nlvr2", processor, Dataset("statements", "", {}), config=dense.config)
    compute = ComputeConfig(torch.device("cpu"), torch.float32)
    viewer = Viewer(vilts.attached(dense, 0.8), processor, task, compute, dense)
    sample = viewer.view(Row("a", tuple(map(ImageFile, files)), "two red box"))
    found = [(image.rows, image.columns) for image in sample.images]
    assert found == [tuple(side // 8 for side in image.picture.size[::-1]) for image in sample.images]
    assert found == [(5, 9), (9, 6)]
    for image in sample.images:
        last = image.blocks[-1]
        assert 0 < len(last.kept) < image.rows * image.columns
        assert max(last.kept) < image.rows * image.columns
        assert last.tokens == len(last.groups) + 1 + 5  # [CLS] of the image; [CLS], three words and [SEP]


def test_a_method_that_resizes_square_images_is_refused() -> None:
    """It would do nothing here, and the report would call the dense model pruned."""
    with pytest.raises(UsageError, match="keeps the proportions"):
        prunable_student(vilts.dense("vqa"), "resize")
