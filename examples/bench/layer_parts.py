"""Where the time of an image tower goes: a profile by part of a layer.

The time of a part includes the torch functions that it calls.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import torch

from examples.bench import token_plans
from examples.bench.variants import SCORING_SCALE, Variant
from madtp_cli.evaluation import run
from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.execution import attention, block_pruner
from madtp_cli.models.prunable import Prunable

#: Part of a function, by its module and qualified name. The first match counts; None means the part of the caller.
#: Functions without a match belong to the part of their caller too. The feed-forward includes its linear layers.
RULES: tuple[tuple[str, str | None], ...] = (
    (r"\.(BlipMLP|CLIPMLP|BlipTextIntermediate|BlipTextOutput)\.forward$", "feed-forward"),
    (r"\.(Linear|Conv2d)\.forward$", "projections"),
    (r"\.LayerNorm\.forward$", "layer norms"),
    (r"execution\.(statistics\.|grouped_attention\._group_statistics$)", "attention statistics"),
    (r"pruning\.importance\.(normalise|class_attention)$", "attention statistics"),
    (r"execution\.(attention|grouped_attention)\.", "attention"),
    (r"pruning\.segments\.|execution\.(packed|row_rounding)\.|\.PrunableRows\.(arrange|flatten)$", None),
    (r"pruning\.mag\.|\.BlockPruner\._dictionary_logits$|pruning\.importance\.dictionary_score$", "dictionary"),
    (r"pruning\.density_peaks\.(nearest_more_important|_directions|_most_similar_before)$", "distances"),
    (r"methods\.BlockInputs\.token_values$", "distances"),
    (r"pruning\.(importance|thresholds|merging|density_peaks)\.|methods\.|\.PlannedSelection\.", "merging"),
    (r"execution\.(block_pruner|pruning_settings)\.", "bookkeeping"),
    (r"^madtp_cli\.(models|execution)\.", "other model code"),
)
#: Parts that only a pruned layer has.
PRUNING = ("attention statistics", "dictionary", "distances", "merging", "bookkeeping")

#: Seconds or milliseconds by part.
Times = dict[str, float]


def part_of(name: str, caller: str) -> str:
    """Return the part of a function, given its module and qualified name and the part of its caller."""
    if caller == "feed-forward":
        return caller
    return next((part or caller for pattern, part in RULES if re.search(pattern, name)), caller)


def profiled(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Times:
    """Run a function once and return the seconds of each part."""
    seconds: Times = defaultdict(float)
    stack, parts = ["other"], dict[tuple[Any, str], str]()
    since = clock()

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        nonlocal since
        if event not in ("call", "return"):
            return
        now = clock()
        seconds[stack[-1]] += now - since
        if event == "call":
            key = frame.f_code, stack[-1]
            if key not in parts:
                parts[key] = part_of(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}", stack[-1])
            stack.append(parts[key])
        elif len(stack) > 1:
            stack.pop()
        since = clock()

    sys.setprofile(on_event)
    try:
        run()
    finally:
        sys.setprofile(None)
    seconds[stack[0]] += clock() - since
    return dict(seconds)


def run_image_tower(variant: Variant, batch: Batch, compute: ComputeConfig) -> None:
    """Run only the image tower of BLIP, as the forward pass of the model does."""
    model: Any = variant.model
    run.set_threshold_scale(model, SCORING_SCALE if variant.plans else 0.0)
    images = batch["pixel_values"].transpose(0, 1).flatten(0, 1)
    planned = token_plans.follow_plan(model, variant.plans[0]) if variant.plans else contextlib.nullcontext()
    with torch.inference_mode(), compute.precision(), planned:
        model.encode_images(images, model.pruner("vision"))


def table(
    model: Prunable, batch: Batch, compute: ComputeConfig, plans: Mapping[str, np.ndarray], turns: int
) -> list[str]:
    """Return a Markdown table with the milliseconds per image of each part: dense, and with each plan."""
    variants = {"dense": Variant(model, "dense")}
    variants |= {name: Variant(model, "pruned", plans=[left]) for name, left in plans.items()}
    runs: dict[str, list[Times]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, variant in variants.items():
            times = profiled(partial(run_image_tower, variant, batch, compute))
            if turn:  # the first turn is a warm-up
                runs[name].append(times)
    images = batch["pixel_values"].shape[:2].numel()
    per_image = {name: medians(of_variant) for name, of_variant in runs.items()}
    return table_rows(
        {name: {part: 1000 * taken / images for part, taken in times.items()} for name, times in per_image.items()}
    )


def pruning_share(model: Prunable, batch: Batch, compute: ComputeConfig, full_plan: np.ndarray, turns: int) -> float:
    """Return the mean time of choosing tokens once, in a block or before the first, as a share of a dense layer's time.

    Only the pruning functions are timed. A profile would slow down Python code, of which pruning has much.

    Args:
        full_plan: The plan that keeps all tokens; all other arguments are those of `table`.
    """
    dense, scored = Variant(model, "dense"), Variant(model, "pruned", plans=[full_plan])
    layers, prunes = model.blocks["vision"], sum(token_plans.pruning_stages(model))
    shares = []
    with timed_pruning() as spent:
        for _ in range(turns + 1):
            started = time.perf_counter()
            run_image_tower(dense, batch, compute)
            unpruned = time.perf_counter() - started
            spent.clear()
            run_image_tower(scored, batch, compute)
            shares.append((sum(spent) / prunes) / (unpruned / layers))
    return statistics.median(shares[1:])  # the first turn is a warm-up


@contextlib.contextmanager
def timed_pruning() -> Iterator[list[float]]:
    """Provide a list that receives the seconds of each call of a pruning function."""
    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **named)
            spent.append(time.perf_counter() - started)
            return result

        return call

    with contextlib.ExitStack() as patches:
        pruner = block_pruner.BlockPruner
        for owner, name in ((attention, "sampled_attention_stats"), (pruner, "prune_embedding"), (pruner, "prune")):
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield spent


def medians(runs: Sequence[Times]) -> Times:
    """Return the median of each part over some runs."""
    parts = dict.fromkeys(part for run in runs for part in run)
    return {part: statistics.median(run.get(part, 0.0) for run in runs) for part in parts}


def table_rows(variants: dict[str, Times]) -> list[str]:
    """Return a Markdown table with a row per part; percentages are shares of the dense total."""
    dense = variants["dense"]
    whole = sum(dense.values())
    parts = sorted({part for times in variants.values() for part in times}, key=lambda part: -dense.get(part, 0.0))
    lines = [f"| part, ms per image | {' | '.join(variants)} |", "|---" * (1 + len(variants)) + "|"]

    def row(title: str, values: Sequence[float]) -> str:
        return f"| {title} | " + " | ".join(f"{value:.1f} ({value / whole:.1%})" for value in values) + " |"

    lines += [row(part, [times.get(part, 0.0) for times in variants.values()]) for part in parts]
    lines.append(row("all", [sum(times.values()) for times in variants.values()]))
    pruning = [sum(times.get(part, 0.0) for part in PRUNING) for times in variants.values()]
    return [*lines, row("pruning only", pruning)]
