"""One process of a training in several processes; prints the losses of each step, the metric and the GFLOPs as JSON.

Usage: python -m tests.processes.worker CHECKPOINT..., with the environment variables that torchrun sets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from madtp_cli import processes
from madtp_cli.compression import distillation
from madtp_cli.compression.compress_model import compress_model
from madtp_cli.config import CompressSettings, resolve
from madtp_cli.evaluation import quality, run
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter

SETTINGS = {"gflops_budget": "0.6", "steps": 2, "batch_size": 7, "limit": 14, "device": "cpu"}


def record(checkpoint: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Compress a checkpoint and return the losses of each step, and the metric of the result."""
    resolved: CompressSettings = resolve(settings, None, {}, CompressSettings)
    processes.start(resolved.device)
    session = Session.open(checkpoint, resolved, ProgressReporter())
    losses, distill = [], distillation.distill

    def recorded(*arguments: Any) -> Iterator[distillation.StepResult]:
        for result in distill(*arguments):
            losses.append(result.losses)
            yield result

    vars(distillation)["distill"] = recorded
    compressed = compress_model(session, resolved)
    vars(distillation)["distill"] = distill
    measured = run.measure(session, "Evaluating", compressed.student, "test")
    return {
        "losses": losses,
        "threshold_scale": compressed.calibration.threshold_scale,
        "gflops": measured.gflops(compressed.student).mean(),
        "generation": measured.generation.total,
        "samples": measured.samples,
        "quality": quality.quality(session, measured).value,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps([record(Path(name), SETTINGS) for name in sys.argv[1:]]))
