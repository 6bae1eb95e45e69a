"""One checkpoint for many budgets: the curve, the scales of the training steps, and setting another point."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import madtp_cli
from madtp_cli.checkpoint import inspection
from madtp_cli.checkpoint.calibrated_curve import BEYOND, curve_of, scale_at, set_budget
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression import distillation, elastic, threshold_search
from madtp_cli.compression.budget import resolve as budget_of
from madtp_cli.compression.budget import upper_end
from madtp_cli.compression.compress_model import CompressedModel, compress_model
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.config import BudgetRequest, CompareSettings, CompressSettings, resolve
from madtp_cli.errors import BudgetError, UsageError
from madtp_cli.evaluation import run, timing
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import PlannedStage, ProgressReporter


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


@pytest.mark.parametrize("cost", [lambda scale: 0.9, lambda scale: 0.8 if scale < 0.17 else 0.2])
def test_a_gap_that_cannot_be_refined_is_left(cost: Callable[[float], float]) -> None:
    """Each pass over the samples takes minutes, and a cost that jumps or rises does not change when measured again."""
    scales: list[float] = []

    def measure(scale: float) -> float:
        scales.append(scale)
        return cost(scale)

    elastic.refine([[0.1, 0.8], [0.4, 0.2]], measure, 1.0, 0.1)
    assert len(scales) == len(set(scales)) <= 12


@pytest.mark.parametrize(
    ("text", "share"), [("0.2..1", 0.99), ("20%..100%", 0.99), ("0.2..0.8", 0.8), ("1G..10G", 0.99)]
)
def test_a_range_can_end_at_the_dense_cost(text: str, share: float) -> None:
    """Scale 0 costs as much, and is no point of a curve; a request of 1 is near enough to the end."""
    upper = upper_end(BudgetRequest.parse(text), dense=10.0)
    assert upper is not None
    assert upper.share == share
    assert upper.gflops == pytest.approx(10 * share)
    assert upper.share * (1 + BEYOND) >= 1 or share < 0.99


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
    two.restore(one.state())
    assert [one.draw() for _ in range(9)] == [two.draw() for _ in range(9)]


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


@pytest.mark.parametrize(("costs", "points"), [((5.0,), 0), ((9.0, 5.0, 1.0), 0), ((5.2, 5.0, 4.9), 3)])
def test_a_single_point_is_no_curve(attached: Any, costs: tuple[float, ...], points: int) -> None:
    """A search that ends after one pass knows one cost; no other budget can be set from it."""
    target = budget_of(BudgetRequest.parse("0.5"), 10.0)
    final = Calibration(0.2, 5.0, tuple((0.1 * (number + 1), cost) for number, cost in enumerate(costs)))
    session: Any = None
    assert len(elastic.calibrated_curve(session, attached(0.2), target, None, final)) == points


class _Killed(BaseException):
    """Stands for kill -9: nothing handles it."""


class Stages(ProgressReporter):
    """Records the names of stages and of the plan, and can be killed at the start of one."""

    def __init__(self, last: str = "") -> None:
        self.last, self.names, self.planned = last, list[str](), list[str]()

    def plan(self, stages: Sequence[PlannedStage]) -> None:
        """Record the names of the plan."""
        self.planned = [planned.title for planned in stages]

    def start(self, stage: str, total: int) -> None:
        """Record a name."""
        self.names.append(stage)
        if self.last and stage.startswith(self.last):
            raise _Killed


@pytest.fixture
def compressed(checkpoint: Path, tmp_path: Path) -> Callable[[str, ProgressReporter], CompressedModel]:
    """Return a function that compresses for a range, and continues what an earlier call with this name began."""
    values = {"gflops_budget": "0.75..1", "limit": 4, "batch_size": 2, "steps": 10, "device": "cpu"}
    settings: CompressSettings = resolve(values, None, {}, CompressSettings)

    def compress(name: str, progress: ProgressReporter) -> CompressedModel:
        session = Session.open(checkpoint, settings, progress)
        with StateFolder(tmp_path / name) as state:
            state.write_record({})
            return compress_model(session, settings, state, strict=False)

    return compress


def test_every_step_has_the_drawn_scale_also_after_a_validation_and_a_resume(compressed, monkeypatch) -> None:
    """The states after steps 9 and 10 are calibrated. The weights and the curve are equal to the bit."""
    drawn, used = [], []
    draw, losses = elastic.ScaleSampler.draw, distillation._accumulate_gradients

    def draw_recorded(sampler: elastic.ScaleSampler) -> float:
        drawn.append(draw(sampler))
        return drawn[-1]

    def recorded(training: Any, batch: Any) -> Any:
        used.append(training.student.pruning.threshold_scale)
        return losses(training, batch)

    monkeypatch.setattr(elastic.ScaleSampler, "draw", draw_recorded)
    monkeypatch.setattr(distillation, "_accumulate_gradients", recorded)
    stages = Stages()
    whole = compressed("whole", stages)
    assert used == drawn[:10]
    begun = stages.names[stages.names.index("Estimating the time") + 1 :]
    assert begun == [title for title in stages.planned if title in begun]
    assert {"Calibrating the upper end", "Calibrating the curve"} <= set(stages.names)
    with pytest.raises(_Killed):
        compressed("killed", Stages("Validating after step 9"))
    stages, used[:] = Stages(), []
    resumed = compressed("killed", stages)
    assert len(used) == 1
    assert "Calibrating the upper end roughly" not in stages.names
    assert resumed.settings == whole.settings
    assert whole.settings.curve[0][1] > 0.97
    weights = whole.student.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.student.state_dict().items())


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
        assert report.set_budget is not None
        assert report.set_budget.requested == str(request)
        costs.append(report.gflops.share or 0.0)
        # Eight pairs and a model of two blocks: one token of one image is much.
        assert costs[-1] == pytest.approx(request, rel=0.03)
    assert costs == sorted(costs)
    scales = [madtp_cli.load(elastic_folder, gflops_budget=share)[0].pruning for share in (0.95, 0.8, "75%")]
    assert [s.threshold_scale for s in scales if s] == sorted(s.threshold_scale for s in scales if s)
    assert madtp_cli.profile(elastic_folder, split="val", limit=8, fvcore_check=False).set_budget is None
    notes = " ".join(inspection.inspect(elastic_folder).notes)
    assert re.search(r"--gflops-budget can be set to 0\.7\d+ to 0\.9\d+ of the dense GFLOPs", notes)
    with pytest.raises(BudgetError, match=r"was calibrated for 0\.\d+ to 0\.\d+ of the dense GFLOPs, not for 0\.3"):
        madtp_cli.load(elastic_folder, gflops_budget=0.3)


def test_a_checkpoint_without_a_curve_cannot_be_set(checkpoint: Path, attached: Any) -> None:
    """The message says how to get one."""
    with pytest.raises(UsageError, match="is not pruned, so `gflops_budget` cannot be set"):
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
