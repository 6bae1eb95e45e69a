"""The settings of `compare`: methods, budgets and seeds, and how long to fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from madtp_cli.config import choices
from madtp_cli.config.budget_request import BudgetRequest
from madtp_cli.config.effects import INPUT_PATHS, WITHOUT_EFFECT
from madtp_cli.config.settings import (
    DICTIONARY_LEARNING_RATE,
    CompressSettings,
    RunSettings,
    UserPath,
)

#: Settings of a comparison that say which points there are, or where they are written. A point does not depend on them.
_NOT_OF_A_POINT = {"methods", "budgets", "seeds", "output", "seed", "time"}


def _parts(value: object) -> list[object]:
    """Return the parts of a text with commas, or the elements of a list."""
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else str(value).split(",")
    found = [part.strip() if isinstance(part, str) else part for part in parts]
    if not found or "" in found:
        raise ValueError(f"{value!r} has an empty part. Separate the values with single commas.")
    return list(dict.fromkeys(found))


def _methods(value: object) -> tuple[str, ...]:
    """Read the names of methods."""
    known, names = choices.of("method"), [str(part) for part in _parts(value)]
    for name in names:
        if name not in known:
            hint = choices.did_you_mean(name, known)
            raise ValueError(f"There is no method {name!r}.{hint}\nChoose from: {', '.join(known)}.")
    return tuple(names)


def _budgets(value: object) -> tuple[BudgetRequest, ...]:
    """Read several budgets."""
    budgets = tuple(BudgetRequest.parse(part) for part in _parts(value))
    for budget in budgets:
        if budget.upper is not None:
            raise ValueError(f"{budget.text} is a range. Give single budgets with commas between them.")
    # The first one of those that mean the same, such as 0.5 and 50%.
    return tuple({(budget.unit, budget.number): budget for budget in reversed(budgets)}.values())[::-1]


Methods = Annotated[tuple[str, ...], BeforeValidator(_methods)]
Budgets = Annotated[
    tuple[BudgetRequest, ...],
    BeforeValidator(_budgets),
    PlainSerializer(lambda budgets: [budget.text for budget in budgets], return_type=list[str]),
]


class CompareSettings(RunSettings):
    """The settings of `compare`."""

    methods: Methods | None = None
    """Pruning methods to compare, separated by commas. Default: all methods."""
    budgets: Budgets = Field(default="0.5,0.3,0.2", validate_default=True)
    """Budgets, separated by commas: shares of the dense GFLOPs (0.2 or 20%) or GFLOPs per sample (26.5G)."""
    seeds: int = Field(default=1, ge=1, le=1000)
    """Number of runs of each method at each budget, 1 or more. Each run has another seed for dictionary and
    fine-tuning; the first one is the seed of --seed. A method that no seed changes is run once."""
    output: UserPath | None = None
    """Folder of the results; points that are already there are not computed again. Default: ./CHECKPOINT-comparison."""
    steps: int | None = Field(default=None, ge=0)
    """Number of fine-tuning steps, 0 or more; 0 only calibrates. Default: 360."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of the pretrained weight matrices, above 0, at most 1. Default: 0.007 divided by the width of
    the model, and up to three times as much if pruning has changed the outputs a lot."""
    dictionary_learning_rate: float = Field(default=DICTIONARY_LEARNING_RATE, gt=0, le=1)
    """Peak learning rate of the dictionary and its projections, above 0, at most 1."""
    time: bool = True
    """Time every model too: true or false."""

    def output_for(self, source: Path) -> Path:
        """Return the folder of the results for a checkpoint."""
        return self.output or Path(f"{source.resolve().stem}-comparison")

    def all_methods(self) -> tuple[str, ...]:
        """Return the methods to compare."""
        return self.methods or choices.of("method")

    def all_seeds(self) -> range:
        """Return the seed of each run."""
        return range(self.seed, self.seed + self.seeds)

    def point(self, method: str, budget: BudgetRequest, seed: int) -> CompressSettings:
        """Return the settings of one point."""
        shared: dict[str, Any] = {
            name: getattr(self, name) for name in type(self).model_fields if name not in _NOT_OF_A_POINT
        }
        return CompressSettings(**shared, method=method, gflops_budget=budget, seed=seed)

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: int, info: ValidationInfo) -> int:
        if info.data.get("seed", 0) + seeds > 2**32:
            raise ValueError(f"The last of {seeds} seeds would be above {2**32 - 1}. Give a smaller --seed.")
        return seeds

    def of_all_points(self) -> dict[str, Any]:
        """Return what the result of every point depends on, apart from its method, budget and seed, as JSON values."""
        fields = self.model_dump(mode="json", exclude=_NOT_OF_A_POINT)
        return {name: value for name, value in fields.items() if name not in WITHOUT_EFFECT | INPUT_PATHS}
