"""The result of `madtp export`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from madtp_cli.reporting.schema import ExportCheck, ExportReport


def show(report: ExportReport, out: Console) -> None:
    """Print the file with its inputs and outputs, the check, and the notes."""
    for text in lines(report):
        out.print(text)


def lines(report: ExportReport) -> Iterator[str]:
    """Yield the lines of the result."""
    yield f"{report.file}: task {report.task}, format {report.format}, {report.size_bytes / 1e6:,.1f} MB"
    for kind, tensors in (("inputs", report.inputs), ("outputs", report.outputs)):
        for number, (name, shape) in enumerate(tensors.items()):
            yield f"  {'' if number else kind:<9} {name} [{', '.join(map(str, shape))}]"
    yield _check(report.check)
    for note in report.notes:
        yield f"Note: {note}"


def _check(check: ExportCheck) -> str:
    """State what was compared, the largest difference and the tolerance."""
    batches, kept, words = ", ".join(map(str, check.batch_sizes)), check.kept_image_tokens, check.text_tokens
    texts = "" if words is None else f", with texts of {words.least} to {words.most} tokens"
    tokens = "" if kept is None else f" Images keep {kept.least} to {kept.most} tokens."
    return (
        f"Checked on {check.samples} random samples in batches of {batches}{texts}.{tokens}\n"
        f"Largest difference from the outputs of the model: {check.max_difference:.1e} "
        f"(tolerance {check.tolerance:g})."
    )
