"""The control of a comparison: the dense model after the same fine-tuning as the pruned ones."""

from __future__ import annotations

import copy

from madtp_cli.compression import distillation
from madtp_cli.compression.compress_model import training_samples
from madtp_cli.compression.optimizers import Schedule, default_rate
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable


def fine_tuned_dense(session: Session, teacher: Prunable, settings: CompressSettings) -> Prunable:
    """Return a copy of the dense model after the fine-tuning of a pruned one: same data, losses and steps.

    The default learning rate is that of a student whose outputs are those of the dense model.

    Args:
        session: Data and compute config.
        teacher: The dense model.
        settings: Length and learning rates.
    """
    student = copy.deepcopy(teacher).requires_grad_(True)
    schedule = Schedule(
        settings.number_of_steps(len(batching.rows(session, "train"))),
        settings.learning_rate or default_rate(student.widths["vision"], loss=0.0),
        settings.dictionary_learning_rate,
    )
    samples = training_samples(settings, schedule.steps)
    embeddings = batching.text_embeddings(session, teacher, samples)
    batches = batching.training_batches(session, samples, embeddings=embeddings)
    session.progress.start("Fine-tuning the control", schedule.steps)
    training = distillation.Training.begin(student, teacher, schedule, session.compute, session.teacher_targets)
    for result in distillation.distill(training, batches):
        session.progress.advance(result.step, f"loss {result.loss:.3f}")
    session.progress.finish()
    return student
