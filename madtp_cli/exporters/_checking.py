"""Whether an exported file gives the model's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.errors import CheckError
from madtp_cli.exporters._tracing import SHORTEST, TEXTS, drawn, named
from madtp_cli.models.prunable import Prunable

#: Largest difference of any output that passes.
TOLERANCE = 1e-4
#: Batch sizes of the check; the graph is traced with none of them.
BATCHES = (1, 3, 5)
#: Longest text of a check.
LONGEST = 20
#: Draws of a batch before its samples are taken as they are.
DRAWS = 8
#: As far as pixels are moved, in standard deviations, to see whether a sample's answer is steady.
NUDGE = 1e-5


@dataclass(frozen=True)
class Checked:
    """What a check measured: the largest absolute `difference` of any output, of so many `samples`.

    They ran in `batches` of these sizes, with texts of `tokens` (fewest, most); `kept` are the fewest and the most
    tokens that an image was left with, None where nothing is pruned.
    """

    samples: int
    batches: tuple[int, ...]
    tokens: tuple[int, int]
    kept: tuple[int, int] | None
    difference: float
    tolerance: float = TOLERANCE


@torch.no_grad()
def check(model: Prunable, run: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Checked:
    """Compare a file's outputs with the model's own, on batches of ragged samples.

    Raises:
        CheckError: They differ by more than `TOLERANCE`.
    """
    differences, kept, lengths = [0.0], list[int](), list[int]()
    for inputs in _batches(model):
        found = run(inputs)
        expected = named(model, model(**inputs))
        for name, value in expected.items():
            differences.append(_difference(name, _real(name, found[name], inputs), value))
        lengths += inputs["attention_mask"].sum(1).tolist()
        kept += expected["kept_vision"][..., -1].flatten().tolist() if "kept_vision" in expected else []
    return Checked(
        sum(BATCHES), BATCHES, (min(lengths), max(lengths)), (min(kept), max(kept)) if kept else None, max(differences)
    )


def _difference(name: str, found: Tensor, expected: Tensor) -> float:
    difference = float("inf")
    if found.shape == expected.shape:
        difference = float((found.double() - expected.double()).abs().max())
    if not difference <= TOLERANCE:
        raise CheckError(
            f"The written file does not give the model's answers: {name} differs by {difference:.2g}, "
            f"{TOLERANCE:g} is allowed.\nNothing was kept. Try the other format, and report it."
        )
    return difference


def _batches(model: Prunable) -> Iterator[dict[str, Tensor]]:
    """Batches whose texts have unlike lengths, and whose samples are no borderline cases.

    Where a score lies at its threshold, rounding decides, in the model as in the file; so a batch is drawn anew
    whose answer jumps when its pixels are moved by less than anyone sees.
    """
    longest = min(LONGEST, model.config.text_config.max_position_embeddings)
    for number, samples in enumerate(BATCHES):
        for draw in range(DRAWS):
            inputs = drawn(model, samples, max(SHORTEST, longest - 4 * number), seed=1 + number + len(BATCHES) * draw)
            if _steady(model, inputs):
                break
        yield inputs


def _steady(model: Prunable, inputs: dict[str, Tensor]) -> bool:
    if model.pruning is None:
        return True
    pixels = inputs["pixel_values"]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    here, there = (
        named(model, model(**{**inputs, "pixel_values": moved})) for moved in (pixels, pixels + NUDGE * noise)
    )
    return all(float((here[name] - there[name]).abs().max()) <= 10 * TOLERANCE for name in here)


def _real(name: str, found: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """A decoder's padded logits without padding, as the model gives them; anything else as it is."""
    if name != "logits" or found.dim() < 3:
        return found
    mask = next(mask for _, mask in reversed(TEXTS.values()) if mask in inputs)
    return torch.cat([row[:length] for row, length in zip(found, inputs[mask].sum(1).tolist(), strict=True)])
