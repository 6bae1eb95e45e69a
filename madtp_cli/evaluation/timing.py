"""Time the forward passes of the dense and the pruned model in turns, and relate the time to the multiply-adds."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from madtp_cli.evaluation import number_formats
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.evaluation.executed import forward, inference_of, multiply_adds, useful_multiply_adds
from madtp_cli.evaluation.intervals import median_interval95, ratio_interval95
from madtp_cli.evaluation.memory import MB, peak_memory
from madtp_cli.execution.block_trace import TokenTrace
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import CLOCK
from madtp_cli.reporting.schema import Interval, LatencyPart, TimesPart

#: Smallest and largest number of turns of one batch size, and the seconds they should take within these limits. Both
#: numbers are even, so that each model is the first of a turn equally often.
LEAST_TURNS, MOST_TURNS, SECONDS = 8, 50, 10.0
#: Different batches of one size, if there are enough samples: one for the warm-up and one for each of the least turns.
BATCHES = 1 + LEAST_TURNS
#: Forward passes of each model that measure memory and multiply-adds, and the seconds to evaluate their records.
MEASURING_PASSES, MEASURING_SECONDS = 4, 0.7


def latency(
    dense: Prunable,
    pruned: Prunable | None,
    batches: Sequence[Batch],
    compute: ComputeConfig,
    turns: int | None = None,
    progress: ProgressReporter | None = None,
    label: str = "",
) -> LatencyPart:
    """Time both models in turns, so that a busy machine slows both, and compare the time with the multiply-adds.

    Args:
        dense: The dense model on packed tokens with the fastest attention of this device.
        pruned: The same model pruned; None to time the dense model alone.
        batches: Collated batches of one size. Each turn takes the next one: real data does not repeat, and compiling
            kernels for new token counts is part of the time. Memory is measured on the first one.
        compute, progress: Device and number format; receives the progress.
        turns: Number of turns; chosen by the duration of the forward passes if None.
        label: Words for the names of the stages, if models are timed several times.
    """
    progress, batches = progress or ProgressReporter(), [compute.moved(inputs_of(batch)) for batch in batches]
    models = {"dense": dense} if pruned is None else {"dense": dense, "pruned": pruned}
    size = len(batches[0]["pixel_values"])
    costs, peaks = {}, {}
    progress.start(_measuring(size, label), len(models))
    for number, (name, model) in enumerate(models.items()):
        costs[name] = multiply_adds(model, batches[0], compute)
        peaks[name] = peak_memory(model, batches[0], compute)
        progress.advance(number + 1)
    progress.finish()
    with _traced(models) as traces:
        seconds = in_turns(models, batches, compute, turns, progress, label=label)
    times = {}
    for name, model in models.items():
        timed = traces[name][-len(seconds[name]) :]  # without the warm-up
        mean = statistics.fmean(useful_multiply_adds(model, trace) for trace in timed)
        useful, executed = costs[name]
        times[name] = _times(seconds[name], size, (mean, mean * executed / useful), peaks[name])
    part = _compared(times["dense"], times.get("pruned"), size, compute, len(seconds["dense"]))
    return part.model_copy(update=_intervals(seconds, size))


def _intervals(seconds: Mapping[str, Sequence[float]], size: int) -> dict[str, Interval]:
    """Return the intervals of the time per sample and, with a pruned model, of the speed-up."""
    timed = seconds.get("pruned", seconds["dense"])
    found = {"interval95": Interval.of(median_interval95([1000 * second / size for second in timed]))}
    if "pruned" in seconds:
        found["speedup_interval95"] = Interval.of(ratio_interval95(seconds["dense"], seconds["pruned"]))
    return found


def in_turns(
    models: Mapping[str, Prunable],
    batches: Sequence[Batch],
    compute: ComputeConfig,
    turns: int | None = None,
    progress: ProgressReporter | None = None,
    clock: Callable[[], float] = time.perf_counter,
    label: str = "",
) -> dict[str, list[float]]:
    """Return the seconds of each forward pass by model, without the warm-up.

    A turn runs each model once, and the next turn in the opposite order: a machine that gets slower or hotter then
    affects all models equally. The warm-up takes the first batch, each turn the next, after the last the first again.

    Args:
        models: The models by name.
        batches: Batches on the device, without labels, of one size.
        compute: Device and number format.
        turns: Number of turns; chosen by the duration of the warm-up if None.
        progress: Receives the progress.
        clock: Returns the time in seconds.
        label: Words for the name of the stage, if models are timed several times.
    """
    progress, names = progress or ProgressReporter(), list(models)
    with inference_of(compute, *models.values()):
        started = clock()
        for model in models.values():
            forward(model, batches[0], compute)
        turns = turns or turns_for(clock() - started)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        progress.start(_timing(len(batches[0]["pixel_values"]), label), turns)
        for turn in range(turns):
            batch = batches[(1 + turn) % len(batches)]
            for name in reversed(names) if turn % 2 else names:
                started = clock()
                forward(models[name], batch, compute)
                seconds[name].append(clock() - started)
            progress.advance(turn + 1)
    progress.finish()
    return seconds


def _measuring(batch_size: int, label: str) -> str:
    return f"Measuring memory and multiply-adds{label and f' {label}'}, batch size {batch_size}"


def _timing(batch_size: int, label: str) -> str:
    return f"Timing{label and f' {label}'}, batch size {batch_size}"


def planned_stages(batch_size: int, seconds: Sequence[float], label: str = "") -> list[PlannedStage]:
    """Return the stages of `latency` for one batch size.

    Args:
        batch_size: Samples per batch.
        seconds: Duration of a forward pass of a batch for each model.
        label: As in `latency`.
    """
    turn = sum(seconds)
    turns = turns_for(turn)
    work = "compute" if turns == LEAST_TURNS else CLOCK
    return [
        PlannedStage(_measuring(batch_size, label), MEASURING_SECONDS * len(seconds) + MEASURING_PASSES * turn),
        PlannedStage(_timing(batch_size, label), turns * turn, work),
    ]


def turns_for(seconds: float) -> int:
    """Return how many turns of this duration to take, an even number.

    >>> turns_for(30.0), turns_for(0.5), turns_for(0.001)
    (8, 20, 50)
    """
    fitting = int(min(SECONDS / seconds, MOST_TURNS)) if seconds > 0 else MOST_TURNS
    return max(LEAST_TURNS, fitting // 2 * 2)


@contextlib.contextmanager
def _traced(models: Mapping[str, Prunable]) -> Iterator[dict[str, list[TokenTrace]]]:
    """Record the traces of all forward passes by model."""
    traces: dict[str, list[TokenTrace]] = {name: [] for name in models}

    def recorder(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, output: traces[name].append(output.trace)

    hooks = [model.register_forward_hook(recorder(name)) for name, model in models.items()]
    try:
        yield traces
    finally:
        for hook in hooks:
            hook.remove()


def _compared(dense: TimesPart, pruned: TimesPart | None, size: int, compute: ComputeConfig, turns: int) -> LatencyPart:
    ratios: dict[str, Any] = {}
    if pruned is not None:
        speedup, flops_ratio = dense.median_ms / pruned.median_ms, dense.gflops / pruned.gflops
        ratios = {
            "pruned_ms": pruned.median_ms / size,
            "speedup": speedup,
            "flops_ratio": flops_ratio,
            "efficiency": speedup / flops_ratio,
        }
    return LatencyPart(
        batch_size=size,
        dense_ms=dense.median_ms / size,
        **ratios,
        peak_memory_mb=(pruned or dense).peak_memory_mb,
        repeats=turns,
        device=str(compute.device),
        dtype=str(compute.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        processor=_processor(compute),
        dense=dense,
        pruned=pruned,
    )


def _times(seconds: Sequence[float], size: int, cost: tuple[float, float], peak: float | None) -> TimesPart:
    low, median, high = (float(1000 * value) for value in np.percentile(seconds, [5, 50, 95]))
    useful, executed = cost
    return TimesPart(
        median_ms=median,
        p5_ms=low,
        p95_ms=high,
        samples_per_second=1000 * size / median,
        peak_memory_mb=None if peak is None else peak / MB,
        gflops=useful / size / 1e9,
        executed_gflops=executed / size / 1e9,
    )


def _processor(compute: ComputeConfig) -> str:
    """Return the name of the device; of a CPU its instruction set, which the speed of number formats depends on."""
    if compute.device.type == "cuda":
        return torch.cuda.get_device_name(compute.device)
    return number_formats.cpu()
