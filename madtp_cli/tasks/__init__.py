"""What a model is asked to do: one task per file, which holds an object `TASK`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from madtp_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from madtp_cli.data.rows import Row


class Task(Protocol):
    """What a file here offers; `unit` is that of `quality`, "percent" for all so far."""

    name: str
    title: str
    metric: str
    unit: str

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Make the arguments of the model's forward; with "labels" if every row has one."""
        ...

    def text_lengths(self, texts: Sequence[str], processor: Any) -> list[int]:
        """Tokens of each text, as `collate` would make them."""
        ...

    def answers(self, outputs: Any) -> list[Tensor]:
        """What the model answers to each sample of a batch, as a label would be."""
        ...

    def correct(self, outputs: Any, batch: dict[str, Tensor]) -> list[float]:
        """How right each sample of the batch is, 0 to 1, against its "labels"."""
        ...

    def quality(self, scores: Sequence[float]) -> float:
        """The metric over all samples, in its unit."""
        ...


def names() -> list[str]:
    """Every task there is; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in names():
        raise UsageError(f"There is no task {name!r}.\nChoose one of: {', '.join(names())}.")
    return cast(Task, importlib.import_module(f"{__name__}.{name}").TASK)
