"""The profile of a dense model for one text of a given length, without data; an architecture needs no weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from madtp_cli import models
from madtp_cli.config import RunSettings
from madtp_cli.config.choices import did_you_mean
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.report_parts import by_tower, environment, layer_parts
from madtp_cli.evaluation.session import load_checkpoint
from madtp_cli.flops.fvcore_check import count_with_fvcore
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CheckedGflops, ProfileReport


def profile_without_data(
    source: Path | None,
    arch: str | None,
    text_tokens: int | None,
    settings: RunSettings,
    progress: ProgressReporter,
    fvcore_check: bool = True,
) -> ProfileReport:
    """Count the GFLOPs of one sample with a text of the given length in a dense model.

    Args:
        source, arch: A checkpoint, or the name of a published architecture.
        text_tokens: Length of the text; the length behind the published GFLOPs of the task if None.
        settings, progress: How to read the checkpoint; receives the progress.
        fvcore_check: Compare the formula with fvcore.

    Raises:
        UsageError: The model is pruned, or has fewer positions than the text has tokens.
    """
    model = load_checkpoint(source, settings, progress).model if source else without_weights(str(arch))
    text_tokens = text_tokens or model.TEXT_TOKENS
    _check_text(model, text_tokens)
    sample = model.dummy_inputs(text_tokens)
    by_fvcore = _count(model, sample, progress) if fvcore_check else None
    with torch.inference_mode():
        counts = sample_costs.counts_of(model, model(**sample).trace)
    gflops = float(sample_costs.per_sample(model.config, counts)[0]) / 1e9
    layers = layer_parts(model, counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source or arch),
        task=model.config.task,
        data=f"no data: one text of {text_tokens} tokens" if "input_ids" in sample else "no data: one image",
        samples=1,
        gflops=CheckedGflops(dense=gflops, fvcore=by_fvcore, formula=gflops, fvcore_samples=int(fvcore_check)),
        towers=by_tower(layers),
        layers=layers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        environment=environment(),
    )


def _count(model: Prunable, sample: dict[str, torch.Tensor], progress: ProgressReporter) -> float:
    """Return the GFLOPs of one sample that fvcore counts."""
    progress.start("Counting with fvcore", 1)
    gflops = count_with_fvcore(model, sample) / 1e9
    progress.finish()
    return gflops


def without_weights(arch: str) -> Prunable:
    """Return a published architecture whose weights are all zero. That is enough to count, and takes no time.

    Raises:
        UsageError: There is no such architecture.
    """
    known = models.architectures()
    if arch not in known:
        raise UsageError(
            f"There is no architecture {arch!r}.{did_you_mean(arch, known)}\nChoose one of: {', '.join(known)}."
        )
    with torch.device("meta"):
        config = known[arch]()
        model = models.get(models.kind_of(config))(config)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    with torch.no_grad():
        for value in itertools.chain(model.parameters(), model.buffers()):
            value.zero_()
    return model


def _check_text(model: Prunable, text_tokens: int) -> None:
    """Raise UsageError unless the cost of the model for one text of this length is known without data."""
    if model.pruning:
        raise UsageError(
            "The number of tokens that a pruned model keeps depends on the data, so --text-tokens cannot be used.\n"
            "Leave it out."
        )
    positions = model.config.text_config.max_position_embeddings
    if text_tokens > positions:
        raise UsageError(f"--text-tokens {text_tokens} is more than the model's {positions} positions.\nGive fewer.")
