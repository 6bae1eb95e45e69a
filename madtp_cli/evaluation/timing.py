"""How long forwards take and how much memory, dense and pruned in turns, beside the multiply-adds they do."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from madtp_cli.errors import UsageError
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.run import Batch, ComputeConfig, inputs_of
from madtp_cli.execution.block_pruner import TokenTrace
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import LatencyPart, TimesPart

#: Batch sizes that are timed unless told.
BATCH_SIZES = (1, 8, 32)
#: Turns of one batch size: at least so many, and more while they take less than these seconds. Both are even, so
#: that each model is as often the first of a turn as the other.
LEAST_TURNS, MOST_TURNS, SECONDS = 8, 50, 10.0
#: Different batches of one size, if there are samples enough: another one for the warm-up and each of the least turns.
BATCHES = 1 + LEAST_TURNS
#: A megabyte as drives and networks count it.
MB = 10**6


def asked(wanted: bool, sizes: str | None) -> Sequence[int]:
    """Which batch sizes `--time` and `--batch-sizes` ask for; none where nothing is to be timed.

    Raises:
        UsageError: Sizes that are none, or that nothing is done with.

    >>> asked(True, "1, 4"), asked(True, None), asked(False, None)
    ([1, 4], (1, 8, 32), ())
    """
    if not wanted:
        if sizes is not None:
            raise UsageError("--batch-sizes says what --time is to time.\nAdd --time, or leave it out.")
        return ()
    if sizes is None:
        return BATCH_SIZES
    numbers = [int(size) if size.strip().isdecimal() else 0 for size in sizes.split(",")]
    if min(numbers) < 1:
        raise UsageError(
            f"--batch-sizes {sizes!r} cannot be used.\nGive numbers of samples, 1 or more, with commas: 1,8,32."
        )
    return numbers


def latency(
    dense: Prunable,
    pruned: Prunable | None,
    batches: Sequence[Batch],
    compute: ComputeConfig,
    turns: int | None = None,
    progress: ProgressReporter | None = None,
) -> LatencyPart:
    """Time both models in turns, so that a busy machine slows both, and hold it against their cost.

    Args:
        dense: The strongest dense execution: the dense model on packed tokens, by the attention that is fastest here.
        pruned: The same model pruned; None to time the dense one alone.
        batches: As a task collates them, of one size. Each turn takes the next one: data does not repeat, and kernels
            that are compiled for token counts they have not seen belong to the time. Memory is that of the first.
        place: Where, and in which number format.
        turns: How often each model is timed; by how long it takes if None.
        listener: Hears of the progress.
    """
    progress, batches = progress or ProgressReporter(), [compute.moved(inputs_of(batch)) for batch in batches]
    models = {"dense": dense} if pruned is None else {"dense": dense, "pruned": pruned}
    batch, size = batches[0], len(batches[0]["pixel_values"])
    costs, peaks = {}, {}
    progress.start(f"Memory and multiply-adds, batch {size}", len(models))
    for number, (name, model) in enumerate(models.items()):
        costs[name], peaks[name] = multiply_adds(model, batch, compute), peak_memory(model, batch, compute)
        progress.advance(number + 1)
    progress.finish()
    with _traced(models) as traces:
        seconds = in_turns(models, batches, compute, turns, progress)
    for name, model in models.items():
        useful, executed = costs[name]
        mean = statistics.fmean(_useful(model, trace) for trace in traces[name][-len(seconds[name]) :])
        costs[name] = mean, mean * executed / useful
    times = {name: _times(seconds[name], size, costs[name], peaks[name]) for name in models}
    return _compared(times["dense"], times.get("pruned"), size, compute, len(seconds["dense"]))


def _compared(dense: TimesPart, pruned: TimesPart | None, size: int, compute: ComputeConfig, turns: int) -> LatencyPart:
    against: dict[str, float] = {}
    if pruned is not None:
        speedup, ratio = dense.median_ms / pruned.median_ms, dense.gflops / pruned.gflops
        against = {
            "pruned_ms": pruned.median_ms / size,
            "speedup": speedup,
            "flops_ratio": ratio,
            "efficiency": speedup / ratio,
        }
    return LatencyPart(
        batch_size=size,
        dense_ms=dense.median_ms / size,
        **against,
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
    """What the device is called; of a CPU the instructions that torch uses, which number formats depend on."""
    if compute.device.type == "cuda":
        return torch.cuda.get_device_name(compute.device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@contextlib.contextmanager
def _traced(models: Mapping[str, Prunable]) -> Iterator[dict[str, list[TokenTrace]]]:
    """The traces of all forwards within, by model."""
    traces: dict[str, list[TokenTrace]] = {name: [] for name in models}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        return lambda _module, _inputs, output: traces[name].append(output.trace)

    hooks = [model.register_forward_hook(keep(name)) for name, model in models.items()]
    try:
        yield traces
    finally:
        for hook in hooks:
            hook.remove()


def _useful(model: Prunable, trace: TokenTrace) -> float:
    """Multiply-adds of a forward on tokens, by the formula."""
    return float(sample_costs.per_sample(model.config, sample_costs.counts_of(model, trace)).sum())


def in_turns(
    models: Mapping[str, Prunable],
    batches: Sequence[Batch],
    compute: ComputeConfig,
    turns: int | None = None,
    progress: ProgressReporter | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each model's forwards by name, after a warm-up.

    A turn runs each model once, and the next one in the opposite order: a machine that grows slower or hotter
    favours neither. The warm-up takes the first batch, each turn the next, and the first again after the last.

    Args:
        models: What is timed.
        batches: On the device, without labels, of one size.
        place: Where, and in which number format.
        turns: How many; by how long the warm-up took if None.
        listener: Hears of the progress.
        clock: Gives seconds.
    """
    progress, names = progress or ProgressReporter(), list(models)
    with _cast(compute, *models.values()):
        started = clock()
        for model in models.values():
            _forward(model, batches[0], compute)
        turns = turns or _turns(clock() - started)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        progress.start(f"Time, batch {len(batches[0]['pixel_values'])}", turns)
        for turn in range(turns):
            batch = batches[(1 + turn) % len(batches)]
            for name in reversed(names) if turn % 2 else names:
                started = clock()
                _forward(models[name], batch, compute)
                seconds[name].append(clock() - started)
            progress.advance(turn + 1)
    progress.finish()
    return seconds


def _cast(compute: ComputeConfig, *models: Any) -> contextlib.AbstractContextManager[None]:
    """Within this forwards are timed; what is no model by itself, such as a bench's variant of one, is not cast."""
    return compute.inference(*(model for model in models if isinstance(model, nn.Module)))


def _turns(seconds: float) -> int:
    """How many turns of this length to take, an even number.

    >>> _turns(30.0), _turns(0.5), _turns(0.001)
    (8, 20, 50)
    """
    fitting = int(min(SECONDS / seconds, MOST_TURNS)) if seconds > 0 else MOST_TURNS
    return max(LEAST_TURNS, fitting // 2 * 2)


def _forward(model: Prunable, batch: Batch, compute: ComputeConfig) -> Any:
    """One forward, waited for."""
    output = model(**batch)
    if compute.device.type != "cpu":
        torch.accelerator.synchronize(compute.device)
    return output


def multiply_adds(model: Prunable, batch: Batch, compute: ComputeConfig) -> tuple[float, float]:
    """Multiply-adds of one forward of a batch: those on tokens, as `flops` counts them, and those executed.

    The latter include what attention and pruning spend on padding where a backend pads. torch's counter sees
    all products of matrices; what it does not see (norms) is the same without padding.
    """
    with _cast(compute, model):
        _forward(model, batch, compute)  # so that what a model computes once and keeps is no part of it
        useful, seen = _counted(model, batch, compute)
        backend, model.backend = model.backend, "loop"
        try:
            alone, unpadded = _counted(model, batch, compute)
        finally:
            model.backend = backend
    return useful, seen + alone - unpadded


def _counted(model: Prunable, batch: Batch, compute: ComputeConfig) -> tuple[float, float]:
    """Multiply-adds of one forward by the formula, and in products of matrices as they were executed."""
    # The counter does not know the one kernel that torch has for attention on a CPU.
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        output = _forward(model, batch, compute)
    return _useful(model, output.trace), counter.get_total_flops() / 2


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, out_shape: Any, **__: Any
) -> int:
    """Of attention between tensors of these shapes; the counter takes a multiply-add for two."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def peak_memory(model: Prunable, batch: Batch, compute: ComputeConfig) -> float | None:
    """Bytes held at the peak of one forward: the model's tensors as they are then, the batch, and what it allocates.

    What mathematical libraries take for themselves is not seen. None on devices that cannot tell, and where the
    profiler cannot write its record.
    """
    with _cast(compute, model):
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *batch.values()))
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
            torch.cuda.reset_peak_memory_stats(compute.device)
            before = torch.cuda.memory_allocated(compute.device)
            _forward(model, batch, compute)
            return float(held + torch.cuda.max_memory_allocated(compute.device) - before)
        if compute.device.type == "cpu":
            with contextlib.suppress(OSError):  # a full disk must not cost what was computed so far
                return float(held + peak_of_allocations(lambda: _forward(model, batch, compute)))
    return None


def peak_of_allocations(work: Callable[[], object]) -> int:
    """Bytes that torch's tensors on the CPU held at most at once, of those allocated meanwhile."""
    gc.collect()  # what is thrown away meanwhile would make the allocator complain that it never saw it come
    with _quiet_kineto(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    living: dict[int, int] = {}
    held = most = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        address, size = change["args"]["Addr"], change["args"]["Bytes"]
        if size > 0:
            living[address] = size
            held += size
            most = max(most, held)
        else:  # what was allocated before is not of this work
            held -= living.pop(address, 0)
    return most


@contextlib.contextmanager
def _quiet_kineto() -> Iterator[None]:
    """Keep the profiler's library from announcing itself on standard error; above its levels there is silence."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "6")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
