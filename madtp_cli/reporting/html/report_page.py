"""The page of `madtp report`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from madtp_cli.reporting import plots
from madtp_cli.reporting.html import render
from madtp_cli.reporting.plots import Run
from madtp_cli.reporting.pruned_sample import PrunedSample
from madtp_cli.reporting.schema import CompressReport

#: Parts of a report that the page shows elsewhere, as tables or plots.
SHOWN = ("tokens", "curve", "budgets", "training", "notes")


@dataclass(frozen=True)
class Card:
    """A sample in a page.

    Attributes:
        sample: The sample.
        scores: Its scores in words; "" for none.
        mark: "bad" if the pruned model is worse, "good" if it is better, "" otherwise.
    """

    sample: PrunedSample
    scores: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Gallery:
    """Samples of one kind."""

    title: str
    explanation: str
    cards: Sequence[Card]


def report_page(runs: Sequence[Run], galleries: Sequence[Gallery], notes: Sequence[str]) -> str:
    """Return the page.

    Raises:
        UsageError: Jinja or matplotlib is not installed.
    """
    title = f"Pruning report: {', '.join(run.name for run in runs)}"
    return render(
        "report.html",
        title=title,
        runs=runs,
        plots=plots.all_plots(runs),
        galleries=[gallery for gallery in galleries if gallery.cards],
        notes=list(dict.fromkeys([*notes, *(note for run in runs for note in run.report.notes)])),
        record=record,
        rules={card.sample.method: card.sample.rule for gallery in galleries for card in gallery.cards},
    )


def record(report: CompressReport) -> list[tuple[str, str]]:
    """Return every field of a report that is no table or plot, by its path.

    >>> flat = list(_flat({"a": {"b": 1, "c": [2, 3]}, "d": None}))
    >>> flat
    [('a.b', '1'), ('a.c', '2, 3'), ('d', 'not set')]
    """
    return list(_flat(report.model_dump(mode="json", exclude=set(SHOWN))))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for number, part in enumerate(value, 1):
            yield from _flat(part, f"{path}.{number}")
    else:
        yield path, _words(value)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
