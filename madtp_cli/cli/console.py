"""What a person sees: progress and warnings on stderr, results on stdout."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from madtp_cli.cli import formatting
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import (
    CompressReport,
    DataReport,
    EvalReport,
    GenerationPart,
    LatencyPart,
    LayerPart,
    ProfileReport,
)

#: Seconds between plain progress lines where stderr is no terminal.
PLAIN_EVERY = 15.0
#: Wide enough for every table; what reads a pipe wraps by itself.
PIPE_WIDTH = 10_000


class _Console(Console):
    """Leaves text as it is; wraps lines on a terminal only, since a pipe has no width."""

    def __init__(self, stream: TextIO, *, stderr: bool = False) -> None:
        interactive = stream.isatty() and "CI" not in os.environ
        plain: dict[str, Any] = dict(highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty())
        super().__init__(
            stderr=stderr, force_interactive=interactive, width=None if stream.isatty() else PIPE_WIDTH, **plain
        )

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class Terminal(ProgressReporter):
    """Speaks to the user; also the listener of a run. `verbosity` below 0 is silence."""

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self.out, self.err = _Console(sys.stdout), _Console(sys.stderr, stderr=True)
        self._bar: Progress | None = None
        self._title, self._total, self._told, self._started = "", 0, 0.0, 0.0
        self._depth = 0

    def say(self, text: str) -> None:
        """A note, on stderr."""
        if self.verbosity >= 0:
            self.err.print(Text(text, style="dim"))  # a style of print would dim the bar below it

    def stage(self, title: str, total: int) -> None:
        """A stage begins; a bar on a terminal, plain lines elsewhere. A stage within one stays silent."""
        self._depth += 1
        if self._depth > 1 or self.verbosity < 0:
            return
        self._title, self._total, self._told, self._started = title, total, time.monotonic(), time.monotonic()
        if self.err.is_interactive and self.err.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn()]
            self._bar = Progress(
                *columns, TextColumn("{task.fields[detail]}", markup=False), console=self.err, transient=True
            )
            self._bar.add_task(title, total=total or None, detail="")
            self._bar.start()

    def advance(self, done: int, detail: str = "") -> None:
        """The stage has come so far."""
        if self._depth > 1:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, detail=detail)
        elif self._title and time.monotonic() - self._told > PLAIN_EVERY:
            self._told = time.monotonic()
            self.err.print(f"{self._title}: {self._progress(done)}{detail}")

    def _progress(self, done: int) -> str:
        if not self._total or not done:
            return ""
        left = (time.monotonic() - self._started) / done * (self._total - done)
        return f"{done:,} of {self._total:,}, about {_duration(left)} left. "

    def done(self) -> None:
        """The stage is over."""
        self._depth -= 1
        if self._depth or not self._title:
            return
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self.say(f"{self._title}: {_duration(time.monotonic() - self._started)}")
        self._title = ""

    def fail(self, message: str, error: BaseException | None = None) -> None:
        """An error on stderr, which ends the run; its traceback before it, if it is given."""
        if self._bar is not None:
            self._bar.stop()
        if error is not None:
            self.err.print("".join(traceback.format_exception(error)), soft_wrap=True, end="")
        self.err.print(f"Error: {message}", style="red", soft_wrap=True)

    def show_compress(self, report: CompressReport) -> None:
        """The result table of `compress`."""
        quality, gflops, latency, budget = report.quality, report.gflops, report.latency, report.budget
        table = Table(title=f"{report.output}: {_count(quality.samples, f'{quality.split} sample')} of {report.data}")
        for column in ("", "dense", "pruned", "change"):
            table.add_column(column, justify="left" if column in ("", "change") else "right")
        table.add_row("GFLOPs per sample", f"{gflops.dense:.4g}", f"{gflops.pruned:.4g}", f"{gflops.share:.3f}x")
        low, high = quality.interval95
        table.add_row(
            f"{quality.metric}, %" if quality.unit == "points" else quality.metric,
            f"{quality.dense:.2f}",
            f"{quality.pruned:.2f}",
            f"{quality.change:+.2f} {'points' if quality.unit == 'points' else '%'} (95 %: {low:+.2f} to {high:+.2f})",
        )
        for name, (dense, pruned) in quality.parts.items():
            table.add_row(f"  {name}, %", f"{dense:.2f}", f"{pruned:.2f}", f"{pruned - dense:+.2f} points")
        table.add_row(
            f"ms per sample, batch {latency.batch_size}",
            f"{latency.dense_ms:.2f}",
            f"{latency.pruned_ms:.2f}",
            f"speed {latency.speedup:.2f}x ({latency.device}, {latency.dtype})",
        )
        self.out.print(table)
        self.out.print(
            f"Budget {budget.requested}: {budget.achieved_val:.4g} of {budget.gflops:.4g} GFLOPs on "
            f"{_count(budget.samples, 'validation sample')} ({budget.achieved_val / budget.gflops - 1:+.2%}); "
            "other samples may cost a little more or less."
        )
        self._answering(report.answering)
        for tower, layers in report.tokens.items():
            self.out.print(f"{tower.capitalize()} tokens by layer: {_flow(layers)}")
        self._notes(report.notes)
        self.out.print(f"GFLOPs are {gflops.convention}.")
        self.out.print("Token pruning saves compute, not bytes: the folder holds all weights, in float32.")
        self.out.print(f'Load it: madtp_cli.load("{report.output}")')

    def show_eval(self, report: EvalReport) -> None:
        """The result of `eval`."""
        quality, gflops = report.quality, report.gflops
        low, high = quality.interval95
        self.out.print(
            f"{report.checkpoint}: {quality.metric} {quality.value:.2f}{' %' if quality.unit == 'percent' else ''} "
            f"(95 %: {low:.2f} to {high:.2f}) on {_count(quality.samples, f'{quality.split} sample')} of {report.data}",
        )
        if quality.parts:
            self.out.print(", ".join(f"{name} {value:.2f} %" for name, value in quality.parts.items()))
        pruned = "" if gflops.pruned is None else f", pruned {gflops.pruned:.4g} ({gflops.share:.3f}x)"
        self.out.print(f"GFLOPs per sample: dense {gflops.dense:.4g}{pruned}; {gflops.convention}")
        self._answering(report.answering)
        self._notes(report.notes)

    def show_profile(self, report: ProfileReport) -> None:
        """The tables of `profile`."""
        table = Table(title=f"{report.checkpoint}: {_count(report.samples, 'sample')} of {report.data}")
        for column in ("layer", "tokens in", "tokens out", "5 % to 95 %", "GFLOPs", "share"):
            table.add_column(column, justify="left" if column == "layer" else "right")
        total = sum(report.towers.values())
        for layer in report.layers:
            table.add_row(
                f"{layer.tower} {layer.layer}",
                "" if layer.tokens_in is None else f"{layer.tokens_in:.1f}",
                "" if layer.tokens_out is None else f"{layer.tokens_out:.1f}",
                "" if layer.tokens_out_p5 is None else f"{layer.tokens_out_p5:.0f} to {layer.tokens_out_p95:.0f}",
                f"{layer.gflops:.4g}",
                f"{layer.gflops / total:.1%}",
            )
        for tower, gflops in report.towers.items():
            table.add_row(f"{tower}, all", "", "", "", f"{gflops:.4g}", f"{gflops / total:.1%}", style="bold")
        self.out.print(table)
        counts = report.gflops
        pruned = "" if counts.pruned is None else f", pruned {counts.pruned:.6g} ({counts.share:.3f}x)"
        self.out.print(f"GFLOPs per sample: dense {counts.dense:.6g}{pruned}; {counts.convention}")
        self.out.print(
            f"fvcore counts {counts.fvcore:.6g} on {_count(counts.fvcore_samples, 'sample')}, "
            f"the formula {counts.formula:.6g}."
        )
        self._answering(report.answering)
        self._times(report.latency)
        self.out.print(f"Parameters: {report.parameters:,}")
        self._notes(report.notes)

    def show_inspection(self, found: Mapping[str, Any]) -> None:
        """What `inspect` recognised."""
        table = Table(title=found["source"], show_header=False)
        table.add_row("format", found["format"])
        table.add_row("task", found["task"])
        for tower, sizes in found["towers"].items():
            described = [f"{name.replace('_', ' ')} {size}" for name, size in sizes.items()]
            table.add_row(f"{tower} tower", ", ".join(described))
        table.add_row("parameters", f"{found['parameters']:,} ({found['precision']})")
        if not found["refusal"]:
            missing, unexpected = len(found["missing"]), len(found["unexpected"])
            table.add_row("keys", f"{found['matched']} matched, {missing} missing, {unexpected} unexpected")
        for name in ("missing", "unexpected"):
            if found[name]:
                table.add_row(name, _some(found[name]))
        for key, (file, model) in found["reshaped"].items():
            table.add_row("other shape", f"{key}: {file} in the file, {model} in the model")
        for reason, keys in found["dropped"].items():
            table.add_row("left out", f"{len(keys)} {reason}")
        self.out.print(table)
        self._notes(found["notes"])
        if found["refusal"]:
            self.out.print(f"Cannot be compressed: {found['refusal']}")
        elif found["missing"] or found["reshaped"]:
            self.out.print("Cannot be compressed: the file is incomplete or inconsistent; download or copy it again.")

    def show_data(self, report: DataReport) -> None:
        """What `data` recognised."""
        tasks = formatting.alike(report.tasks)
        layouts = " and ".join(dict.fromkeys(part.layout for part in tasks.values()))
        table = Table(title=f"{report.path}: {layouts}")
        for column in ("", *report.images):
            table.add_column(column, justify="right" if column else "left")
        for names, task in tasks.items():
            table.add_row(f"{names} rows", *[formatting.balance(task.splits.get(split)) for split in report.images])
        parts = report.images.values()
        table.add_row("images", *[f"{part.images:,}" for part in parts])
        table.add_row("missing", *[f"{part.missing:,}" for part in parts])
        table.add_row("unreadable", *[f"{part.unreadable:,} of {part.checked:,} checked" for part in parts])
        self.out.print(table)
        for names, task in tasks.items():
            for sample in task.samples:
                self.out.print(f"{names}: {formatting.sample(sample)}")
        for part in parts:
            for name in part.missing_first:
                self.out.print(f"Missing: {formatting.line(name)}")
            for complaint in part.unreadable_first:
                self.out.print(f"Unreadable: {formatting.line(complaint)}")
        for twice in report.duplicates:
            where, names = " and ".join(twice.splits), formatting.line(", ".join(twice.first))
            self.out.print(f"Warning: {_count(twice.images, 'image')} both in {where}: {names}")
        self._notes(report.notes)

    def show_scenes(self, written: Mapping[str, Any]) -> None:
        """What `scenes` wrote."""
        table = Table(title=str(written["folder"]))
        splits = written["splits"].values()
        kinds = sorted({kind for split in splits for kind in split["kinds"]})
        judged = ["judged by text alone"] if kinds else []
        for column in ("", *written["splits"], *judged):
            table.add_column(column, justify="left" if not column else "right")
        for kind in ("all", *kinds):
            text = written["text_only"].get(kind)
            alone = [f"{text['accuracy']:.1f} % of {text['samples']:,}" if text else ""] if kinds else []
            table.add_row(kind, *[_of_kind(split, kind) for split in splits], *alone)
        self.out.print(table)
        self.out.print(f"Use it: madtp compress CHECKPOINT --gflops-budget 0.2 --data {written['folder']}")

    def _times(self, parts: Sequence[LatencyPart]) -> None:
        if not parts:
            return
        at, turns = parts[0], min(part.repeats for part in parts)
        where = f"{at.device}, {at.dtype}, {_count(at.threads, 'thread')}"
        table = Table(title=f"Forwards on {where}: medians of at least {turns} turns")
        for column in ("batch", "", "ms", "5 % to 95 %", "ms per sample", "samples/s", "peak MB"):
            table.add_column(column, justify="right" if column else "left")
        for part in parts:
            for row in formatting.times(part):
                table.add_row(*row)
        self.out.print(table)
        for part in parts:
            self.out.print(formatting.realised(part))

    def _answering(self, part: GenerationPart | None) -> None:
        if part is not None:
            self.out.print(formatting.answering(part))

    def _notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            self.out.print(f"Note: {note}")


def _count(number: int, noun: str) -> str:
    """A number and its noun.

    >>> _count(1, "sample"), _count(2000, "test sample")
    ('1 sample', '2,000 test samples')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> _duration(0.32), _duration(42.4), _duration(90)
    ('0.3 s', '42 s', '1 min 30 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _of_kind(split: Mapping[str, Any], kind: str) -> str:
    """Rows of a kind in a written split, and the percent that are true or have the commonest answer."""
    true, commonest = split["true_percent"], split["commonest_percent"]
    rows, percent = split["kinds"].get(kind, (0, 0)) if kind != "all" else (split["rows"], true or commonest or 0)
    if true is None and commonest is None:
        return f"{_count(rows, 'image')}, {_count(split['texts'], 'caption')}"
    return f"{rows:,} ({percent:.1f} % {'commonest' if true is None else 'true'})"


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flow(layers: Sequence[LayerPart]) -> str:
    """Mean tokens through the layers: `145.0 > 40.2 > 22.1`."""
    return " > ".join([f"{layers[0].tokens_in:.1f}", *(f"{layer.tokens_out:.1f}" for layer in layers)])
