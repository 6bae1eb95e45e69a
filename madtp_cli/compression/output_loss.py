"""How far the outputs of a student are from those of the dense model, before any training."""

from __future__ import annotations

import numpy as np
import torch

from madtp_cli.compression import distillation
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.evaluation.session import Session
from madtp_cli.execution import gathering
from madtp_cli.models.prunable import Prunable


@torch.no_grad()
def output_loss(session: Session, student: Prunable, teacher_cache: TeacherCache, samples: int) -> float:
    """Return the mean over validation samples of the sum of the distillation losses of what the model puts out.

    Students keep different tokens, so the losses of the kept tokens do not tell which one is better: with them, an
    allocation was chosen that lost 2 points more after the fine-tune.

    Several processes compute each loss together, so all of them must have as many batches as the others.

    Args:
        session: Data and compute config.
        student: The student.
        teacher_cache: The dense model and its targets.
        samples: Number of validation samples to use, from the first one.
    """
    compute, losses, sizes = session.compute, list[float](), list[int]()
    batches = list(batching.batches(session, "val", samples))
    for batch in batches[: gathering.fewest(len(batches), compute.device)]:
        inputs = compute.moved(inputs_of(batch))
        with compute.precision():
            output = student(**inputs, return_targets=True)
        size = len(inputs["pixel_values"])
        parts = distillation.step_losses(output, teacher_cache.targets(inputs), size)
        losses.append(sum(loss.item() for name, loss in parts.items() if name not in distillation.TOKEN_LOSSES))
        sizes.append(gathering.total(size, compute.device))
    return float(np.average(losses, weights=sizes))
