"""Convert the keyword arguments of the functions in `madtp_cli` to settings and a progress reporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from madtp_cli.config import BudgetRequest, RunSettings, resolve
from madtp_cli.config.sources import nearest
from madtp_cli.errors import UsageError
from madtp_cli.progress import ProgressReporter

Settings = TypeVar("Settings", bound=RunSettings)


def to_settings(kind: type[Settings], keywords: Mapping[str, object], parameters: Sequence[str] = ()) -> Settings:
    """Return the settings of keyword arguments.

    Args:
        kind: The class of the settings.
        keywords: Keyword arguments; None means "not given".
        parameters: The function's other keyword arguments, which an error message can suggest.

    Raises:
        UsageError: A keyword is not a setting, or a value is not allowed.

    >>> to_settings(RunSettings, {"limit": 4, "seed": None}).limit
    4
    """
    for name in keywords:
        if name not in kind.model_fields:
            hint = nearest(name, [*kind.model_fields, *parameters])
            raise UsageError(f"{name} is not a keyword argument of this function.{hint}")
    return resolve(keywords, None, {}, kind, str)


def to_budget(value: str | float | None) -> BudgetRequest | None:
    """Return the budget of a keyword argument, None if it is not given.

    Raises:
        UsageError: It is not a budget.
    """
    try:
        return None if value is None else BudgetRequest.parse(value)
    except ValueError as error:
        raise UsageError(f"gflops_budget: {error}") from None


def to_reporter(progress: bool | ProgressReporter) -> ProgressReporter:
    """Return the reporter, or progress bars for True, or a reporter that ignores everything for False."""
    if isinstance(progress, ProgressReporter):
        return progress
    if not progress:
        return ProgressReporter()
    from madtp_cli.pipelines.progress_bars import ProgressBars

    return ProgressBars()
