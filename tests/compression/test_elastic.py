"""One checkpoint for many budgets: the curve, the scales of the training steps, and setting another point."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import madtp_cli
from madtp_cli.checkpoint.calibrated_curve import curve_of, scale_at, set_budget
from madtp_cli.compression import elastic, threshold_search
from madtp_cli.config import BudgetRequest, CompareSettings, CompressSettings, resolve
from madtp_cli.errors import BudgetError, UsageError
from madtp_cli.evaluation import run, timing
from madtp_cli.evaluation.compute import ComputeConfig


def falling(scale: float) -> float:
    """Return a cost like that of real models: 1 without pruning, steeper in the middle, never below 0.1."""
    return 0.1 + 0.9 / (1 + (scale / 0.08) ** 1.7)


def test_a_refined_curve_gives_every_budget_within_two_percent() -> None:
    """And the cost falls evenly with the request, at points that were measured and between them."""
    curve = elastic.refine(
        curve_of([(0.01, falling(0.01)), (0.3, falling(0.3))]), falling, most=falling(0.01), least=falling(0.3)
    )
    assert len(curve) <= 22
    requests = [0.2 + 0.01 * number for number in range(61)]
    costs = [falling(scale_at(curve, share)) for share in requests]
    assert max(abs(cost / share - 1) for cost, share in zip(costs, requests, strict=True)) <= 0.02
    assert all(less < more for less, more in pairwise(costs))


@given(st.lists(st.tuples(st.floats(1e-6, 10), st.floats(0.01, 1)), max_size=12))
def test_a_curve_falls_everywhere(tried: list[tuple[float, float]]) -> None:
    """Whatever was measured; otherwise a smaller budget could cost more."""
    curve = curve_of(tried)
    assert all(one[0] < two[0] and one[1] > two[1] for one, two in pairwise(curve))


def test_training_steps_are_spread_over_the_range() -> None:
    """Costs between the ends, the same for the same seed; too expensive steps make the next ones cheaper."""
    curve = [[0.05, 0.8], [0.2, 0.2]]
    one, two = (elastic.ScaleSampler(curve, 0.2, 0.8, seed=3) for _ in range(2))
    scales = [one.draw() for _ in range(300)]
    assert scales == [two.draw() for _ in range(300)]
    assert 0.05 <= min(scales) < 0.06
    assert 0.18 < max(scales) <= 0.2
    one.follow(one.aim * 1.5)
    assert one.factor > 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.8..0.2", "is no range"),
        ("0.2..26G", "is no range"),
        ("0.2..", "is no budget"),
        ("0.2..0.3..0.4", "is no range"),
    ],
)
def test_wrong_ranges_say_how_to_write_one(text: str, message: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(UsageError, match=message):
        resolve({"gflops_budget": text}, None, {}, CompressSettings)


def test_a_comparison_takes_no_ranges() -> None:
    """Its rows have one budget each."""
    with pytest.raises(UsageError, match="is a range"):
        resolve({"budgets": "0.2..0.8"}, None, {}, CompareSettings)


@pytest.fixture(scope="module")
def elastic_folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that was compressed for a range."""
    folder = tmp_path_factory.mktemp("elastic") / "model"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "SECONDS", 0.1)
        patched.setattr(threshold_search, "MOST_PASSES", 14)
        madtp_cli.compress(
            checkpoint, gflops_budget="0.75..0.95", steps=2, limit=8, batch_size=8, device="cpu", output=folder
        )
    return folder


@pytest.mark.slow
def test_a_folder_for_a_range_is_set_to_any_budget_in_it(elastic_folder: Path) -> None:
    """By the Python function and by the option, without training, and monotone."""
    costs = []
    for request in (0.75, 0.85, 0.95):
        report = madtp_cli.profile(
            elastic_folder, gflops_budget=request, split="val", limit=8, device="cpu", fvcore_check=False
        )
        costs.append(report.gflops.share or 0.0)
        # Eight pairs and a model of two blocks: one token of one image is much.
        assert costs[-1] == pytest.approx(request, rel=0.03)
    assert costs == sorted(costs)
    scales = [madtp_cli.load(elastic_folder, gflops_budget=share)[0].pruning for share in (0.95, 0.8, "75%")]
    assert [s.threshold_scale for s in scales if s] == sorted(s.threshold_scale for s in scales if s)
    with pytest.raises(BudgetError, match=r"was calibrated for 0\.\d+ to 0\.\d+ of the dense GFLOPs, not for 0\.3"):
        madtp_cli.load(elastic_folder, gflops_budget=0.3)


def test_a_checkpoint_without_a_curve_cannot_be_set(checkpoint: Path, attached: Any) -> None:
    """The message says how to get one."""
    with pytest.raises(UsageError, match="is not pruned, so --gflops-budget cannot be set"):
        madtp_cli.load(checkpoint, gflops_budget=0.5)
    with pytest.raises(UsageError, match="has no calibrated curve"):
        set_budget(attached(0.4), BudgetRequest.parse(0.5), "model")
    with pytest.raises(UsageError, match="gflops_budget: 'half' is no budget"):
        madtp_cli.load(checkpoint, gflops_budget="half")


def test_a_budget_in_gflops_is_a_share_of_the_calibrated_dense_cost(attached: Any, collate: Any, samples: Any) -> None:
    """So both ways to write a budget set the same scale."""
    model = attached(0.4, curve=[[0.1, 0.9], [0.4, 0.3]], dense_gflops=2.0)
    set_budget(model, BudgetRequest.parse("1G"), "model")
    by_gflops = model.pruning.threshold_scale
    set_budget(model, BudgetRequest.parse(0.5), "model")
    assert model.pruning.threshold_scale == by_gflops
    batch = {name: value for name, value in collate(samples).items() if name != "labels"}
    with torch.no_grad():
        assert run.mean_gflops(model, [batch], ComputeConfig.of("cpu", "float32")) > 0
