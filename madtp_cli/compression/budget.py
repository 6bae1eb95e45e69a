"""The FLOPs budget in both units, and whether a model can reach it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from madtp_cli.config import BudgetRequest
from madtp_cli.errors import BudgetError
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.session import Session
from madtp_cli.flops.counts import CONVENTION
from madtp_cli.models.prunable import Prunable

#: A budget is met if the cost differs by at most this share of the budget.
TOLERANCE = 0.01
#: Highest share at the upper end of a range. At the threshold scale 0 a model is dense, and a curve of scales and costs
#: has no point there; a request of up to 2 % more is still inside the curve.
MOST_SHARE = 0.99


@dataclass(frozen=True)
class Budget:
    """The GFLOPs that a compressed model may cost.

    Attributes:
        requested: The budget as the user wrote it.
        share: The budget as a share of the dense GFLOPs, 0-1.
        gflops: The budget in GFLOPs per sample.
        dense: The GFLOPs per sample of the dense model.
    """

    requested: str
    share: float
    gflops: float
    dense: float

    def __str__(self) -> str:
        part = ", at its lower end" if ".." in self.requested else ""
        return f"budget {self.requested}{part} = {self.gflops:.4g} of {self.dense:.4g} GFLOPs"

    def is_met(self, gflops: float) -> bool:
        """Return whether a cost in GFLOPs per sample meets the budget, see `TOLERANCE`."""
        return abs(gflops - self.gflops) <= TOLERANCE * self.gflops


def resolve(request: BudgetRequest, dense: float) -> Budget:
    """Return the budget in both units, given the dense model's GFLOPs per sample."""
    share = request.number if request.unit == "share" else request.number / dense
    return Budget(request.text, share, share * dense, dense)


def upper_end(request: BudgetRequest, dense: float) -> Budget | None:
    """Return the upper end of a range of budgets, see `MOST_SHARE`; None for one budget."""
    if request.upper is None:
        return None
    end = resolve(request.upper, dense)
    return replace(end, share=MOST_SHARE, gflops=MOST_SHARE * dense) if MOST_SHARE < end.share <= 1 else end


def check_reachable(budget: Budget, floor: float) -> None:
    """Check that a budget lies between the lowest possible cost and the dense cost.

    Args:
        budget: The budget.
        floor: GFLOPs per sample at an infinite threshold scale.

    Raises:
        BudgetError: It does not; the message gives the range.
    """
    if floor <= budget.gflops <= budget.dense * (1 + 1e-9):
        return
    raise BudgetError(
        f"Budget {budget.requested} = {budget.gflops:.4g} GFLOPs cannot be reached: "
        f"this model can cost {floor:.4g} to {budget.dense:.4g} GFLOPs per sample.\n"
        f"Give --gflops-budget {math.ceil(floor / budget.dense * 1000) / 1000:g} to 1."
    )


def feasible_budget(session: Session, student: Prunable, request: BudgetRequest) -> Budget:
    """Return the budget in GFLOPs of the validation samples.

    Raises:
        BudgetError: The student cannot reach it. No forward pass is needed to find out.
    """
    dense = float(sample_costs.dense_gflops(session, "val").mean())
    floor = sample_costs.floor_gflops(session, student, "val")
    target = resolve(request, dense)
    for end in (target, upper_end(request, dense)):
        if end is not None:
            check_reachable(end, floor)
    session.progress.message(f"{target}, {CONVENTION}")
    return target
