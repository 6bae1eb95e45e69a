"""Train the pruned student against the frozen dense teacher.

The paper has no dense teacher; the distillation is ours. The alignment loss (MAG) is the paper's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from madtp_cli.compression import gradients
from madtp_cli.compression.optimizers import Schedule, optimizers_of
from madtp_cli.compression.teacher_cache import SampleTargets, TeacherCache
from madtp_cli.evaluation import finite
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.execution import gathering
from madtp_cli.execution.block_trace import BlockTrace, TokenTrace, positions_after
from madtp_cli.execution.gathering import global_mean, similarities
from madtp_cli.execution.packed import Packed
from madtp_cli.models.prunable import DistillationTargets, best_similarities
from madtp_cli.pruning import segments

#: Weight of the alignment loss in the paper's scripts.
ALIGNMENT_WEIGHT = 0.1
#: Weights of the losses on the kept image tokens and on the text tokens after each layer.
IMAGE_TOKEN_WEIGHT, TEXT_TOKEN_WEIGHT = 1.0, 4.0
#: Names of these two losses, and of the targets that they compare.
TOKEN_LOSSES = ("tokens", "words")
#: Temperature of both distributions; above 1, so that the student also learns how sure the teacher is.
LOGIT_TEMPERATURE = 2.0
#: Temperature of the similarities of embeddings, close to what CLIP and BLIP learn.
CONTRAST_TEMPERATURE = 0.02
#: Largest norm of the gradient.
GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class StepResult:
    """The result of one training step.

    Attributes:
        step: Number of the step, from 1.
        steps: Number of all steps.
        losses: The weighted losses by name, of the batches of all processes.
        learning_rate: Of the pretrained weight matrices.
        seconds: Time since the start of the training.
        traces: The token traces of the step's samples, one for each forward pass; empty while nothing is pruned.
        teacher_seconds: Duration of the teacher's forward pass; 0 if the cache had all targets.
    """

    step: int
    steps: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    traces: Sequence[TokenTrace] = ()
    teacher_seconds: float = 0.0

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return sum(self.losses.values())


@dataclass
class Training:
    """A student in training: everything that changes from step to step.

    Attributes:
        student: The pruned model; its weights change.
        teacher_cache: The dense model and its targets.
        schedule: Steps and learning rates.
        compute: Device and number format of the forward passes; weights and optimizers keep their own format.
        optimizers, schedulers: One scheduler for each optimizer.
        accumulate: Forward and backward passes per step; each has a part of the batch.
        step: Number of steps that are done.
    """

    student: nn.Module
    teacher_cache: TeacherCache
    schedule: Schedule
    compute: ComputeConfig
    optimizers: list[torch.optim.Optimizer]
    schedulers: list[torch.optim.lr_scheduler.LambdaLR]
    accumulate: int = 1
    step: int = 0

    @classmethod
    def begin(
        cls,
        student: nn.Module,
        teacher: nn.Module,
        schedule: Schedule,
        compute: ComputeConfig,
        teacher_targets: dict[bytes, SampleTargets] | None = None,
    ) -> Training:
        """Return a training before its first step; the teacher is frozen and in evaluation mode.

        `teacher_targets` are targets of the same teacher that are known already; new ones are added.
        """
        optimizers = optimizers_of(student, schedule)
        cache = TeacherCache(teacher, compute, kept={} if teacher_targets is None else teacher_targets)
        return cls(student, cache, schedule, compute, optimizers, schedule.schedulers(optimizers))


def distill(training: Training, batches: Iterable[Batch]) -> Iterator[StepResult]:
    """Train the student and yield after each step; the student is then in evaluation mode.

    Args:
        training: The student, the teacher and the optimizers. A training that has done steps continues after them.
        batches: Inputs of the forward pass, with or without labels, from the next step on. The training ends early if
            they end. If several processes train, each has its part of every batch; the losses and the steps are those
            of the whole batch.
    """
    student, teacher_cache, schedule = training.student, training.teacher_cache, training.schedule
    started = time.monotonic()
    for _, batch in zip(range(training.step, schedule.steps), batches, strict=False):
        student.train()
        before = teacher_cache.seconds
        losses, traces = _accumulate_gradients(training, batch)
        gradients.sum_over_processes(student.parameters())
        nn.utils.clip_grad_norm_(student.parameters(), GRADIENT_NORM)
        rate = training.optimizers[0].param_groups[0]["lr"]
        for optimizer, scheduler in zip(training.optimizers, training.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        student.zero_grad(set_to_none=True)  # frees as much memory as the weights take before the next forward pass
        student.eval()
        training.step += 1
        seconds = time.monotonic() - started, teacher_cache.seconds - before
        yield StepResult(training.step, schedule.steps, losses, rate, seconds[0], traces, seconds[1])


def _accumulate_gradients(training: Training, batch: Batch) -> tuple[dict[str, float], list[TokenTrace]]:
    """Run the passes of one step; return the losses of the whole batch, and the traces of the passes.

    A loss that compares samples compares those of one pass.
    """
    losses: dict[str, float] = {}
    traces, samples, device = [], len(batch["pixel_values"]), batch["pixel_values"].device
    passes = min(training.accumulate, gathering.fewest(samples, device))
    for number in range(passes):
        rows = slice(samples * number // passes, samples * (number + 1) // passes)
        part = {name: value[rows] for name, value in batch.items() if "." not in name}
        size = rows.stop - rows.start
        with training.compute.precision():
            output = training.student(**inputs_of(part), labels=part.get("labels"))
        parts = step_losses(output, training.teacher_cache.targets(part), size)
        figures = {name: loss.item() for name, loss in parts.items()}
        finite.require_loss(training.student, figures, training.step, training.compute)
        share = gathering.total(size, device) / gathering.total(samples, device)
        (torch.stack(list(parts.values())).sum() * share).backward()
        losses = {name: losses.get(name, 0.0) + loss * share for name, loss in figures.items()}
        traces += [output.trace] if output.trace is not None else []
    return losses, traces


def step_losses(output: Any, targets: DistillationTargets, samples: int = 1) -> dict[str, Tensor]:
    """Return the weighted losses of a student's output by name; "task" only if the batch had labels.

    The first word of a target's name says which loss applies to it. Each loss is a mean over the batches of all
    processes.

    Args:
        output: Output of the student's forward pass in training mode.
        targets: The teacher's distillation targets for the same batch.
        samples: Number of samples of the batch; it matters only if processes have batches of different sizes.
    """
    by_kind: dict[str, list[Tensor]] = {}
    for name, value in output.targets.items():
        kind, _, tower = name.partition(".")
        if kind == "tokens":
            loss = IMAGE_TOKEN_WEIGHT * kept_token_loss(value, output.trace[tower], cast(Packed, targets[name]))
        elif kind == "words":
            loss = TEXT_TOKEN_WEIGHT * text_token_loss(value, output.trace[tower], cast(Packed, targets[name]))
        elif kind == "logits":
            loss = _soft_cross_entropy(_data(value), _data(targets[name]))
        else:
            loss = _relative_distance(_data(value), _data(targets[name]))
        by_kind.setdefault(kind, []).append(loss)
    losses = {kind: torch.stack(parts).sum() for kind, parts in by_kind.items()}
    if "embedding.text" in targets:
        losses["contrast"] = _contrast_loss(output.targets, targets)
    if output.loss is not None:
        losses["task"] = global_mean(output.loss, output.loss_items or samples)
    if output.alignment is not None:
        losses["alignment"] = ALIGNMENT_WEIGHT * global_mean(output.alignment, samples)
    return losses


def _data(value: Tensor | Packed) -> Tensor:
    return value.data if isinstance(value, Packed) else value


def kept_token_loss(tokens: Packed, trace: Sequence[BlockTrace], targets: Packed) -> Tensor:
    """Return the squared distance of a tower's kept tokens from the teacher's tokens at the same positions.

    The distance is relative to the size of the teacher's tokens. Merged tokens without a position take no part. The
    answer is read from these tokens, so they teach much more about each sample than the answer does.

    Args:
        tokens: The student's last tokens, packed.
        trace: The trace of the tower's blocks.
        targets: The teacher's tokens of the same inputs, packed; all of them are there.
    """
    rows, has_position = _teacher_rows(tokens, trace, targets)
    return _relative_distance(tokens.data[has_position], targets.data[rows])


def _teacher_rows(tokens: Packed, trace: Sequence[BlockTrace], targets: Packed) -> tuple[Tensor, Tensor]:
    """Return the teacher's row of each kept token, and which of the tokens have one: merged tokens have none."""
    device = tokens.data.device
    positions = positions_after(trace, device)[-1]
    first = torch.tensor(segments.offsets(targets.lengths)[:-1], device=device)
    rows = first[segments.segment_ids(trace[-1].left, device)] + positions
    return rows[positions >= 0], positions >= 0


def text_token_loss(words: Packed, trace: Sequence[BlockTrace], targets: Packed) -> Tensor:
    """Return the mean over layers of the squared distance of a text's kept tokens, relative to the layer's size.

    Args:
        words: The student's kept tokens after each layer, packed, [tokens, layers, width].
        trace: The trace of the text's blocks.
        targets: The teacher's tokens of the same texts after each layer; all of them are there.
    """
    rows, _ = _teacher_rows(words, trace, targets)
    states, dense = words.data.float(), targets.data[rows].float()
    distance = global_mean((states - dense).square().mean((0, 2)), len(states))
    return (distance / global_mean(dense.square().mean((0, 2)), len(states)).clamp_min(1e-6)).mean()


def _contrast_loss(student: DistillationTargets, teacher: DistillationTargets) -> Tensor:
    """Return the divergence of a batch's similarities, images to texts and back, from the teacher's."""
    (images, texts), (dense_images, dense_texts) = (
        [functional.normalize(_data(values[name]).float(), dim=-1) for name in ("embedding.image", "embedding.text")]
        for values in (student, teacher)
    )
    by_image, by_text = similarities(_similarity, images, texts)
    dense_by_image, dense_by_text = similarities(_similarity, dense_images, dense_texts)
    return _soft_cross_entropy(by_image, dense_by_image) + _soft_cross_entropy(by_text, dense_by_text)


def _similarity(images: Tensor, texts: Tensor) -> Tensor:
    return best_similarities(images, texts) / CONTRAST_TEMPERATURE


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the KL divergence from the teacher's softened distribution, scaled so that its gradient keeps its size."""
    student = functional.log_softmax(logits.float() / LOGIT_TEMPERATURE, -1)
    teacher = functional.log_softmax(targets.float() / LOGIT_TEMPERATURE, -1)
    divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return global_mean(divergence, len(logits)) * LOGIT_TEMPERATURE**2


def _relative_distance(state: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance relative to the size of the target."""
    distance = global_mean(functional.mse_loss(state.float(), target.float()), state.numel())
    return distance / global_mean(target.float().square().mean(), target.numel()).clamp_min(1e-6)
