"""Do saved FLOPs become saved seconds? Full-size models with random weights, dense and pruned in turns.

    python examples/bench_speed.py --quick     half of BLIP-base NLVR's layers, four pairs; prints, writes nothing
    python examples/bench_speed.py             BLIP-base NLVR at 384 pixels: writes bench.md and bench.png
    python examples/bench_speed.py --grow      ... and how its cost grows
    python examples/bench_speed.py --all       ... and CLIP ViT-L/14@336
    python examples/bench_speed.py --train     ... and what a step of the fine-tune takes, with half the layers
    python examples/bench_speed.py --recorded  ... but what has no record yet is left out; times nothing
    python examples/bench_speed.py --parts     where the time of a scored layer goes; prints

A case whose record is in --folder already is read, not timed again, so that a broken run goes on where it stopped, and
the cases of a page can be timed by several commands.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.bench import counts, page, parts, stepping
from examples.bench.page import Case, Timed
from examples.bench.running import Variant, batch_of, drawn, resized, traced
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.evaluation import sample_costs, timing
from madtp_cli.evaluation.run import Batch, ComputeConfig, inputs_of
from madtp_cli.flops.counts import Counts
from madtp_cli.models.prunable import Prunable

HERE = Path(__file__).parent
BLIP, CLIP = "blip-nlvr-base", "clip-vit-l-14-336"
#: Of --quick: samples, and layers of each tower; a layer costs what it costs in the whole model.
QUICK_SAMPLES, QUICK_LAYERS = 4, 6
#: Samples of a training step.
TRAIN_SAMPLES = 8
#: Pairs of scenes whose counts in the trained example are imposed; fewer where it must be quick.
EXAMPLE_PAIRS, FEW_PAIRS = 64, 16
#: Samples on which the rule is left to itself.
OWN_SAMPLES = 4
#: Variants whose peak memory is taken.
REMEMBERED = ("dense", "stock", "pruned", "padded")
#: On a GPU, where there is one.
GPU_DTYPE, GPU_BATCHES = "bfloat16", (32, 128)
#: How cost grows: one of these changes, all else as in a batch of one.
GROWTH = {"batch": (1, 2, 4, 8, 16), "image": (224, 384, 512, 640, 768), "text": (10, 20, 40, 80, 160)}
GROWTH_BUDGETS = (0.5, 0.2)

#: By budget, what share of its tokens each image has left after each block of the example.
Shares = dict[float, np.ndarray]


def variants_of(model: Prunable, dense: Counts, shares: Shares, batches: int, *, against_all: bool) -> list[Variant]:
    """Dense, and pruned to each budget; `against_all` adds stock, padding to the batch's maximum, and no spread.

    There are counts for so many batches, which all of a budget's variants take in the same order.
    """
    variants = [Variant(model, "dense"), *([Variant(model, "stock")] if against_all else [])]
    for budget, curves in shares.items():
        lefts = counts.series(model, dense, curves, budget, batches)
        variants.append(Variant(model, "pruned", budget, lefts))
        if against_all:
            variants.append(Variant(model, "padded", budget, [counts.padded(left) for left in lefts]))
            variants.append(Variant(model, "even", budget, [counts.even(left) for left in lefts]))
    return variants


def timed(
    architecture: str,
    model: Prunable,
    batch: Batch,
    compute: ComputeConfig,
    shares: Shares,
    turns: int,
    *,
    against_all: bool = True,
    grows: str = "",
) -> Case:
    """Every variant of a batch in turns, after a warm-up; and its memory outside of them."""
    batch = compute.moved(batch)
    dense = traced(model, batch, compute)
    variants = variants_of(model, dense, shares, 1 + turns, against_all=against_all)
    runs: dict[str, Any] = {str(variant): variant for variant in variants}
    taken = timing.in_turns(runs, [batch], compute, turns)
    results = []
    for name, variant in runs.items():
        batches = [counts.with_left(model, dense, left) for left in variant.lefts[1:]] or [dense]
        gflops = statistics.fmean(sample_costs.per_sample(model.config, tokens).mean() for tokens in batches) / 1e9
        peak = timing.peak_memory(variant, batch, compute) if variant.name in REMEMBERED else None
        results.append(Timed(variant.name, variant.budget, taken[name], gflops, peak and peak / timing.MB))
    pruned = {f"{one.budget:g}": one.lefts[1:] for one in variants if one.name == "pruned"}
    whole = dense["vision"].entered[0] - counts.PINNED
    return Case(
        architecture=architecture,
        device=compute.device.type,
        dtype=str(compute.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        samples=len(batch["pixel_values"]),
        image_size=model.config.vision_config.image_size,
        text_tokens=int(batch["attention_mask"].sum(1).max()),
        timed=results,
        spread={budget: counts.spread(np.concatenate(lefts, 1)) for budget, lefts in pruned.items()},
        over_mean={budget: counts.over_mean(whole, lefts) for budget, lefts in pruned.items()},
        grows=grows,
    )


def belongs(record: Path, options: argparse.Namespace) -> bool:
    """Whether a case is for the page: all are, or those that were timed before."""
    return record.exists() or not options.recorded


def kept(file: Path, make: Callable[[], Case]) -> Case:
    """A case, timed now unless its record is there."""
    return Case.of(page.recorded(file, lambda: make().fields()))


def places(options: argparse.Namespace) -> Iterator[tuple[ComputeConfig, int]]:
    """Where, in which number format and with how many samples to time."""
    for dtype in options.dtypes:
        for samples in options.batch_sizes:
            yield ComputeConfig.of("cpu", dtype), samples
    if torch.cuda.is_available():
        for samples in GPU_BATCHES:
            yield ComputeConfig.of("cuda", GPU_DTYPE), samples


def measured(name: str, model: Prunable, shares: Shares, options: argparse.Namespace) -> list[Case]:
    """An architecture against everything, in every place."""
    cases = []
    for compute, samples in places(options):
        model.to(compute.device, compute.dtype)

        def make(compute: ComputeConfig = compute, samples: int = samples) -> Case:
            return timed(
                name, model, batch_of(model, samples), compute, shares, options.turns, against_all=not options.quick
            )

        of = [name, compute.device.type, str(compute.dtype).removeprefix("torch."), samples, *options.budgets]
        record = options.folder / f"{'-'.join(map(str, of))}.json"
        if not belongs(record, options):
            continue
        cases.append(make() if options.quick else kept(record, make))
        for line in page.rows(cases[-1]):
            print(line, flush=True)
    return cases


def left_to_itself(name: str, model: Prunable, options: argparse.Namespace) -> dict[str, page.Spread]:
    """By architecture the spread of the rule's own counts; of this one, if it is for the page."""
    compute, batch = ComputeConfig.of("cpu", "float32"), batch_of(model, OWN_SAMPLES)
    model.to(compute.device, compute.dtype)

    def make() -> page.Spread:
        return {f"{budget:g}": counts.own_spread(model, batch, compute, budget) for budget in options.budgets}

    record = options.folder / f"{'-'.join(map(str, [name, 'own', *options.budgets]))}.json"
    return {name: page.recorded(record, make)} if belongs(record, options) else {}


def grown(model: Prunable, shares: Shares, options: argparse.Namespace) -> list[Case]:
    """How BLIP's cost grows with the batch, the image and the text."""
    model.to(torch.device("cpu"), torch.float32)
    few, compute = (
        {budget: shares[budget] for budget in shares if budget in GROWTH_BUDGETS},
        ComputeConfig.of("cpu", "float32"),
    )
    usual = model.config.vision_config.image_size
    cases = []
    for grows, values in GROWTH.items():
        for value in values:

            def make(grows: str = grows, value: int = value) -> Case:
                resized(model, value if grows == "image" else usual)
                samples, words = value if grows == "batch" else 1, value if grows == "text" else None
                batch = batch_of(model, samples, words)
                return timed(BLIP, model, batch, compute, few, options.turns, against_all=False, grows=grows)

            record = options.folder / f"grown-{grows}-{value}.json"
            if not belongs(record, options):
                continue
            cases.append(kept(record, make))
            print(f"{grows} {value}: dense {cases[-1].dense.median:.2f} s", flush=True)
    resized(model, usual)
    return cases


def trained(shares: Shares, options: argparse.Namespace) -> dict[str, stepping.Seconds]:
    """By number format the seconds of training steps, of half of BLIP-base's layers."""
    taken = {}
    for dtype in options.dtypes:

        def make(dtype: str = dtype) -> stepping.Seconds:
            model, compute = drawn(BLIP, QUICK_LAYERS), ComputeConfig.of("cpu", dtype)
            batch = stepping.labelled(batch_of(model, TRAIN_SAMPLES))
            dense = traced(model, inputs_of(batch), compute)
            steps = stepping.PRUNED_STEPS * (1 + options.turns)
            left = {budget: counts.series(model, dense, one, budget, steps) for budget, one in shares.items()}
            return stepping.seconds(model, batch, compute, left, options.turns)

        record = options.folder / f"train-{dtype}-{TRAIN_SAMPLES}.json"
        if not belongs(record, options):
            continue
        taken[dtype] = page.recorded(record, make)
        print("\n".join([f"{dtype}, {TRAIN_SAMPLES} pairs", *stepping.table(taken[dtype])]), flush=True)
    return taken


def example_shares(budgets: Sequence[float], pairs: int = EXAMPLE_PAIRS) -> Shares:
    """What is to be imposed, from the trained example."""
    return {budget: counts.example_shares(HERE / "blip.pt", budget, pairs) for budget in budgets}


def print_parts(options: argparse.Namespace) -> None:
    """Where a layer's time goes at all tokens, scored or not, and at each budget."""
    model = drawn(BLIP, QUICK_LAYERS)
    batch, shares = batch_of(model, QUICK_SAMPLES), example_shares(options.budgets, FEW_PAIRS)
    for dtype in options.dtypes:
        compute = ComputeConfig.of("cpu", dtype)
        model.to(compute.device, compute.dtype)
        dense = traced(model, batch, compute)
        whole = dense["vision"].left - counts.PINNED
        left = {"scored, all kept": whole}
        left |= {f"budget {budget:g}": counts.planned(model, dense, one, budget) for budget, one in shares.items()}
        print(f"\n{dtype}, {torch.get_num_threads()} threads\n", flush=True)
        print("\n".join(parts.table(model, batch, compute, left, options.turns)), flush=True)
        alone = parts.pruning_alone(model, batch, compute, whole, options.turns)
        print(f"\nPruning in a scored layer that keeps all, by the clock: {alone:.1%} of a dense layer.", flush=True)


def written(
    cases: Sequence[Case],
    left_alone: dict[str, page.Spread],
    steps: dict[str, stepping.Seconds],
    options: argparse.Namespace,
) -> str:
    """The page; `left_alone` has by architecture what the rule itself leaves of random weights' tokens."""
    lines = [
        "# Speed", "",
        "Written by `python examples/bench_speed.py`, which says what it runs. "
        f"{torch.get_num_threads()} CPU cores, torch {metadata.version('torch')}, "
        f"transformers {metadata.version('transformers')}.", "", page.EXPLAINED,
    ]  # fmt: skip
    for name in dict.fromkeys(case.architecture for case in cases):
        own = [case for case in cases if case.architecture == name and not case.grows]
        lines += ["", f"## {name}, {own[0].image_size} pixels", "", page.HEAD]
        lines += [row for case in own for row in page.rows(case)]
        if not torch.cuda.is_available():
            lines += [row for samples in GPU_BATCHES for row in page.empty("cuda", GPU_DTYPE, samples, options.budgets)]
            lines += ["", "There was no GPU: its cells are empty."]
        lines += ["", page.runs(own)]
        title = f"Tokens of an image that each block leaves, over all that was timed, batch {own[-1].samples}:"
        lines += ["", title, "", *page.spreads(own[-1].spread)]
        if name in left_alone:
            title = f"And if the rule, at the knob that meets the budget, is left to itself, batch {OWN_SAMPLES}:"
            lines += ["", title, "", *page.spreads(left_alone[name])]
    growing = [case for case in cases if case.grows]
    if growing:
        runs = min(len(case.dense.seconds) for case in growing)
        told = f"BLIP-base NLVR, float32, per batch, medians of {runs} runs; a batch of one where not told."
        lines += ["", "## How cost grows", "", told, *page.growth(growing)]
    for dtype, taken in steps.items():
        title = f"## A training step, {dtype}, {TRAIN_SAMPLES} pairs, {QUICK_LAYERS} layers of each tower"
        runs = min(map(len, taken.values()))
        lines += ["", title, "", f"Medians of {runs} steps of each kind.", "", *stepping.table(taken)]
    return "\n".join(lines) + "\n"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags = {
        "--quick": "half of the layers, dense and pruned alone; prints",
        "--all": "everything: CLIP, --grow and --train too",
        "--grow": "time and memory against batch, image and text",
        "--train": "steps of the fine-tune",
        "--recorded": "write the page of what is in --folder",
        "--parts": "where a layer's time goes; prints",
    }
    for flag, told in flags.items():
        parser.add_argument(flag, action="store_true", help=told)
    parser.add_argument("--budgets", nargs="+", type=float, help="shares of the dense multiply-adds: 0.5 0.3 0.2")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help=f"1 8 32; {QUICK_SAMPLES} if quick")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="float32 bfloat16")
    parser.add_argument("--turns", type=int, default=5, help="timed runs of each variant, 5")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where the records are, build/bench")
    parser.add_argument("--output", type=Path, default=HERE, help="where bench.md and bench.png go, examples")
    options = parser.parse_args(arguments)
    short = options.quick or options.parts
    options.budgets = options.budgets or ([0.5, 0.2] if short else [0.5, 0.3, 0.2])
    options.batch_sizes = options.batch_sizes or ([QUICK_SAMPLES] if options.quick else [1, 8, 32])
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    reuse_freed_memory()
    if options.parts:
        print_parts(options)
        return
    if not options.quick:
        page.require_matplotlib()
    pairs = FEW_PAIRS if options.quick else EXAMPLE_PAIRS
    shares = {} if options.recorded else example_shares(options.budgets, pairs)
    told = f"random weights, {torch.get_num_threads()} threads, medians of {options.turns} turns, ms per sample"
    if options.quick:
        told += f"; {QUICK_LAYERS} layers of each tower; empty columns are not timed"
    print(f"{BLIP}: {told}", page.HEAD, sep="\n\n", flush=True)
    cases: list[Case] = []
    left_alone: dict[str, page.Spread] = {}
    for name in [BLIP, CLIP] if options.all else [BLIP]:
        model = drawn(name, QUICK_LAYERS if options.quick else None)
        if not options.quick:
            left_alone |= left_to_itself(name, model, options)
        cases += measured(name, model, shares, options)
        if name == BLIP and (options.all or options.grow):
            cases += grown(model, shares, options)
    steps = trained(shares, options) if options.train or options.all else {}
    if not cases:
        raise SystemExit(f"Nothing is recorded in {options.folder}.\nTime something first: leave out --recorded.")
    if not options.quick:
        (options.output / "bench.md").write_text(written(cases, left_alone, steps, options), encoding="utf-8")
        page.plot([case for case in cases if not case.grows], options.output / "bench.png")


if __name__ == "__main__":
    main()
