"""The peak memory of one forward pass."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.evaluation.executed import forward, inference_of
from madtp_cli.models.prunable import Prunable

#: A megabyte as drives and networks count it.
MB = 10**6


def peak_memory(model: Prunable, batch: Batch, compute: ComputeConfig) -> float | None:
    """Return the bytes at the peak of one forward pass: the model's tensors, the batch, and what the pass allocates.

    The memory that mathematical libraries allocate for themselves is not included.

    Returns:
        None on devices that do not report it, and if the profiler cannot write its file.
    """
    with inference_of(compute, model):
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *batch.values()))
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
            torch.cuda.reset_peak_memory_stats(compute.device)
            before = torch.cuda.memory_allocated(compute.device)
            forward(model, batch, compute)
            return float(held + torch.cuda.max_memory_allocated(compute.device) - before)
        if compute.device.type == "cpu":
            with contextlib.suppress(OSError):  # a full disk must not end a run that has already computed results
                return float(held + peak_of_allocations(lambda: forward(model, batch, compute)))
    return None


def peak_of_allocations(work: Callable[[], object]) -> int:
    """Return the peak bytes of the CPU tensors that `work` allocates."""
    gc.collect()  # if old tensors are freed during the work, the profiler warns that it did not see their allocation
    with _quiet_kineto(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    allocated: dict[int, int] = {}
    held = most = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        address, size = change["args"]["Addr"], change["args"]["Bytes"]
        if size > 0:
            allocated[address] = size
            held += size
            most = max(most, held)
        else:  # an address that is not known was allocated before the work
            held -= allocated.pop(address, 0)
    return most


@contextlib.contextmanager
def _quiet_kineto() -> Iterator[None]:
    """Silence the profiler's library, which writes to standard error; its log level 6 is above all messages."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "6")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
