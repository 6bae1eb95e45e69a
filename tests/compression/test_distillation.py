"""Distillation: its losses, its optimizers, and what it does not change."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from madtp_cli.compression import distillation, optimizers
from madtp_cli.compression.distillation import StepResult, Training
from madtp_cli.compression.optimizers import Schedule, default_rate
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.models.prunable import stack_states

SCHEDULE = Schedule(steps=3, learning_rate=1e-3, dictionary_learning_rate=5e-3)

CPU = ComputeConfig.of("cpu", "float32")


@pytest.fixture
def batches(collate, samples):
    """Two batches of different sizes, repeated without end."""
    return itertools.cycle([collate(samples[:3]), collate(samples[3:])])


@pytest.fixture
def teacher(blip):
    """The frozen dense model."""
    return copy.deepcopy(blip).requires_grad_(False)


def test_the_teacher_does_not_change(attached, teacher, batches) -> None:
    """The weights stay identical to the bit, and the teacher stays in evaluation mode."""
    before = copy.deepcopy(teacher.state_dict())
    list(distillation.distill(Training.begin(attached(0.4), teacher, SCHEDULE, CPU), batches))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert teacher.pruning is None
    assert all(value.grad is None for value in teacher.parameters())


@pytest.mark.parametrize("labelled", [True, False])
def test_batches_with_labels_have_a_task_loss(attached, teacher, batches, labelled) -> None:
    """All other losses need only the dense model, so unlabelled data can be used."""
    batch = dict(next(batches))
    if not labelled:
        batch.pop("labels")
    losses = distillation.step_losses(attached(0.4).train()(**batch), TeacherCache(teacher, CPU).targets(batch))
    assert losses.keys() == {"logits", "state", "tokens", "words", "alignment"} | ({"task"} if labelled else set())
    assert all(loss.isfinite() and loss >= 0 and loss.requires_grad for loss in losses.values())


def test_a_student_equal_to_the_teacher_has_no_loss(attached, teacher, batches) -> None:
    """At threshold scale 0 both are the same model up to rounding."""
    batch = dict(next(batches))
    batch.pop("labels")
    targets = TeacherCache(teacher, CPU).targets(batch)
    losses = distillation.step_losses(attached(0.0).train()(**batch), targets)
    assert max(loss.item() for loss in losses.values()) < 1e-6
    pruned = distillation.step_losses(attached(0.7).train()(**batch), targets)
    assert min(pruned["logits"].item(), pruned["state"].item()) > 1e-3


def test_the_kept_tokens_of_a_pruned_text_are_compared_at_their_positions() -> None:
    """Two texts of three and two tokens. The first loses its middle token, and then its last one is merged."""
    trace = [
        BlockTrace([3, 2], [3, 2]),
        BlockTrace([3, 2], [2, 2], torch.tensor([0, 2, 0, 1])),
        BlockTrace([2, 2], [2, 2], torch.tensor([0, -1, 0, 1])),
    ]
    states = [torch.tensor(rows)[:, None] for rows in ([1.0, 2, 3, 4, 5], [1.0, 3, 4, 5], [1.0, 9, 4, 5])]
    words = stack_states(states, Packed(states[-1], [2, 2]), trace)
    assert words is not None
    assert words.lengths == [1, 2]
    assert words.data[..., 0].tolist() == [[1, 1, 1], [4, 4, 4], [5, 5, 5]]
    dense = torch.arange(1.0, 6)[:, None, None].expand(5, 3, 1)
    assert distillation.text_token_loss(words, trace, Packed(dense, [3, 2])) == 0
    moved = dense.clone()
    moved[4] += 5  # the last token of the second text
    assert distillation.text_token_loss(words, trace, Packed(moved, [3, 2])) > 0.1
    moved = dense.clone()
    moved[1:3] += 5  # the tokens that are gone
    assert distillation.text_token_loss(words, trace, Packed(moved, [3, 2])) == 0


def test_all_madtp_parameters_are_trained(attached, teacher, batches) -> None:
    """In the released code the threshold has no gradient and the dictionary hardly changes."""
    student = attached(0.4)
    before = copy.deepcopy(student.madtp.state_dict())
    list(distillation.distill(Training.begin(student, teacher, SCHEDULE, CPU), batches))
    for name, value in student.madtp.state_dict().items():
        assert (value - before[name]).abs().mean() > SCHEDULE.learning_rate, name


def test_the_dictionary_has_another_learning_rate_than_pretrained_weights(attached) -> None:
    """The dictionary starts from random values. Vectors (norms, biases) have no weight decay."""
    student = attached(0.4)
    muon, adamw = optimizers.optimizers_of(student, SCHEDULE)
    names = {id(value): name for name, value in student.named_parameters()}
    groups = [*muon.param_groups, *adamw.param_groups]
    assert sorted(id(value) for group in groups for value in group["params"]) == sorted(names)
    for group in groups:
        in_dictionary = {names[id(value)].startswith("madtp.") for value in group["params"]}
        assert in_dictionary == {group["lr"] == SCHEDULE.dictionary_learning_rate}
        assert all((value.dim() <= 1) == (group["weight_decay"] == 0) for value in group["params"])
    assert {names[id(value)].split(".")[0] for group in muon.param_groups for value in group["params"]} == {
        "vision_model",
        "text_encoder",
    }


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 300])
def test_learning_rates_rise_and_then_fall_towards_zero(steps) -> None:
    """No step has a rate of zero: a fine-tune may have few steps."""
    factors = [Schedule(steps, 1, 1).factor(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(1.0)
    assert peak <= max(1, round(0.1 * steps))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_schedule_follows_its_formula() -> None:
    """Of 300 steps 30 are warm-up; in the middle of the other 270 the cosine is one half."""
    schedule = Schedule(300, 1, 1)
    assert schedule.factor(0) == pytest.approx(1 / 30)
    assert schedule.factor(29) == schedule.factor(30) == 1
    assert schedule.factor(165) == pytest.approx(0.5)
    assert 0 < schedule.factor(299) < 1e-4


def test_the_optimizers_follow_the_schedule() -> None:
    """Each step uses its peak rate times the factor, to the bit."""
    schedule = Schedule(12, 1e-3, 5e-3)
    parameter = nn.Parameter(torch.ones(2, 2))
    both = [torch.optim.SGD([parameter], lr=rate) for rate in (1e-3, 5e-3)]
    schedulers = schedule.schedulers(both)
    for step in range(12):
        rates = [optimizer.param_groups[0]["lr"] for optimizer in both]
        assert rates == [1e-3 * schedule.factor(step), 5e-3 * schedule.factor(step)]
        for optimizer, scheduler in zip(both, schedulers, strict=True):
            optimizer.step()
            scheduler.step()


def test_the_same_run_gives_the_same_weights(attached, teacher, collate, samples) -> None:
    """The weights are identical to the bit after three steps, so a command gives the same result again."""
    runs = []
    for _ in range(2):
        student, batches = attached(0.4), [collate(samples[:3]), collate(samples[3:]), collate(samples[1:4])]
        torch.manual_seed(7)
        training = Training.begin(student, teacher, SCHEDULE, CPU)
        losses = [step_result.losses for step_result in distillation.distill(training, batches)]
        runs.append((student.state_dict(), losses))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())


def test_half_precision_learns_as_full_precision_does(attached, teacher, collate, samples) -> None:
    """Autocast caches weights until it ends. One context around all steps would keep the weights of the first."""
    remaining = dict.fromkeys(("float32", "bfloat16"), 0.0)
    # With a single scale the difference is up to 13 %, because rounding changes which tokens are pruned.
    scales = (0.2, 0.3, 0.4, 0.5, 0.6)
    for dtype, scale in itertools.product(remaining, scales):
        student, schedule = attached(scale), Schedule(20, 1e-3, 1e-3)
        batches = itertools.repeat(collate(samples))
        training = Training.begin(student, teacher, schedule, ComputeConfig.of("cpu", dtype))
        steps = distillation.distill(training, batches)
        losses = [step.loss for step in steps]
        remaining[dtype] += losses[-1] / losses[0] / len(scales)
        assert {value.dtype for value in student.parameters()} == {torch.float32}
    assert remaining["float32"] < 0.8
    assert remaining["bfloat16"] == pytest.approx(remaining["float32"], rel=0.1)


def test_after_each_step_the_student_is_in_evaluation_mode(attached, teacher, batches) -> None:
    """Steps are counted from one; the training ends if the batches end."""
    student, steps = attached(0.4), []
    training = Training.begin(student, teacher, SCHEDULE, CPU)
    for step_result in distillation.distill(training, itertools.islice(batches, 2)):
        assert not student.training
        assert all(value.grad is None for value in student.parameters())  # gradients need as much memory as the weights
        steps.append(step_result.step)
    assert steps == [1, 2]


def test_the_loss_of_a_step_is_the_sum_of_its_losses() -> None:
    """The losses already include their weights."""
    step_result = StepResult(step=4, steps=10, losses={"logits": 0.5, "task": 0.25}, learning_rate=1e-4, seconds=8.0)
    assert step_result.loss == 0.75


def test_accumulated_passes_have_the_mean_of_their_losses(attached, teacher, collate, samples) -> None:
    """Two passes of two and three samples are one step; each pass has its own token counts."""
    training = Training.begin(attached(0.4), teacher, Schedule(1, 1e-3, 1e-3), CPU)
    training.accumulate = 2
    cache, student = TeacherCache(teacher, CPU), attached(0.4).train()
    parts = [collate(samples[:2], longest=9), collate(samples[2:], longest=9)]
    expected = [distillation.step_losses(student(**part), cache.targets(part)) for part in parts]
    (result,) = distillation.distill(training, [collate(samples, longest=9)])
    assert len(result.traces) == 2
    for name, loss in result.losses.items():
        mean = (2 * expected[0][name].item() + 3 * expected[1][name].item()) / 5
        assert loss == pytest.approx(mean, rel=1e-4), name


def test_the_default_rate_grows_with_the_loss_before_the_training() -> None:
    """Within limits: what is near the dense model must not move away from it."""
    rates = [64 * default_rate(64, loss) for loss in (-1e-9, 0.0, 0.05, 0.2, 0.45, 9.0)]
    assert rates == pytest.approx([0.007, 0.007, 0.007, 0.014, 0.021, 0.021])
