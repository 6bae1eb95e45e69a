"""What all methods have in common, for every method of the folder: limits, monotony, cost, and other batch mates."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.evaluation import sample_costs
from madtp_cli.execution import image_resizing
from madtp_cli.flops import fvcore_check
from madtp_cli.methods import Rule, resize

NAMES = methods.names()
#: Methods that keep the same number of tokens of every sample.
SAME_COUNT = {"evit", "pitome", "random", "static", "tome"}


def inputs_of(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a sample without its labels."""
    return {name: value for name, value in sample.items() if name != "labels"}


@pytest.mark.parametrize("method", NAMES)
def test_a_larger_threshold_scale_costs_less_down_to_the_floor(method: str, attached, collate, samples) -> None:
    """So one number meets any budget, and what is out of reach is known before the first forward pass."""
    samples = samples[:3]
    batch, found = inputs_of(collate(samples)), []
    for scale in (1e-6, 0.1, 1.0, 1e6):
        model = attached(scale, method=method, scales={"text": [0.0] * 3, "vision": [1.0] * 3})
        with torch.no_grad():
            counts = sample_costs.counts_of(model, model(**batch).trace)
        found.append(float(sample_costs.per_sample(model.config, counts).mean()))
    assert all(more >= fewer for more, fewer in pairwise(found))
    lengths = {"text": [int(sample["input_ids"].shape[1]) for sample in samples]}
    floor = sample_costs.per_sample(model.config, sample_costs.least_counts(model, lengths)).mean()
    assert found[-1] == pytest.approx(float(floor), rel=1e-9)
    assert found[-1] < 0.75 * found[0]


@pytest.mark.parametrize("method", sorted(SAME_COUNT))
def test_the_baselines_keep_the_same_number_of_every_image(method: str, attached, collate, samples) -> None:
    """That is what distinguishes them from a dynamic method."""
    model = attached(0.2, method=method, scales={"text": [0.0] * 3, "vision": [1.0] * 3})
    with torch.no_grad():
        trace = model(**inputs_of(collate(samples))).trace
    for block in trace["vision"]:
        assert len(set(block.left)) == 1
        assert block.left[0] < block.entered[0]


@pytest.mark.parametrize("method", NAMES)
def test_the_formula_equals_fvcore(method: str, attached, samples) -> None:
    """Also for the products of the method itself, and for an image of another size."""
    model, sample = attached(0.4, method=method), inputs_of(samples[0])
    with torch.no_grad():
        counts = sample_costs.counts_of(model, model(**sample).trace)
    assert sample_costs.per_sample(model.config, counts).tolist() == [fvcore_check.count_with_fvcore(model, sample)]


@pytest.mark.parametrize("method", NAMES)
def test_a_sample_does_not_depend_on_its_batch(method: str, attached, collate, samples) -> None:
    """Each sample alone gives what it gives in the batch."""
    model, samples = attached(0.4, method=method), samples[:3]
    with torch.no_grad():
        together = model(**inputs_of(collate(samples))).logits
        alone = torch.cat([model(**inputs_of(sample)).logits for sample in samples])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", sorted(SAME_COUNT | {"resize"}))
def test_every_method_can_be_fine_tuned(method: str, attached, collate, samples) -> None:
    """Gradients reach the first block, and the kept tokens are compared with the teacher's at the same places."""
    from madtp_cli.compression import distillation

    model = attached(0.3, method=method, scales={"text": [0.0] * 3, "vision": [float(method != "resize")] * 3}).train()
    batch = collate(samples)
    teacher = attached(0.0, method=method)
    with torch.no_grad():
        targets = teacher(**inputs_of(batch), return_targets=True).targets
    losses = distillation.step_losses(model(**batch), targets)
    torch.stack(list(losses.values())).sum().backward()
    gradient: Any = model.vision_model.encoder.layers[0].self_attn.qkv.weight.grad
    assert gradient.abs().sum() > 0
    assert losses["tokens"].item() > 0


def test_resize_meets_any_number_of_patches_on_average() -> None:
    """9.6 of 16 patches: three fifths of the images get 3 x 4 patches, the others 3 x 3... by the formula."""
    grids = resize.grids(4, Rule(16 / 9.6 - 1))
    patches = [rows * columns for rows, columns in (grids.larger, grids.smaller)]
    assert patches == [12, 9]
    assert grids.share * 12 + (1 - grids.share) * 9 == pytest.approx(9.6)


def test_the_share_of_images_with_the_larger_size_is_as_asked() -> None:
    """The numbers of images are spread evenly, and the same image always has the same number."""
    images = torch.randn(2000, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    numbers = image_resizing.image_numbers(images)
    assert abs(float((numbers < 0.3).float().mean()) - 0.3) < 0.04
    assert torch.equal(image_resizing.image_numbers(images[7:9]), numbers[7:9])


def test_a_smaller_image_is_the_image_that_a_user_would_resize(blip, samples) -> None:
    """Its patches are those of the resized picture, with position embeddings at the same places."""
    pixels = samples[0]["pixel_values"][0, :1]
    embeddings = blip.vision_model.embeddings
    grids = methods.ImageGrids((3, 3), (3, 3), 1.0)
    with torch.no_grad():
        block, mask, positions = image_resizing.embed(embeddings, pixels, grids, 6, padded=False)
        smaller = torch.nn.functional.interpolate(pixels, (24, 24), mode="bicubic", antialias=True)
        expected = embeddings(smaller, interpolate_pos_encoding=True)
    torch.testing.assert_close(block, expected)
    assert mask.all()
    assert positions.tolist() == [0, *[1 + 6 * row + column for row in (1, 3, 5) for column in (1, 3, 5)]]
