"""The settings of `compare`, and what they mean for its points."""

from __future__ import annotations

import json

import pytest

from madtp_cli.config import CompareSettings, resolve
from madtp_cli.errors import UsageError
from madtp_cli.pipelines.comparison_points import seeds_of


def test_methods_that_no_seed_changes_are_run_once() -> None:
    """Without fine-tuning, only a dictionary is random; two equal runs would look like two samples."""
    settings = resolve({"seeds": 3, "steps": 0, "seed": 5}, None, {}, CompareSettings)
    assert list(seeds_of(settings, "random")) == list(seeds_of(settings, "tome")) == [5]
    assert list(seeds_of(settings, "madtp")) == list(seeds_of(settings, "static")) == [5, 6, 7]
    trained = resolve({"seeds": 3, "steps": 1}, None, {}, CompareSettings)
    assert list(seeds_of(trained, "tome")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"methods": "madtp,tomes"}, "There is no method 'tomes'. Did you mean tome?"),
        ({"methods": "madtp,,tome"}, "has an empty part"),
        ({"budgets": "0.5,2"}, "A bare budget above 1 has two readings"),
        ({"seeds": 0}, "--seeds"),
        ({"seeds": 2, "seed": 2**32 - 1}, "--seeds: The last of 2 seeds would be above 4294967295."),
    ],
)
def test_wrong_lists_say_what_is_allowed(flags: dict[str, object], message: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(UsageError) as error:
        resolve(flags, None, {}, CompareSettings)
    assert message in str(error.value)


def test_settings_of_a_point_are_those_of_compress() -> None:
    """So a point is what `madtp compress` would make."""
    settings = resolve({"budgets": "50%,0.2", "seed": 4, "steps": 7, "seeds": 2}, None, {}, CompareSettings)
    chosen = settings.point("tome", settings.budgets[0], 5)
    assert (chosen.method, chosen.gflops_budget.number, chosen.seed, chosen.steps) == ("tome", 0.5, 5, 7)
    assert list(settings.all_seeds()) == [4, 5]
    assert json.loads(json.dumps(settings.of_all_points()))["steps"] == 7
    assert "tome" in settings.all_methods()
