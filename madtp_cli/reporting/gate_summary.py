"""Gates as text: a sentence for each, and a Markdown table for the summary page of a pipeline."""

from __future__ import annotations

from madtp_cli.errors import printable
from madtp_cli.reporting.gate_parts import GatePart, GatesPart

#: How the summary marks a verdict; GitHub shows the names as symbols.
MARKS = {False: ":white_check_mark:", True: ":x:"}


def sentence(gate: GatePart) -> str:
    """Return a gate with its figure and bound: "speed-up 1.8 x (1.7 to 1.9), at least 2 x allowed"."""
    return f"{gate.figure} {value(gate)}, {allowed(gate)} allowed"


def value(gate: GatePart) -> str:
    """Return the figure of a gate with its unit and interval."""
    interval = "" if gate.interval is None else f" ({gate.interval.low:.4g} to {gate.interval.high:.4g})"
    return f"{gate.value:.4g} {gate.unit}{interval}"


def allowed(gate: GatePart) -> str:
    """Return the bound of a gate with its unit."""
    return f"at {'most' if gate.name.startswith('max_') else 'least'} {gate.bound:.4g} {gate.unit}"


def verdict(gate: GatePart) -> str:
    """Return the verdict, with the reason where it alone does not explain it."""
    if gate.verdict == "anomalous":
        return "anomalous: the quality rose more than --max-gain"
    if gate.verdict == "inconclusive":
        return "inconclusive" if gate.failed else "inconclusive, which is allowed"
    return gate.verdict


def markdown(part: GatesPart, name: str) -> str:
    """Return a Markdown section with the table of the gates.

    Args:
        part: The verdicts.
        name: What was checked.
    """
    lines = [f"### madtp check: {_cell(name)}", "", part.sentence(), ""]
    lines += ["| | gate | figure | bound | verdict |", "|---|---|---|---|---|"]
    for gate in part.gates:
        cells = (gate.figure, value(gate), allowed(gate), verdict(gate))
        lines.append(f"| {MARKS[gate.failed]} | {' | '.join(map(_cell, cells))} |")
    lines += ["", interval_note(part), ""]
    lines += [f"* Differs from the baseline: {_cell(text)}" for text in part.differences]
    return "\n".join(lines) + "\n"


def interval_note(part: GatesPart) -> str:
    """Return how the verdicts were decided."""
    if part.confidence == 0:
        return "The figures alone decide (--confidence 0)."
    return f"Intervals of {part.confidence:.4g} confidence decide; a bound within an interval is inconclusive."


def _cell(text: str) -> str:
    """Return a text that stays in its cell of a Markdown table."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;")
