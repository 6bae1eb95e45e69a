"""The short fine-tune of the pruned model against the frozen dense one. Yields progress, prints nothing.

The paper has no dense teacher; distillation is ours. The alignment loss (MAG) is the paper's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig, inputs_of
from madtp_cli.execution.block_pruner import BlockTrace, TokenTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.models.prunable import DistillationTargets
from madtp_cli.pruning import segments

#: Weight of the alignment loss in the paper's scripts.
ALIGNMENT_WEIGHT = 0.1
#: Weights of the distance of the kept image tokens, and of the words after each layer, from the teacher's.
IMAGE_TOKEN_WEIGHT, WORD_WEIGHT = 1.0, 4.0
#: Softens both distributions, so that the teacher's doubt is taught too.
LOGIT_TEMPERATURE = 2.0
#: Sharpens similarities of embeddings; about what CLIP and BLIP learn.
CONTRAST_TEMPERATURE = 0.02
#: Share of the steps over which learning rates rise.
WARM_UP = 0.1
GRADIENT_NORM = 1.0
#: Rate of pretrained embeddings, norms, biases and heads, in units of the matrices'.
REST_RATE = 1 / 3
WEIGHT_DECAY = 0.05
#: Newton-Schulz iterations of each of Muon's steps.
MUON_ITERATIONS = 5


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `learning_rate` is the pretrained matrices', `dictionary_learning_rate`
    that of the MADTP parameters, which start untrained."""

    steps: int
    learning_rate: float
    dictionary_learning_rate: float

    def factor(self, step: int) -> float:
        """Linear warm-up, then cosine to zero; in 0-1."""
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        return (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2


@dataclass(frozen=True)
class StepResult:
    """One step done: its losses and how long the run has taken, in seconds."""

    step: int
    steps: int
    losses: dict[str, float]
    seconds: float
    #: Which tokens of the step's samples went where; None while nothing is pruned.
    trace: TokenTrace | None = None

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


def distill(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    schedule: Schedule,
    compute: ComputeConfig,
) -> Iterator[StepResult]:
    """Train `student` for `schedule.steps` steps; yields after each, when its weights may be used.

    Args:
        student: Pruning model; in training mode only while a step runs.
        teacher: The dense model, frozen and in evaluation mode.
        batches: Inputs of the model's forward, with or without labels; ends the run if exhausted.
        schedule: Steps and learning rates.
        place: The number format of the forwards; weights and their steps are in their own.
    """
    teacher_cache = TeacherCache(teacher, compute)
    optimizers = optimizers_of(student, schedule)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    started = time.monotonic()
    for step, batch in zip(range(schedule.steps), batches, strict=False):
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * schedule.factor(step)
        student.train()
        with compute.precision():
            output = student(**inputs_of(batch), labels=batch.get("labels"))
        losses = step_losses(output, teacher_cache.of(batch))
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(student.parameters(), GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.step()
        student.zero_grad(set_to_none=True)  # as large as the model, and not needed beside the next activations
        student.eval()
        detached = {name: loss.item() for name, loss in losses.items()}
        yield StepResult(step + 1, schedule.steps, detached, time.monotonic() - started, output.trace)


def step_losses(output: Any, taught: DistillationTargets) -> dict[str, Tensor]:
    """The weighted parts of the loss of a student's output; "task" only where the batch had labels.

    How a part of the lesson is learned is said by the first word of its name.
    """
    learned: dict[str, list[Tensor]] = {}
    for name, own in output.targets.items():
        kind, _, of = name.partition(".")
        if kind == "tokens":
            loss = IMAGE_TOKEN_WEIGHT * kept_token_loss(own, output.trace[of], cast(Packed, taught[name]))
        elif kind == "words":
            loss = WORD_WEIGHT * _word_loss(_rows(own), _rows(taught[name]))
        elif kind == "logits":
            loss = _soft_cross_entropy(_rows(own), _rows(taught[name]))
        else:
            loss = _state_loss(_rows(own), _rows(taught[name]))
        learned.setdefault(kind, []).append(loss)
    losses = {kind: torch.stack(parts).sum() for kind, parts in learned.items()}
    if "embedding.image" in taught:
        losses["contrast"] = _contrast_loss(output.targets, taught)
    if output.loss is not None:
        losses["task"] = output.loss
    if output.alignment is not None:
        losses["alignment"] = ALIGNMENT_WEIGHT * output.alignment
    return losses


def _rows(given: Tensor | Packed) -> Tensor:
    return given.data if isinstance(given, Packed) else given


def kept_token_loss(tokens: Packed, trace: Sequence[BlockTrace], taught: Packed) -> Tensor:
    """Squared distance of a tower's last tokens from the teacher's at the same positions, relative to their size.

    Tokens made of several that stand nowhere take no part. The answer is read off these tokens, so this
    teaches far more of each sample than its answer does.

    Args:
        tokens: The student's.
        trace: What the tower's blocks did.
        taught: The teacher's, of the same inputs, with all tokens.
    """
    scored = [block.positions for block in trace if block.positions is not None]
    positions = (
        scored[-1] if scored else torch.cat([torch.arange(n, device=tokens.data.device) for n in tokens.lengths])
    )
    first = torch.tensor(segments.offsets(taught.lengths)[:-1], device=positions.device)
    rows = first[segments.segment_ids(tokens.lengths, positions.device)] + positions
    real = positions >= 0
    return _state_loss(tokens.data[real], taught.data[rows[real]])


def _word_loss(words: Tensor, taught: Tensor) -> Tensor:
    """Mean over the layers of the squared distance [all words, layers, width] relative to the layer's size."""
    words, taught = words.float(), taught.float()
    distance = (words - taught).square().mean((0, 2))
    return (distance / taught.square().mean((0, 2)).clamp_min(1e-6)).mean()


def _contrast_loss(own: DistillationTargets, taught: DistillationTargets) -> Tensor:
    """Divergence of a batch's similarities, images to texts and back, from the teacher's: what ranking needs."""
    (images, texts), (dense_images, dense_texts) = (
        [functional.normalize(_rows(targets[name]).float(), dim=-1) for name in ("embedding.image", "embedding.text")]
        for targets in (own, taught)
    )
    similar, dense = images @ texts.T / CONTRAST_TEMPERATURE, dense_images @ dense_texts.T / CONTRAST_TEMPERATURE
    return _soft_cross_entropy(similar, dense) + _soft_cross_entropy(similar.T, dense.T)


def _soft_cross_entropy(logits: Tensor, taught: Tensor) -> Tensor:
    """KL divergence from the teacher's softened distribution, scaled to keep its gradient's size."""
    student = functional.log_softmax(logits.float() / LOGIT_TEMPERATURE, -1)
    target = functional.log_softmax(taught.float() / LOGIT_TEMPERATURE, -1)
    return functional.kl_div(student, target, reduction="batchmean", log_target=True) * LOGIT_TEMPERATURE**2


def _state_loss(state: Tensor, taught: Tensor) -> Tensor:
    """Squared distance of pooled features relative to the teacher's own size."""
    return functional.mse_loss(state.float(), taught.float()) / taught.float().square().mean().clamp_min(1e-6)


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of the towers' layers: what Muon is made for."""
    return [value for name, value in model.named_parameters() if value.dim() == 2 and ".layer" in name]


def muon_gflops(model: nn.Module) -> float:
    """Multiply-adds of one step of Muon in billions, whatever the batch: each iteration makes of a matrix x, the
    narrower side first, x xᵀ, the square of that, and its product with x."""
    sides = [sorted(matrix.shape) for matrix in inner_matrices(model)]
    return MUON_ITERATIONS * sum(2 * narrow**2 * wide + narrow**3 for narrow, wide in sides) / 1e9


def optimizers_of(student: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the towers' layers, AdamW for everything else.

    Muon (Jordan et al. 2024) gives every direction of a matrix an equal step, here of AdamW's size. On the
    example at a fifth of the FLOPs it learns more in as many steps.
    """
    matrices = inner_matrices(student)
    known = {id(matrix) for matrix in matrices}
    others = [(name, value) for name, value in student.named_parameters() if id(value) not in known]
    own = [value for name, value in others if name.startswith("madtp.")]
    rest = [value for name, value in others if not name.startswith("madtp.")]
    groups = [
        *_groups(rest, schedule.learning_rate * REST_RATE),
        *_groups(own, schedule.dictionary_learning_rate),
    ]
    return [
        torch.optim.Muon(
            matrices,
            lr=schedule.learning_rate,
            weight_decay=WEIGHT_DECAY,
            ns_steps=MUON_ITERATIONS,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY),
    ]


def _groups(parameters: Sequence[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """With and without decay; vectors have none."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "lr": rate},
        {"params": [p for p in parameters if p.dim() <= 1], "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
