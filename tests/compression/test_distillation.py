"""The fine-tune: what it learns from, how fast, and what it leaves alone."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from madtp_cli.compression import distillation
from madtp_cli.compression.distillation import Schedule, StepResult
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig

SCHEDULE = Schedule(steps=3, learning_rate=1e-3, dictionary_learning_rate=5e-3)

CPU = ComputeConfig.of("cpu", "float32")


@pytest.fixture
def batches(collate, samples):
    """Two batches of unlike sizes, over and over."""
    return itertools.cycle([collate(samples[:3]), collate(samples[3:])])


@pytest.fixture
def teacher(blip):
    """The frozen dense model."""
    return copy.deepcopy(blip).requires_grad_(False)


def test_the_teacher_is_untouched(attached, teacher, batches) -> None:
    """Bit for bit, and in evaluation mode; a teacher that drifts teaches nothing."""
    before = copy.deepcopy(teacher.state_dict())
    list(distillation.distill(attached(0.4), teacher, batches, SCHEDULE, CPU))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert teacher.pruning is None
    assert all(value.grad is None for value in teacher.parameters())


@pytest.mark.parametrize("labelled", [True, False])
def test_the_task_loss_is_there_where_labels_are(attached, teacher, batches, labelled) -> None:
    """Everything else is learned from the dense model, on any user's unlabelled pairs."""
    batch = dict(next(batches))
    if not labelled:
        batch.pop("labels")
    losses = distillation.step_losses(attached(0.4).train()(**batch), TeacherCache(teacher, CPU).of(batch))
    assert losses.keys() == {"logits", "state", "tokens", "alignment"} | ({"task"} if labelled else set())
    assert all(loss.isfinite() and loss >= 0 and loss.requires_grad for loss in losses.values())


def test_a_student_that_is_the_teacher_has_nothing_to_learn(attached, teacher, batches) -> None:
    """At knob 0 both are one model, to rounding; a loss above that would be the harness's own."""
    batch = dict(next(batches))
    batch.pop("labels")
    taught = TeacherCache(teacher, CPU).of(batch)
    losses = distillation.step_losses(attached(0.0).train()(**batch), taught)
    assert max(loss.item() for loss in losses.values()) < 1e-6
    pruned = distillation.step_losses(attached(0.7).train()(**batch), taught)
    assert min(pruned["logits"].item(), pruned["state"].item()) > 1e-3


def test_every_madtp_parameter_learns(attached, teacher, batches) -> None:
    """In the released code the threshold gets no gradient and the dictionary hardly moves."""
    student = attached(0.4)
    before = copy.deepcopy(student.madtp.state_dict())
    list(distillation.distill(student, teacher, batches, SCHEDULE, CPU))
    for name, value in student.madtp.state_dict().items():
        assert (value - before[name]).abs().mean() > SCHEDULE.learning_rate, name


def test_dictionary_and_pretrained_weights_have_their_own_rates(attached) -> None:
    """The dictionary starts from random values. Vectors (norms, biases) have no decay, in either."""
    student = attached(0.4)
    muon, adamw = distillation.optimizers_of(student, SCHEDULE)
    names = {id(value): name for name, value in student.named_parameters()}
    groups = [*muon.param_groups, *adamw.param_groups]
    assert sorted(id(value) for group in groups for value in group["params"]) == sorted(names)
    for group in groups:
        own = {names[id(value)].startswith("madtp.") for value in group["params"]}
        assert own == {group["lr"] == SCHEDULE.dictionary_learning_rate}
        assert all((value.dim() <= 1) == (group["weight_decay"] == 0) for value in group["params"])
    assert {names[id(value)].split(".")[0] for group in muon.param_groups for value in group["params"]} == {
        "vision_model",
        "text_encoder",
    }


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 300])
def test_rates_warm_up_and_then_fall_towards_zero(steps) -> None:
    """A full first step would throw the pretrained weights about; a full last one would leave them shaking."""
    factors = [Schedule(steps, 1, 1).factor(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(1.0)
    assert peak <= max(1, round(0.1 * steps))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_schedule_follows_its_formula() -> None:
    """Of 300 steps 30 are warm-up; half way through the other 270 the cosine stands at one half."""
    schedule = Schedule(300, 1, 1)
    assert schedule.factor(0) == pytest.approx(1 / 30)
    assert schedule.factor(29) == schedule.factor(30) == 1
    assert schedule.factor(165) == pytest.approx(0.5)
    assert 0 < schedule.factor(299) < 1e-4


def test_the_same_run_gives_the_same_weights(attached, teacher, collate, samples) -> None:
    """Bit for bit after three steps, so that a result can be had again from its command line."""
    runs = []
    for _ in range(2):
        student, batches = attached(0.4), [collate(samples[:3]), collate(samples[3:]), collate(samples[1:4])]
        torch.manual_seed(7)
        losses = [step_result.losses for step_result in distillation.distill(student, teacher, batches, SCHEDULE, CPU)]
        runs.append((student.state_dict(), losses))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())


def test_half_precision_learns_as_full_precision_does(attached, teacher, collate, samples) -> None:
    """Autocast keeps the weights it has cast until it ends: around all steps each would see those of the first."""
    fell = dict.fromkeys(("float32", "bfloat16"), 0.0)
    threshold_scales = (
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
    )  # of each alone, what rounding does to tokens at a threshold is up to 13 %
    for dtype, threshold_scale in itertools.product(fell, threshold_scales):
        student, schedule = attached(threshold_scale), Schedule(20, 1e-3, 1e-3)
        batches = itertools.repeat(collate(samples))
        losses = [
            one.loss
            for one in distillation.distill(student, teacher, batches, schedule, ComputeConfig.of("cpu", dtype))
        ]
        fell[dtype] += losses[-1] / losses[0] / len(threshold_scales)
        assert {value.dtype for value in student.parameters()} == {torch.float32}
    assert fell["float32"] < 0.8
    assert fell["bfloat16"] == pytest.approx(fell["float32"], rel=0.1)


def test_the_student_is_ready_for_use_at_every_yield(attached, teacher, batches) -> None:
    """In evaluation mode, counted from one; the run ends with its steps or its batches."""
    student, steps = attached(0.4), []
    for step_result in distillation.distill(student, teacher, itertools.islice(batches, 2), SCHEDULE, CPU):
        assert not student.training
        assert all(value.grad is None for value in student.parameters())  # they would lie beside the next activations
        steps.append(step_result.step)
    assert steps == [1, 2]


def test_muons_cost_is_that_of_its_products() -> None:
    """Five iterations of three products each; a wide matrix costs as much as a tall one."""
    tower = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(200, 100), nn.Linear(100, 200)])})
    model = nn.ModuleDict({"tower": tower, "head": nn.Linear(100, 7)})
    once = 100 * 200 * 100 + 100**3 + 100 * 100 * 200
    assert distillation.muon_gflops(model) == pytest.approx(2 * 5 * once / 1e9)


def test_a_steps_loss_is_the_sum_of_its_parts() -> None:
    """The parts are weighted already."""
    step_result = StepResult(step=4, steps=10, losses={"logits": 0.5, "task": 0.25}, seconds=8.0)
    assert step_result.loss == 0.75
