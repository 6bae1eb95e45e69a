"""Which methods of a comparison can reach which budgets. This needs no forward pass."""

from __future__ import annotations

from collections.abc import Mapping

from madtp_cli.compression.budget import check_reachable, resolve
from madtp_cli.compression.student import prunable_student
from madtp_cli.config import CompareSettings
from madtp_cli.errors import BudgetError, UsageError
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.session import Session


def unreachable(session: Session, settings: CompareSettings) -> Mapping[tuple[str, str], str]:
    """Return why a method cannot reach a budget, by the method and the text of the budget; nothing for the others.

    A method that is not for the model reaches none.

    Raises:
        BudgetError: No method can reach a budget.
    """
    dense = float(sample_costs.dense_gflops(session, "val").mean())
    methods = settings.all_methods()
    reasons = dict[tuple[str, str], str]()
    for method in methods:
        try:
            student = prunable_student(session.model, method)
        except UsageError as error:  # the method is not for this model
            reasons |= {(method, budget.text): str(error).splitlines()[0] for budget in settings.budgets}
            continue
        floor = sample_costs.floor_gflops(session, student, "val")
        for budget in settings.budgets:
            try:
                check_reachable(resolve(budget, dense), floor)
            except BudgetError as error:
                reasons[method, budget.text] = str(error).splitlines()[0]
    if len(reasons) == len(methods) * len(settings.budgets):
        first = next(iter(reasons))
        raise BudgetError(f"No budget can be reached. With {first[0]}: {reasons[first]}\nGive other --budgets.")
    return reasons
