"""Measure whether saved FLOPs become saved time, on full-size models with random weights.

    python examples/bench_speed.py --quick     half of BLIP-base NLVR's layers, four pairs; prints only
    python examples/bench_speed.py             BLIP-base NLVR at 384 pixels; writes bench.md and bench.png
    python examples/bench_speed.py --grow      ... also how the cost grows with batch, image and text
    python examples/bench_speed.py --train     ... also the time of a fine-tuning step, with half of the layers
    python examples/bench_speed.py --all       ... also CLIP ViT-L/14@336, --grow and --train
    python examples/bench_speed.py --recorded  ... only cases that have a record; nothing is timed
    python examples/bench_speed.py --parts     where the time of a pruned layer goes; prints only

A case whose record is in --folder is read and not timed again. So an interrupted run continues where it stopped, and
the cases of one page can be timed by several commands.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from examples.bench import cases, figure, layer_parts, page, token_plans, training_steps
from examples.bench.cases import BLIP, CLIP, GPU_BATCHES, GPU_DTYPE, QUICK_LAYERS, QUICK_SAMPLES, Shares
from examples.bench.timings import Case
from examples.bench.token_plans import TokenStatistics
from examples.bench.variants import build_model, dense_counts, scene_batch
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.evaluation import number_formats
from madtp_cli.evaluation.compute import ComputeConfig

HERE = Path(__file__).parent
#: Pairs of the trained example whose token counts are used, and fewer pairs for quick runs.
EXAMPLE_PAIRS, QUICK_PAIRS = 64, 16
BUDGETS, QUICK_BUDGETS = [0.5, 0.3, 0.2], [0.5, 0.2]
BATCH_SIZES = [1, 8, 32]
FLAGS = {
    "--quick": "time half of the layers, dense and pruned only; print the result",
    "--all": "time everything: CLIP, --grow and --train too",
    "--grow": "time and memory against batch, image and text size",
    "--train": "time fine-tuning steps",
    "--recorded": "write the page from the records in --folder; time nothing",
    "--parts": "print where the time of a layer goes",
}


def example_shares(budgets: Sequence[float], pairs: int = EXAMPLE_PAIRS) -> Shares:
    """Return by budget the shares of tokens that images of the trained example keep."""
    return {budget: token_plans.example_shares(HERE / "blip.pt", budget, pairs) for budget in budgets}


def print_parts(options: argparse.Namespace) -> None:
    """Print where the time of a layer goes: dense, scored with all tokens kept, and at each budget."""
    model = build_model(BLIP, QUICK_LAYERS)
    batch, shares = scene_batch(model, QUICK_SAMPLES), example_shares(options.budgets, QUICK_PAIRS)
    for dtype in options.dtypes:
        compute = ComputeConfig.of("cpu", dtype)
        model.to(compute.device, compute.dtype)
        dense = dense_counts(model, batch, compute)
        all_tokens = token_plans.stages(dense["vision"])
        plans = {"scored, all kept": all_tokens}
        plans |= {
            f"budget {budget:g}": token_plans.plan(model, dense, curves, budget) for budget, curves in shares.items()
        }
        print(f"\n{dtype}, {torch.get_num_threads()} threads\n", flush=True)
        print("\n".join(layer_parts.table(model, batch, compute, plans, options.turns)), flush=True)
        share = layer_parts.pruning_share(model, batch, compute, all_tokens, options.turns)
        print(
            f"\nTimed without a profile, pruning takes {share:.1%} of a dense layer each time if all tokens are kept.",
            flush=True,
        )


def page_text(
    all_cases: Sequence[Case],
    rules: dict[str, dict[str, TokenStatistics]],
    steps: dict[str, training_steps.Seconds],
    budgets: Sequence[float],
) -> str:
    """Return the text of bench.md.

    Args:
        all_cases: All timed cases; at least one.
        rules: By architecture, what `cases.rule_statistics` returned.
        steps: By dtype, what `training_steps.time_steps` returned.
        budgets: Budgets of the rows for devices that were not available.
    """
    versions = f"torch {metadata.version('torch')}, transformers {metadata.version('transformers')}"
    lines = [
        "# Speed", "",
        f"Written by `python examples/bench_speed.py`. {torch.get_num_threads()} CPU cores ({number_formats.cpu()}), "
        f"{versions}.", "",
        page.EXPLANATION,
    ]  # fmt: skip
    missing: list[str] = []
    if not torch.cuda.is_available():
        missing = [row for samples in GPU_BATCHES for row in page.empty_rows("cuda", GPU_DTYPE, samples, budgets)]
    for name in dict.fromkeys(case.architecture for case in all_cases):
        of_name = [case for case in all_cases if case.architecture == name and not case.growing]
        if of_name:
            lines += page.architecture_section(of_name, rules.get(name, {}), cases.RULE_SAMPLES, missing)
    growing = [case for case in all_cases if case.growing]
    if growing:
        lines += page.growth_section(growing)
    for dtype, seconds in steps.items():
        lines += step_section(dtype, seconds)
    return "\n".join(lines) + "\n"


def step_section(dtype: str, seconds: training_steps.Seconds) -> list[str]:
    """Return the lines about training steps at one dtype."""
    title = f"## Fine-tuning step, {dtype}, {cases.TRAIN_SAMPLES} pairs, {QUICK_LAYERS} layers of each tower"
    return ["", title, "", f"Median of {min(map(len, seconds.values()))} steps.", "", *training_steps.table(seconds)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line and fill in the defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, description in FLAGS.items():
        parser.add_argument(flag, action="store_true", help=description)
    parser.add_argument("--budgets", nargs="+", type=float, help="shares of the dense GFLOPs (default: 0.5 0.3 0.2)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help=f"default: 1 8 32; with --quick {QUICK_SAMPLES}")
    parser.add_argument("--dtypes", nargs="+", help="default: float32, and bfloat16 where the CPU does not emulate it")
    parser.add_argument("--turns", type=int, default=5, help="timed runs of each variant (default: 5)")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="folder of the records")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of bench.md and bench.png")
    options = parser.parse_args(arguments)
    options.budgets = options.budgets or (QUICK_BUDGETS if options.quick or options.parts else BUDGETS)
    options.dtypes = options.dtypes or default_dtypes(recorded=options.recorded)
    options.batch_sizes = options.batch_sizes or ([QUICK_SAMPLES] if options.quick else BATCH_SIZES)
    return options


def default_dtypes(*, recorded: bool) -> list[str]:
    """Return the dtypes to time: without bfloat16 where the CPU emulates it. Records are of any machine."""
    if recorded or number_formats.is_fast(torch.bfloat16):
        return ["float32", "bfloat16"]
    print(f"bfloat16 is not timed: {number_formats.cpu()} emulates it. --dtypes float32 bfloat16 times it.", flush=True)
    return ["float32"]


def time_everything(options: argparse.Namespace) -> None:
    """Time the cases that the options ask for, print their rows and write the page."""
    pairs = QUICK_PAIRS if options.quick else EXAMPLE_PAIRS
    shares = {} if options.recorded else example_shares(options.budgets, pairs)
    all_cases: list[Case] = []
    rules: dict[str, dict[str, TokenStatistics]] = {}
    for name in [BLIP, CLIP] if options.all else [BLIP]:
        model = build_model(name, QUICK_LAYERS if options.quick else None)
        if not options.quick:
            rules[name] = cases.rule_statistics(name, model, options)
        all_cases += cases.architecture_cases(name, model, shares, options)
        if name == BLIP and (options.all or options.grow):
            all_cases += cases.growth_cases(model, shares, options)
    steps = cases.training_cases(shares, options) if options.train or options.all else {}
    if not all_cases:
        raise SystemExit(f"There is no record in {options.folder}.\nRun the script without --recorded first.")
    if not options.quick:
        text = page_text(all_cases, rules, steps, options.budgets)
        (options.output / "bench.md").write_text(text, encoding="utf-8")
        figure.plot([case for case in all_cases if not case.growing], options.output / "bench.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = parse(arguments)
    reuse_freed_memory()
    if options.parts:
        print_parts(options)
        return
    if not options.quick:
        figure.require_matplotlib()
    title = f"random weights, {torch.get_num_threads()} threads, medians of {options.turns} turns, ms per sample"
    if options.quick:
        title += f"; {QUICK_LAYERS} layers of each tower; empty columns are not timed"
    print(f"{BLIP}: {title}", page.HEAD, sep="\n\n", flush=True)
    time_everything(options)


if __name__ == "__main__":
    main()
