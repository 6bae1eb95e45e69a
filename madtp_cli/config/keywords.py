"""The settings as typed keyword arguments of the Python functions; a test compares them with the settings' fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict

from madtp_cli.config.budget_request import BudgetRequest


class RunKeywords(TypedDict, total=False):
    """Keyword arguments that every run has; `RunSettings` describes each."""

    data: str | Path | None
    image_root: str | Path | None
    classes: str | Path | None
    templates: str | Path | None
    task: str | None
    split: Literal["train", "val", "test"]
    limit: int | None
    batch_size: int
    workers: int | None
    k_test: int | None
    device: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    seed: int
    tokenizer: str | Path | None
    head_width: int | str | Mapping[str, int] | None
    activation: Literal["gelu", "quick_gelu"] | None
    weights: Literal["raw", "ema"] | None
    match_token: Literal["enc", "cls"] | None
    match_score: Literal["logit", "log-odds"] | None
    prompt: str | None
    samples_out: str | Path | None


class GateKeywords(TypedDict, total=False):
    """Keyword arguments for the gates of a run; `GateSettings` describes each."""

    max_gflops: float | None
    max_share: float | None
    min_quality: float | None
    max_drop: float | None
    max_latency_ms: float | None
    min_speedup: float | None
    min_agreement: float | None
    min_cosine: float | None
    min_overlap_top1: float | None
    min_overlap_top10: float | None
    confidence: float
    allow_inconclusive: bool
    max_gain: float
    baseline: str | Path | None
    max_regression: float
    max_slowdown: float
    allow_differences: bool
    junit: str | Path | None


class PointKeywords(RunKeywords, total=False):
    """Keyword arguments of `profile`; `PointSettings` describes each."""

    gflops_budget: str | float | BudgetRequest | None


class EvalKeywords(PointKeywords, GateKeywords, total=False):
    """Keyword arguments of `evaluate` and `check`; `EvalSettings` describes each."""

    dense: str | Path | None


class CompressKeywords(RunKeywords, GateKeywords, total=False):
    """Keyword arguments of `compress`; `CompressSettings` describes each."""

    gflops_budget: Required[str | float | BudgetRequest]
    output: str | Path | None
    overwrite: bool
    resume: bool
    save_every: int
    save_dtype: Literal["auto", "float32", "float16", "bfloat16"]
    method: str
    steps: int | None
    epochs: float | None
    accumulate: int
    tracker: Literal["tensorboard", "wandb", "trackio"] | None
    learning_rate: float | None
    dictionary_learning_rate: float


class CompareKeywords(RunKeywords, total=False):
    """Keyword arguments of `compare`; `CompareSettings` describes each."""

    methods: str | Sequence[str] | None
    budgets: str | Sequence[str | float | BudgetRequest]
    seeds: int
    output: str | Path | None
    steps: int | None
    learning_rate: float | None
    dictionary_learning_rate: float
    time: bool
