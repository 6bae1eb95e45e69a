"""The time, the memory and the executed multiply-adds of forward passes."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp_cli import tasks
from madtp_cli.config import batch_sizes
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import executed, memory, run, timing
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.progress import ProgressReporter
from tests import decoding, drawing, retrieving

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
#: Bytes of a number.
FLOAT = 4


@pytest.fixture(autouse=True, scope="module")
def few_turns() -> None:
    """Replace the fixture of all other tests: here the number of turns is that of a run."""


class Clock:
    """A clock that moves only when one of its models runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self.inputs: list[Tensor] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, *seconds: float) -> Any:
        """Return a model whose forward passes take these seconds, repeated without end."""

        def forward(pixel_values: Tensor) -> None:
            self.now += seconds[self.ran.count(name) % len(seconds)]
            self.ran.append(name)
            self.inputs.append(pixel_values)

        return forward


@pytest.fixture
def clock() -> Clock:
    """A clock that starts at 0."""
    return Clock()


def test_the_order_of_the_models_alternates(clock) -> None:
    """Otherwise a machine that gets slower would favour the first model. The warm-up is not counted."""
    models = {"dense": clock.model("dense", 100.0, 2.0, 3.0, 4.0), "pruned": clock.model("pruned", 50.0, 1.0)}
    seconds = timing.in_turns(models, [{"pixel_values": torch.zeros(2, 1)}], CPU, turns=3, clock=clock)
    assert clock.ran == ["dense", "pruned", "dense", "pruned", "pruned", "dense", "dense", "pruned"]
    assert seconds == {"dense": [2.0, 3.0, 4.0], "pruned": [1.0, 50.0, 1.0]}


def test_each_turn_uses_the_next_batch_for_all_models(clock) -> None:
    """The warm-up uses the first batch, which comes again after the last one."""
    models = {name: clock.model(name, 1.0) for name in ("dense", "pruned")}
    batches = [{"pixel_values": torch.full((2, 1), float(number))} for number in range(3)]
    timing.in_turns(models, batches, CPU, turns=4, clock=clock)
    assert [int(values[0]) for values in clock.inputs] == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize(("second", "turns"), [(1e-6, 50), (0.5, 10), (0.3, 16), (60.0, 8)])
def test_short_forward_passes_are_timed_more_often(clock, second, turns) -> None:
    """Percentiles need many turns, long passes need few; the progress reporter gets the number of turns."""
    stages: list[tuple[str, int]] = []
    progress = SimpleNamespace(
        start=lambda *stage: stages.append(stage), advance=lambda done: None, finish=lambda: None
    )
    models = {name: clock.model(name, second) for name in ("dense", "pruned")}
    batch = {"pixel_values": torch.zeros(3, 1)}
    seconds = timing.in_turns(models, [batch], CPU, progress=progress, clock=clock)  # type: ignore[arg-type]
    assert [len(times) for times in seconds.values()] == [turns, turns]
    assert stages == [("Timing, batch size 3", turns)]


def test_percentiles_and_throughput_are_of_batches(monkeypatch, blip, collate, samples) -> None:
    """The report has milliseconds per batch and per sample."""
    seconds = {"dense": [0.1 * number for number in range(1, 22)], "pruned": [0.55] * 21}

    def in_turns(models: Any, batches: Any, *_: Any, label: str) -> dict[str, list[float]]:
        with torch.inference_mode():
            return {name: seconds[name] for name, model in models.items() if model(**batches[0])}

    monkeypatch.setattr(timing, "in_turns", in_turns)
    part = timing.latency(blip, blip, [collate(samples[:2])], CPU)
    assert part.pruned is not None
    found = (part.dense.median_ms, part.dense.p5_ms, part.dense.p95_ms, part.dense.samples_per_second)
    assert found == pytest.approx((1100, 200, 2000, 2 / 1.1))
    assert (part.dense_ms, part.pruned_ms, part.speedup) == pytest.approx((550, 275, 2))
    assert (part.batch_size, part.repeats) == (2, 21)


def test_efficiency_is_the_speedup_over_the_flops_ratio(blip, attached, collate, samples) -> None:
    """Both ratios are of the same samples, and can be computed from the other fields."""
    batches, pruned = [collate(samples[first : first + 2]) for first in (0, 1, 2)], attached(0.7)
    part = timing.latency(blip, pruned, batches, CPU, turns=2)
    for model, times in ((blip, part.dense), (pruned, part.pruned)):
        assert times is not None
        timed = run.run(model, batches[1:], tasks.get("nlvr2"), CPU)  # the first batch is the warm-up
        assert times.gflops == pytest.approx(timed.gflops(model).mean())
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


def test_a_dense_model_alone_has_no_ratios(blip, collate, samples) -> None:
    """There is no pruned model to compare with."""
    part = timing.latency(blip, None, [collate(samples[:2])], CPU, turns=2)
    assert part.pruned is None
    assert (part.pruned_ms, part.speedup, part.flops_ratio, part.efficiency) == (None, None, None, None)
    assert part.peak_memory_mb == part.dense.peak_memory_mb


def _nlvr2(blip: Any, collate: Callable[..., Any], samples: Any) -> tuple[Any, Any]:
    return blip, collate(samples[:2])


def _clip(clip: Any, collate: Callable[..., Any], captioned: Any) -> tuple[Any, Any]:
    return clip, collate(captioned[:2])


MODELS: dict[str, Callable[[pytest.FixtureRequest], tuple[Any, Any]]] = {
    "blip.nlvr2": lambda request: _nlvr2(*map(request.getfixturevalue, ("blip", "collate", "samples"))),
    "blip.vqa": lambda request: (decoding.vqa(), decoding.collate(decoding.questions()[:2])),
    "blip.caption": lambda request: (decoding.captioner(), decoding.collate(decoding.captions()[:2])),
    "blip.retrieval": lambda request: (retrieving.dense(), retrieving.collate(retrieving.samples()[:2])),
    "clip.retrieval": lambda request: _clip(*map(request.getfixturevalue, ("clip", "collate", "captioned"))),
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float32") for kind in MODELS), ("blip.nlvr2", "bfloat16"), ("clip.retrieval", "bfloat16")],
)
def test_all_models_can_be_timed(kind, dtype, request) -> None:
    """In both number formats; the executed multiply-adds are at least those on tokens."""
    model, batch = MODELS[kind](request)
    part = timing.latency(model, drawing.attached(model, 0.5), [batch], ComputeConfig.of("cpu", dtype), turns=1)
    assert part.pruned is not None
    assert (part.batch_size, part.dtype) == (2, dtype)
    assert 0 < part.pruned.gflops < part.dense.gflops
    for times in (part.dense, part.pruned):
        assert times.executed_gflops >= times.gflops * (1 - 1e-12)
        assert times.peak_memory_mb is not None
        weights = sum(value.numel() for value in model.parameters()) * getattr(torch, dtype).itemsize
        assert times.peak_memory_mb > weights / 1e6


def test_the_loop_backend_executes_no_padding(attached, collate, samples) -> None:
    """The counter and the formula then give the same figure, also with pruning."""
    model = attached(0.4)
    model.backend = "loop"
    useful, total = executed.multiply_adds(model, collate(samples), CPU)
    assert total == pytest.approx(useful, rel=1e-12)
    assert model.backend == "loop"


def test_padding_is_counted_if_attention_pads(blip, collate, samples, monkeypatch) -> None:
    """Computed by hand: texts of 9 and 4 tokens, 2 images of 37 tokens, three layers of width 32."""
    monkeypatch.setattr(blip, "backend", "padded")
    useful, total = executed.multiply_adds(blip, collate(samples[:2]), CPU)
    text_pairs, image_pairs = 2 * 9**2 - 9**2 - 4**2, 2 * ((9 + 9) - (9 + 4)) * 37
    assert total - useful == pytest.approx(3 * 2 * 32 * (text_pairs + image_pairs))
    assert blip.backend == "padded"


def test_memory_is_measured_at_its_peak(capfd) -> None:
    """Freed tensors and tensors from before do not count. The profiler prints nothing."""
    before = torch.zeros(500)

    def work() -> Tensor:
        first, second = torch.empty(3000), torch.empty(2000)
        del first
        third = torch.empty(4000)
        return torch.cat([second, third, before])  # 6,500 in addition to the 2,000 and 4,000 that exist

    assert memory.peak_of_allocations(work) == 12_500 * FLOAT
    assert capfd.readouterr().err == ""
    assert "KINETO_LOG_LEVEL" not in os.environ


class Two(nn.Module):
    """Two layers; the activations of the first exist until the second is done."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(30, 50, bias=False), nn.Linear(50, 70, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.two(self.one(pixel_values))


@pytest.mark.parametrize("samples", [4, 8])
def test_peak_memory_is_weights_batch_and_activations(samples) -> None:
    """Computed by hand for a model of two layers."""
    batch = {"pixel_values": torch.zeros(samples, 30)}
    peak = memory.peak_memory(Two(), batch, CPU)  # type: ignore[arg-type]
    assert peak == FLOAT * (30 * 50 + 50 * 70 + samples * (30 + 50 + 70))


def test_batch_sizes_are_parsed() -> None:
    """Spaces are allowed, and the order is kept."""
    assert batch_sizes.parse_batch_sizes(timed=True, sizes="8, 1") == [8, 1]
    assert batch_sizes.parse_batch_sizes(timed=True, sizes=None) == batch_sizes.BATCH_SIZES
    assert batch_sizes.parse_batch_sizes(timed=False, sizes=None) == ()


@pytest.mark.parametrize("sizes", ["0", "8,0", "-1", "", "8,,16", "many", "1.5", "²"])
def test_wrong_batch_sizes_are_refused(sizes) -> None:
    """The message says what to write."""
    with pytest.raises(UsageError, match=r"cannot be used(?s:.)*1,8,32"):
        batch_sizes.parse_batch_sizes(timed=True, sizes=sizes)


def test_batch_sizes_without_time_are_refused() -> None:
    """They would have no effect."""
    with pytest.raises(UsageError, match="Add --time"):
        batch_sizes.parse_batch_sizes(timed=False, sizes="8")


def test_the_reporter_gets_the_progress_of_each_turn(blip, collate, samples) -> None:
    """On two cores a full-size batch of 32 takes minutes."""
    calls: list[Any] = []

    class Recorder(ProgressReporter):
        def start(self, stage: str, total: int) -> None:
            calls.append((stage, total))

        def advance(self, done: int, detail: str = "") -> None:
            calls.append(done)

    timing.latency(blip, blip, [collate(samples[:2])], CPU, turns=3, progress=Recorder())
    stages = ("Measuring memory and multiply-adds, batch size 2", 2), ("Timing, batch size 2", 3)
    assert calls == [stages[0], 1, 2, stages[1], 1, 2, 3]
