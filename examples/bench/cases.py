"""The cases of the benchmark: what is timed, on which device and dtype, and where its record is."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.bench import page, token_plans, training_steps
from examples.bench.timings import Case, Timing, load_or_make
from examples.bench.token_plans import TokenStatistics
from examples.bench.variants import Variant, build_model, dense_counts, resize_images, scene_batch, variants
from madtp_cli.evaluation import sample_costs, timing
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.flops.counts import Counts
from madtp_cli.models.prunable import Prunable

BLIP, CLIP = "blip-nlvr-base", "clip-vit-l-14-336"
#: Samples of --quick, and its layers in each tower; one layer costs as much as in the whole model.
QUICK_SAMPLES, QUICK_LAYERS = 4, 6
#: Samples in a training step.
TRAIN_SAMPLES = 8
#: Samples on which the pruning rule itself decides how many tokens are kept.
RULE_SAMPLES = 4
#: Variants whose peak memory is measured.
WITH_MEMORY = ("dense", "stock", "pruned", "padded")
#: Dtype and batch sizes on a GPU, if there is one.
GPU_DTYPE, GPU_BATCHES = "bfloat16", (32, 128)
#: Values of the one quantity that grows; everything else is as in a batch of one sample.
GROWTH = {"batch": (1, 2, 4, 8, 16), "image": (224, 384, 512, 640, 768), "text": (10, 20, 40, 80, 160)}
GROWTH_BUDGETS = (0.5, 0.2)

#: By budget, the shares from `token_plans.example_shares`.
Shares = dict[float, np.ndarray]


def time_case(
    architecture: str,
    model: Prunable,
    batch: Batch,
    compute: ComputeConfig,
    shares: Shares,
    turns: int,
    *,
    compare: bool = True,
    growing: str = "",
) -> Case:
    """Time all variants of a batch in turns after a warm-up, then measure their peak memory.

    Args:
        architecture: Name of the model.
        model: The model, on the device of `compute`.
        batch: One batch; it is moved to the device.
        compute: Device and dtype.
        shares: Shares of tokens to keep, by budget.
        turns: Number of timed turns.
        compare: Also time the stock, padded and uniform variants.
        growing: The quantity that grows, see `Case`.
    """
    batch = compute.moved(batch)
    dense = dense_counts(model, batch, compute)
    by_name: dict[str, Any] = {str(one): one for one in variants(model, dense, shares, 1 + turns, compare=compare)}
    seconds = timing.in_turns(by_name, [batch], compute, turns)
    return Case(
        architecture=architecture,
        device=compute.device.type,
        dtype=dtype_name(compute),
        threads=torch.get_num_threads(),
        samples=len(batch["pixel_values"]),
        image_size=model.config.vision_config.image_size,
        text_tokens=int(batch["attention_mask"].sum(1).max()),
        timings=[_timing(variant, seconds[name], dense, batch, compute) for name, variant in by_name.items()],
        growing=growing,
        **_token_figures(list(by_name.values())),
    )


def _timing(variant: Any, seconds: list[float], dense: Counts, batch: Batch, compute: ComputeConfig) -> Timing:
    """Return the timing of a variant with its GFLOPs and, for some variants, its peak memory.

    `variant` is a `Variant`; its type is Any because the timing functions of the package expect a model.
    """
    model = variant.model
    # The first plan was used by the warm-up.
    counts: list[Counts] = [token_plans.planned_counts(model, dense, left) for left in variant.plans[1:]] or [dense]
    gflops = statistics.fmean(sample_costs.per_sample(model.config, tokens).mean() for tokens in counts) / 1e9
    peak = timing.peak_memory(variant, batch, compute) if variant.name in WITH_MEMORY else None
    return Timing(variant.name, variant.budget, seconds, gflops, peak and peak / timing.MB)


def _token_figures(all_variants: list[Variant]) -> dict[str, Any]:
    """Return the token statistics and the padding ratios of the timed plans, by budget."""
    plans = {f"{one.budget:g}": one.plans[1:] for one in all_variants if one.name == "pruned"}
    return {
        "statistics": {
            budget: token_plans.token_statistics(np.concatenate(lefts, 1)) for budget, lefts in plans.items()
        },
        "padding_ratios": {budget: token_plans.padding_ratios(lefts) for budget, lefts in plans.items()},
    }


def dtype_name(compute: ComputeConfig) -> str:
    """Return the name of the dtype, as in "float32"."""
    return str(compute.dtype).removeprefix("torch.")


def is_wanted(record: Path, options: argparse.Namespace) -> bool:
    """Return whether a case belongs to the page: with --recorded only if it has a record."""
    return record.exists() or not options.recorded


def recorded_case(file: Path, make: Callable[[], Case]) -> Case:
    """Return the case of a record; without a record, time it and write the record."""
    return Case.from_json(load_or_make(file, lambda: make().to_json()))


def settings_to_time(options: argparse.Namespace) -> Iterator[tuple[ComputeConfig, int]]:
    """Yield each device and dtype with a batch size."""
    for dtype in options.dtypes:
        for samples in options.batch_sizes:
            yield ComputeConfig.of("cpu", dtype), samples
    if torch.cuda.is_available():
        for samples in GPU_BATCHES:
            yield ComputeConfig.of("cuda", GPU_DTYPE), samples


def architecture_cases(name: str, model: Prunable, shares: Shares, options: argparse.Namespace) -> list[Case]:
    """Time an architecture with all variants at every device, dtype and batch size; print its rows."""
    cases = []
    for compute, samples in settings_to_time(options):
        model.to(compute.device, compute.dtype)

        def make(compute: ComputeConfig = compute, samples: int = samples) -> Case:
            batch = scene_batch(model, samples)
            return time_case(name, model, batch, compute, shares, options.turns, compare=not options.quick)

        parts = [name, compute.device.type, dtype_name(compute), samples, *options.budgets]
        record = options.folder / f"{'-'.join(map(str, parts))}.json"
        if not is_wanted(record, options):
            continue
        cases.append(make() if options.quick else recorded_case(record, make))
        for line in page.case_rows(cases[-1]):
            print(line, flush=True)
    return cases


def rule_statistics(name: str, model: Prunable, options: argparse.Namespace) -> dict[str, TokenStatistics]:
    """Return by budget the token statistics if the pruning rule itself decides; empty if they are not wanted."""
    compute, batch = ComputeConfig.of("cpu", "float32"), scene_batch(model, RULE_SAMPLES)
    model.to(compute.device, compute.dtype)

    def make() -> dict[str, TokenStatistics]:
        return {
            f"{budget:g}": token_plans.statistics_of_the_rule(model, batch, compute, budget)
            for budget in options.budgets
        }

    record = options.folder / f"{'-'.join(map(str, [name, 'rule', *options.budgets]))}.json"
    result: dict[str, TokenStatistics] = load_or_make(record, make) if is_wanted(record, options) else {}
    return result


def growth_cases(model: Prunable, shares: Shares, options: argparse.Namespace) -> list[Case]:
    """Time BLIP while the batch, the image or the text grows."""
    compute = ComputeConfig.of("cpu", "float32")
    model.to(compute.device, compute.dtype)
    fewer_budgets = {budget: shares[budget] for budget in shares if budget in GROWTH_BUDGETS}
    image_size = model.config.vision_config.image_size
    cases = []
    for growing, value in ((growing, value) for growing, values in GROWTH.items() for value in values):

        def make(growing: str = growing, value: int = value) -> Case:
            resize_images(model, value if growing == "image" else image_size)
            samples, words = value if growing == "batch" else 1, value if growing == "text" else None
            batch = scene_batch(model, samples, words)
            turns = options.turns
            return time_case(BLIP, model, batch, compute, fewer_budgets, turns, compare=False, growing=growing)

        record = options.folder / f"grown-{growing}-{value}.json"
        if not is_wanted(record, options):
            continue
        cases.append(recorded_case(record, make))
        print(f"{growing} {value}: dense {cases[-1].dense.median:.2f} s", flush=True)
    resize_images(model, image_size)
    return cases


def training_cases(shares: Shares, options: argparse.Namespace) -> dict[str, training_steps.Seconds]:
    """Return by dtype the seconds of training steps, with half of BLIP-base's layers."""
    seconds = {}
    for dtype in options.dtypes:

        def make(dtype: str = dtype) -> training_steps.Seconds:
            model, compute = build_model(BLIP, QUICK_LAYERS), ComputeConfig.of("cpu", dtype)
            batch = training_steps.with_labels(scene_batch(model, TRAIN_SAMPLES))
            dense = dense_counts(model, inputs_of(batch), compute)
            number = training_steps.PRUNED_STEPS * (1 + options.turns)
            plans = {
                budget: token_plans.plans(model, dense, curves, budget, number) for budget, curves in shares.items()
            }
            return training_steps.time_steps(model, batch, compute, plans, options.turns)

        record = options.folder / f"train-{dtype}-{TRAIN_SAMPLES}.json"
        if not is_wanted(record, options):
            continue
        seconds[dtype] = load_or_make(record, make)
        print("\n".join([f"{dtype}, {TRAIN_SAMPLES} pairs", *training_steps.table(seconds[dtype])]), flush=True)
    return seconds
