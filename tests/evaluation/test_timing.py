"""What a clock says, what memory a forward needs, and what of the multiply-adds was padding."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp_cli import tasks
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run, timing
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.progress import ProgressReporter
from tests import decoding, drawing, retrieving

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
#: Bytes of a number.
FLOAT = 4


class Clock:
    """Stands still but for the models that are run by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self.saw: list[Tensor] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, *seconds: float) -> Any:
        """One whose forwards take these seconds, again and again."""

        def forward(pixel_values: Tensor) -> None:
            self.now += seconds[self.ran.count(name) % len(seconds)]
            self.ran.append(name)
            self.saw.append(pixel_values)

        return forward


@pytest.fixture
def clock() -> Clock:
    """Begins at nought."""
    return Clock()


def test_models_take_turns_whose_order_alternates(clock) -> None:
    """A machine that grows slower would otherwise favour whoever goes first; the warm-up counts for nobody."""
    models = {"dense": clock.model("dense", 100.0, 2.0, 3.0, 4.0), "pruned": clock.model("pruned", 50.0, 1.0)}
    seconds = timing.in_turns(models, [{"pixel_values": torch.zeros(2, 1)}], CPU, turns=3, clock=clock)
    assert clock.ran == ["dense", "pruned", "dense", "pruned", "pruned", "dense", "dense", "pruned"]
    assert seconds == {"dense": [2.0, 3.0, 4.0], "pruned": [1.0, 50.0, 1.0]}


def test_each_turn_takes_the_next_batch_for_all_models(clock) -> None:
    """Which the warm-up has not seen, and the first again when all were taken."""
    models = {name: clock.model(name, 1.0) for name in ("dense", "pruned")}
    batches = [{"pixel_values": torch.full((2, 1), float(number))} for number in range(3)]
    timing.in_turns(models, batches, CPU, turns=4, clock=clock)
    assert [int(seen[0]) for seen in clock.saw] == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize(("second", "turns"), [(1e-6, 50), (0.5, 10), (0.3, 16), (60.0, 8)])
def test_quick_forwards_are_timed_more_often(clock, second, turns) -> None:
    """Percentiles want many, minutes want few; a listener knows how many there will be."""
    told: list[tuple[str, int]] = []
    progress = SimpleNamespace(start=lambda *stage: told.append(stage), advance=lambda done: None, finish=lambda: None)
    models = {name: clock.model(name, second) for name in ("dense", "pruned")}
    batch = {"pixel_values": torch.zeros(3, 1)}
    seconds = timing.in_turns(models, [batch], CPU, progress=progress, clock=clock)  # type: ignore[arg-type]
    assert [len(taken) for taken in seconds.values()] == [turns, turns]
    assert told == [("Timing, batch size 3", turns)]


def test_percentiles_and_throughput_are_of_batches(monkeypatch, blip, collate, samples) -> None:
    """Milliseconds of a batch beside those of a sample, in which `compress` has always told them."""
    taken = {"dense": [0.1 * number for number in range(1, 22)], "pruned": [0.55] * 21}

    def in_turns(models: Any, batches: Any, *_: Any) -> dict[str, list[float]]:
        with torch.inference_mode():
            return {name: taken[name] for name, model in models.items() if model(**batches[0])}

    monkeypatch.setattr(timing, "in_turns", in_turns)
    part = timing.latency(blip, blip, [collate(samples[:2])], CPU)
    assert part.pruned is not None
    found = (part.dense.median_ms, part.dense.p5_ms, part.dense.p95_ms, part.dense.samples_per_second)
    assert found == pytest.approx((1100, 200, 2000, 2 / 1.1))
    assert (part.dense_ms, part.pruned_ms, part.speedup) == pytest.approx((550, 275, 2))
    assert (part.batch_size, part.repeats) == (2, 21)


def test_efficiency_is_the_part_of_the_saved_multiply_adds_that_became_time(blip, attached, collate, samples) -> None:
    """Both ratios are of the same samples, and all of it can be worked out anew from what is written down."""
    batches, pruned = [collate(samples[first : first + 2]) for first in (0, 1, 2)], attached(0.7)
    part = timing.latency(blip, pruned, batches, CPU, turns=2)
    for model, times in ((blip, part.dense), (pruned, part.pruned)):
        assert times is not None
        those = run.run(model, batches[1:], tasks.get("nlvr2"), CPU)  # the first one warms up
        assert times.gflops == pytest.approx(those.gflops(model).mean())
    assert part.pruned is not None
    assert part.speedup is not None
    assert part.flops_ratio is not None
    assert part.speedup == pytest.approx(part.dense.median_ms / part.pruned.median_ms)
    assert part.flops_ratio == pytest.approx(part.dense.gflops / part.pruned.gflops)
    assert part.efficiency == pytest.approx(part.speedup / part.flops_ratio)
    assert part.flops_ratio > 1
    assert (part.batch_size, part.repeats, part.device, part.dtype) == (2, 2, "cpu", "float32")
    assert part.threads == torch.get_num_threads()
    assert part.peak_memory_mb == part.pruned.peak_memory_mb


def test_a_dense_model_alone_has_nothing_to_be_compared_with(blip, collate, samples) -> None:
    """No speed-up of one."""
    part = timing.latency(blip, None, [collate(samples[:2])], CPU, turns=2)
    assert part.pruned is None
    assert (part.pruned_ms, part.speedup, part.flops_ratio, part.efficiency) == (None, None, None, None)
    assert part.peak_memory_mb == part.dense.peak_memory_mb


def _nlvr2(blip: Any, collate: Callable[..., Any], samples: Any) -> tuple[Any, Any]:
    return blip, collate(samples[:2])


def _clip(clip: Any, collate: Callable[..., Any], captioned: Any) -> tuple[Any, Any]:
    return clip, collate(captioned[:2])


KINDS: dict[str, Callable[[pytest.FixtureRequest], tuple[Any, Any]]] = {
    "blip.nlvr2": lambda given: _nlvr2(*map(given.getfixturevalue, ("blip", "collate", "samples"))),
    "blip.vqa": lambda given: (decoding.vqa(), decoding.collate(decoding.questions()[:2])),
    "blip.caption": lambda given: (decoding.captioner(), decoding.collate(decoding.captions()[:2])),
    "blip.retrieval": lambda given: (retrieving.dense(), retrieving.collate(retrieving.samples()[:2])),
    "clip.retrieval": lambda given: _clip(*map(given.getfixturevalue, ("clip", "collate", "captioned"))),
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float32") for kind in KINDS), ("blip.nlvr2", "bfloat16"), ("clip.retrieval", "bfloat16")],
)
def test_every_kind_of_model_can_be_timed(kind, dtype, request) -> None:
    """Whatever its forward takes and gives, in both number formats; nothing it executes is less than useful."""
    model, batch = KINDS[kind](request)
    part = timing.latency(model, drawing.attached(model, 0.5), [batch], ComputeConfig.of("cpu", dtype), turns=1)
    assert part.pruned is not None
    assert (part.batch_size, part.dtype) == (2, dtype)
    assert 0 < part.pruned.gflops < part.dense.gflops
    for times in (part.dense, part.pruned):
        assert times.executed_gflops >= times.gflops * (1 - 1e-12)
        assert times.peak_memory_mb is not None
        weights = sum(value.numel() for value in model.parameters()) * getattr(torch, dtype).itemsize
        assert times.peak_memory_mb > weights / 1e6


def test_one_sample_after_the_other_executes_nothing_but_what_is_useful(attached, collate, samples) -> None:
    """The counter and the formula then count the same, also where tokens are pruned."""
    model = attached(0.4)
    model.backend = "loop"
    useful, executed = timing.multiply_adds(model, collate(samples), CPU)
    assert executed == pytest.approx(useful, rel=1e-12)
    assert model.backend == "loop"


def test_padding_is_counted_where_attention_pads(blip, collate, samples, monkeypatch) -> None:
    """Worked out by hand: texts of 9 and 4 tokens, 2 images of 37 tokens, three layers of width 32."""
    monkeypatch.setattr(blip, "backend", "padded")
    useful, executed = timing.multiply_adds(blip, collate(samples[:2]), CPU)
    among_words, to_images = 2 * 9**2 - 9**2 - 4**2, 2 * ((9 + 9) - (9 + 4)) * 37
    assert executed - useful == pytest.approx(3 * 2 * 32 * (among_words + to_images))
    assert blip.backend == "padded"


def test_memory_is_told_at_its_peak(capfd) -> None:
    """What is freed in between does not count any more, what stood before does not count at all, and nobody speaks."""
    before = torch.zeros(500)

    def work() -> Tensor:
        first, second = torch.empty(3000), torch.empty(2000)
        del first
        third = torch.empty(4000)
        return torch.cat([second, third, before])  # 6,500 more beside the 2,000 and 4,000 that are alive

    assert timing.peak_of_allocations(work) == 12_500 * FLOAT
    assert capfd.readouterr().err == ""
    assert "KINETO_LOG_LEVEL" not in os.environ


class Two(nn.Module):
    """Two layers, whose activations are held until the second one is done."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(30, 50, bias=False), nn.Linear(50, 70, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.two(self.one(pixel_values))


@pytest.mark.parametrize("samples", [4, 8])
def test_peak_memory_is_weights_batch_and_activations(samples) -> None:
    """Of a model that can be worked out by hand."""
    batch = {"pixel_values": torch.zeros(samples, 30)}
    peak = timing.peak_memory(Two(), batch, CPU)  # type: ignore[arg-type]
    assert peak == FLOAT * (30 * 50 + 50 * 70 + samples * (30 + 50 + 70))


def test_which_sizes_are_asked_for() -> None:
    """Spaces are nothing to stumble over; an order is kept for whoever sorts."""
    assert timing.asked(wanted=True, sizes="8, 1") == [8, 1]
    assert timing.asked(wanted=True, sizes=None) == timing.BATCH_SIZES
    assert timing.asked(wanted=False, sizes=None) == ()


@pytest.mark.parametrize("sizes", ["0", "8,0", "-1", "", "8,,16", "many", "1.5", "²"])
def test_sizes_that_are_none_are_refused(sizes) -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match=r"cannot be used(?s:.)*1,8,32"):
        timing.asked(wanted=True, sizes=sizes)


def test_sizes_of_nothing_are_refused() -> None:
    """Who says how to time wants to time."""
    with pytest.raises(UsageError, match="Add --time"):
        timing.asked(wanted=False, sizes="8")


def test_a_listener_hears_of_every_forward_that_takes_long(blip, collate, samples) -> None:
    """On two cores a full-size batch of 32 takes minutes."""
    heard: list[Any] = []

    class CheckpointOverrides(ProgressReporter):
        def start(self, stage: str, total: int) -> None:
            heard.append((stage, total))

        def advance(self, done: int, detail: str = "") -> None:
            heard.append(done)

    timing.latency(blip, blip, [collate(samples[:2])], CPU, turns=3, progress=CheckpointOverrides())
    counting, timed = ("Measuring memory and multiply-adds, batch size 2", 2), ("Timing, batch size 2", 3)
    assert heard == [counting, 1, 2, timed, 1, 2, 3]
