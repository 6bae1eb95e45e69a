"""Compare the outputs of an exported file with those of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from madtp_cli.errors import CheckError
from madtp_cli.exporters._random_inputs import MIN_TEXT_TOKENS, TEXT_INPUTS, random_inputs
from madtp_cli.exporters._tracing import named_outputs
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.export_parts import CountRange, ExportCheck

#: Largest absolute difference of an output that passes the check.
TOLERANCE = 1e-4
#: Batch sizes of the check; the graph is traced with none of them.
BATCH_SIZES = (1, 3, 5)
#: Tokens of the longest text of the check.
MAX_TEXT_TOKENS = 20
#: Number of times that a batch is drawn before borderline samples are accepted.
MAX_DRAWS = 8
#: Change of the pixels, in standard deviations, that must not change the outputs of a sample.
PIXEL_NOISE = 1e-5


@torch.no_grad()
def compare_outputs(model: Prunable, run: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> ExportCheck:
    """Compare the outputs of a file with those of the model, on random samples with texts of different lengths.

    Args:
        model: The model that was exported.
        run: Runs the file: from inputs by name to outputs by name.

    Raises:
        CheckError: An output differs by more than `TOLERANCE`.
    """
    differences, kept_tokens, text_tokens = [0.0], list[int](), list[int]()
    for inputs in _batches(model):
        outputs = run(inputs)
        expected = named_outputs(model, model(**inputs))
        for name, value in expected.items():
            differences.append(_difference(name, _without_padding(name, outputs[name], inputs), value))
        text_tokens += inputs["attention_mask"].sum(1).tolist() if "attention_mask" in inputs else []
        kept_tokens += expected["kept_vision"][..., -1].flatten().tolist() if "kept_vision" in expected else []
    return ExportCheck(
        samples=sum(BATCH_SIZES),
        batch_sizes=BATCH_SIZES,
        text_tokens=CountRange(least=min(text_tokens), most=max(text_tokens)) if text_tokens else None,
        kept_image_tokens=CountRange(least=min(kept_tokens), most=max(kept_tokens)) if kept_tokens else None,
        max_difference=max(differences),
        tolerance=TOLERANCE,
    )


def _difference(name: str, output: Tensor, expected: Tensor) -> float:
    difference = float("inf")
    if output.shape == expected.shape:
        difference = float((output.double() - expected.double()).abs().max())
    if not difference <= TOLERANCE:  # also refuses NaN
        raise CheckError(
            f"The written file does not compute the model's outputs: {name} differs by {difference:.2g} "
            f"({TOLERANCE:g} is allowed).\nThe file was deleted. Try another --format, and report this."
        )
    return difference


def _batches(model: Prunable) -> Iterator[dict[str, Tensor]]:
    """Yield batches with texts of different lengths and without borderline samples.

    If an importance score is equal to the threshold, rounding decides whether the token is kept, in the model as well
    as in the file. So a batch is drawn again if a tiny change of its pixels changes the outputs.
    """
    longest = min(MAX_TEXT_TOKENS, model.config.text_config.max_position_embeddings)
    for number, samples in enumerate(BATCH_SIZES):
        tokens = max(MIN_TEXT_TOKENS, longest - 4 * number)
        for draw in range(MAX_DRAWS):
            inputs = random_inputs(model, samples, tokens, seed=1 + number + len(BATCH_SIZES) * draw)
            if _is_stable(model, inputs):
                break
        yield inputs


def _is_stable(model: Prunable, inputs: dict[str, Tensor]) -> bool:
    """Return whether a tiny change of the pixels leaves the outputs of the model as they are."""
    if model.pruning is None:
        return True
    pixels = inputs["pixel_values"]
    noise = PIXEL_NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    outputs, changed = (
        named_outputs(model, model(**{**inputs, "pixel_values": values})) for values in (pixels, pixels + noise)
    )
    return all(float((outputs[name] - changed[name]).abs().max()) <= 10 * TOLERANCE for name in outputs)


def _without_padding(name: str, output: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Return the padded logits of a decoder without padding, as the model returns them; other outputs as they are."""
    if name != "logits" or output.dim() < 3:
        return output
    mask = next(mask for _, mask in reversed(TEXT_INPUTS.values()) if mask in inputs)
    return torch.cat([row[:length] for row, length in zip(output, inputs[mask].sum(1).tolist(), strict=True)])
