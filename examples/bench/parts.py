"""Where the time of an image tower goes, by part: each function's own time, what torch does for it included."""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import torch

from examples.bench import counts
from examples.bench.running import SCORED, Variant
from madtp_cli.evaluation import run
from madtp_cli.evaluation.run import Batch, ComputeConfig
from madtp_cli.execution import attention, block_pruner
from madtp_cli.models.prunable import Prunable

#: What a function that matches does; the first match counts, and None is whatever its caller does. A part goes on in
#: all that a function calls, until another begins; the feed-forward keeps its own linear layers.
RULES: tuple[tuple[str, str | None], ...] = (
    (r"\.(BlipMLP|CLIPMLP|BlipTextIntermediate|BlipTextOutput)\.forward$", "feed forward"),
    (r"\.(Linear|Conv2d)\.forward$", "projections"),
    (r"\.LayerNorm\.forward$", "norms"),
    (r"execution\.(statistics\.|grouped_attention\._group_statistics)", "statistics"),
    (r"pruning\.importance\.(normalise|class_attention)$", "statistics"),
    (r"execution\.(attention|grouped_attention|padded_attention)\.", "attention"),
    (r"pruning\.segments\.|execution\.(packed|row_rounding)\.", None),
    (r"pruning\.mag\.|\._dictionary_logits$|pruning\.importance\.dictionary", "dictionary"),
    (r"pruning\.density_peaks\.(nearest_more_important|_directions|_most_similar_before)$", "leaders"),
    (r"pruning\.(importance|thresholds|merging|density_peaks)\.|methods\.|bench\.counts\.Imposed", "join"),
    (r"execution\.block_pruner\.", "records"),
    (r"^madtp_cli\.(models|execution)\.", "additions"),
)
#: What a pruned layer does beside what a dense one does.
PRUNING = ("statistics", "dictionary", "leaders", "join", "records")


def part_of(name: str, calling: str) -> str:
    """The part of a function, by its module and qualified name, called from another part."""
    if calling == "feed forward":
        return calling
    return next((part or calling for pattern, part in RULES if re.search(pattern, name)), calling)


def profiled(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds of one run by part."""
    taken: dict[str, float] = defaultdict(float)
    stack, known = ["other"], dict[tuple[Any, str], str]()
    since = clock()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal since
        if event not in ("call", "return"):
            return
        now = clock()
        taken[stack[-1]] += now - since
        if event == "call":
            key = frame.f_code, stack[-1]
            if key not in known:
                known[key] = part_of(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}", stack[-1])
            stack.append(known[key])
        elif len(stack) > 1:
            stack.pop()
        since = clock()

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    taken[stack[0]] += clock() - since
    return dict(taken)


def tower(variant: Variant, batch: Batch, compute: ComputeConfig) -> None:
    """The image tower of BLIP alone, as its forward runs it."""
    model: Any = variant.model
    run.set_threshold_scale(model, SCORED if variant.lefts else 0.0)
    images = batch["pixel_values"].transpose(0, 1).flatten(0, 1)
    imposed = counts.imposed(model, variant.lefts[0]) if variant.lefts else contextlib.nullcontext()
    with torch.inference_mode(), compute.precision(), imposed:
        model.encode_images(images, model.pruner("vision"))


def table(
    model: Prunable, batch: Batch, compute: ComputeConfig, left: Mapping[str, np.ndarray], turns: int
) -> list[str]:
    """Milliseconds per image of each part: dense, then with these prunable tokens left, in turns."""
    variants = {"dense": Variant(model, "dense")}
    variants |= {name: Variant(model, "pruned", lefts=[those]) for name, those in left.items()}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, variant in variants.items():
            one = profiled(partial(tower, variant, batch, compute))
            if turn:  # the first warms up
                taken[name].append(one)
    images = batch["pixel_values"].shape[:2].numel()
    return told(
        {name: {part: 1000 * one / images for part, one in medians(runs).items()} for name, runs in taken.items()}
    )


def pruning_alone(model: Prunable, batch: Batch, compute: ComputeConfig, whole: np.ndarray, turns: int) -> float:
    """What share of a dense layer's time a scored layer spends on pruning, by a clock around its calls alone.

    A profile slows Python down, where pruning is; this does not. Arguments as for `table`; `whole` is the plan that
    keeps all.
    """
    dense, scored = Variant(model, "dense"), Variant(model, "pruned", lefts=[whole])
    layers, prunes = len(whole), sum(counts.prunes_in(model))
    spent, shares = 0.0, []

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            result = function(*given, **named)
            spent += time.perf_counter() - started
            return result

        return timed

    with contextlib.ExitStack() as patched:
        for owner, name in ((attention, "sampled_attention_stats"), (block_pruner.BlockPruner, "prune")):
            patched.enter_context(mock.patch.object(owner, name, clocked(getattr(owner, name))))
        for _ in range(turns + 1):
            started = time.perf_counter()
            tower(dense, batch, compute)
            unpruned = time.perf_counter() - started
            spent = 0.0
            tower(scored, batch, compute)
            shares.append((spent / prunes) / (unpruned / layers))
    return statistics.median(shares[1:])  # the first warms up


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each part."""
    return {
        part: statistics.median(run.get(part, 0.0) for run in runs)
        for part in dict.fromkeys(key for run in runs for key in run)
    }


def told(parts: dict[str, dict[str, float]]) -> list[str]:
    """Markdown: a line per part, the share of the dense total beside each time, and what pruning alone takes."""
    whole = sum(parts["dense"].values())
    names = sorted({name for one in parts.values() for name in one}, key=lambda name: -parts["dense"].get(name, 0.0))
    lines = [f"| part, ms per image | {' | '.join(parts)} |", "|---" * (1 + len(parts)) + "|"]

    def line(title: str, values: Sequence[float]) -> str:
        return f"| {title} | " + " | ".join(f"{value:.1f} ({value / whole:.1%})" for value in values) + " |"

    lines += [line(name, [one.get(name, 0.0) for one in parts.values()]) for name in names]
    lines.append(line("all", [sum(one.values()) for one in parts.values()]))
    lines.append(line("pruning alone", [sum(one.get(name, 0.0) for name in PRUNING) for one in parts.values()]))
    return lines
