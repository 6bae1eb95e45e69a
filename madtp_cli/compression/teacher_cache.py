"""The teacher cache: the distillation targets of each sample are computed once and kept."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.execution.packed import Packed
from madtp_cli.models.prunable import DistillationTargets
from madtp_cli.pruning import segments

#: Memory for the kept targets, in bytes. Targets that do not fit are computed again each time.
MOST_BYTES = 2**30
#: The targets of one sample by name: a row of a tensor, or the segments of packed tokens.
SampleTargets = dict[str, "Tensor | list[Tensor]"]


@dataclass
class TeacherCache:
    """Runs the frozen dense teacher on samples that it has not seen before, and keeps the targets of each.

    A dense forward pass is half of a fine-tuning step at a small budget. The key of a sample is its content: an image
    with another augmentation is a new sample, and a known sample is found in any batch.

    Attributes:
        teacher: The dense model, frozen and in evaluation mode.
        compute: Device and number format of its forward passes.
        most_bytes: Memory for the kept targets.
        kept: The targets by the sample's key.
        seconds: Duration of all forward passes so far.
        saved_parts: Number of parts in which targets were saved to a disk.
        used_bytes: The bytes of all kept targets.
    """

    teacher: nn.Module
    compute: ComputeConfig
    most_bytes: int = MOST_BYTES
    kept: dict[bytes, SampleTargets] = field(default_factory=dict)
    seconds: float = 0.0
    saved_parts: int = 0
    used_bytes: int = field(init=False)
    _saved: int = 0

    def __post_init__(self) -> None:
        self.used_bytes = sum(map(_size, self.kept.values()))

    def targets(self, batch: Batch) -> DistillationTargets:
        """Return the teacher's distillation targets for a batch, without gradients."""
        inputs = inputs_of(batch)
        keys = keys_of(inputs)
        new_rows = [row for row, key in enumerate(keys) if key not in self.kept]
        new: dict[bytes, SampleTargets] = {}
        if new_rows:
            started = time.perf_counter()
            with torch.no_grad(), self.compute.precision():
                new_inputs = {name: value[new_rows] for name, value in inputs.items()}
                output = self.teacher(**new_inputs, return_targets=True)
            self.seconds += time.perf_counter() - started
            for row, targets in zip(new_rows, _by_sample(output.targets, len(new_rows)), strict=True):
                new[keys[row]] = targets
                self._keep(keys[row], targets)
        return _joined([self.kept.get(key) or new[key] for key in keys])

    def share_that_fits(self, samples: int) -> float:
        """Return the share of the targets of samples that fits in memory, if they are like those kept so far."""
        if not self.kept:
            return 0.0
        return min(1.0, self.most_bytes / (self.used_bytes / len(self.kept) * samples))

    def unsaved(self) -> dict[str, SampleTargets]:
        """Return the kept targets that are not in a saved part yet, by the key of the sample in hexadecimal digits."""
        return {key.hex(): targets for key, targets in itertools.islice(self.kept.items(), self._saved, None)}

    def mark_saved(self) -> None:
        """Record that all kept targets are saved, those of `unsaved` as one part."""
        self._saved, self.saved_parts = len(self.kept), self.saved_parts + 1

    def restore(self, part: Mapping[str, SampleTargets]) -> None:
        """Keep the targets of a saved part; the parts come in their order."""
        for key, targets in part.items():
            self._keep(bytes.fromhex(key), {name: self._on_device(value) for name, value in targets.items()})
        self.mark_saved()

    def _on_device(self, value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        device = self.compute.device
        return [part.to(device) for part in value] if isinstance(value, list) else value.to(device)

    def _keep(self, key: bytes, targets: SampleTargets) -> None:
        size = _size(targets)
        if key not in self.kept and self.used_bytes + size <= self.most_bytes:
            self.kept[key] = targets
            self.used_bytes += size


def _size(targets: SampleTargets) -> int:
    """Return the bytes of the targets of one sample."""
    return sum(part.nbytes for value in targets.values() for part in (value if isinstance(value, list) else [value]))


def _by_sample(targets: DistillationTargets, samples: int) -> list[SampleTargets]:
    """Split the targets of a forward pass by sample; each sample has memory of its own."""
    by_sample: list[SampleTargets] = [{} for _ in range(samples)]
    for name, value in targets.items():
        for sample, sample_targets in enumerate(by_sample):
            if isinstance(value, Tensor):
                sample_targets[name] = value[sample].clone()
                continue
            offsets = segments.offsets(value.lengths)
            # float16 needs half the memory; its 11 bits are far more precise than what a student learns.
            numbers = range(sample, len(value.lengths), samples)
            sample_targets[name] = [value.data[offsets[number] : offsets[number + 1]].half() for number in numbers]
    return by_sample


def _joined(samples: Sequence[SampleTargets]) -> DistillationTargets:
    """Join the targets of samples to those of a batch."""
    joined: DistillationTargets = {}
    for name, first in samples[0].items():
        if isinstance(first, Tensor):
            joined[name] = torch.stack([cast(Tensor, targets[name]) for targets in samples])
            continue
        parts = [targets[name][number] for number in range(len(first)) for targets in samples]
        joined[name] = Packed(torch.cat(parts), [len(part) for part in parts])
    return joined


def keys_of(batch: Batch) -> list[bytes]:
    """Return a digest of each sample's pixels and tokens; padding is left out."""
    on_cpu = {name: value.cpu() for name, value in sorted(batch.items())}
    digests = [hashlib.blake2b(digest_size=16) for _ in on_cpu["pixel_values"]]
    for name, values in on_cpu.items():
        mask = on_cpu.get(name.replace("input_ids", "attention_mask")) if name.endswith("input_ids") else None
        if name.endswith("attention_mask"):
            continue
        for row, digest in enumerate(digests):
            content = values[row] if mask is None else values[row][mask[row].bool()]
            digest.update(f"{name} {tuple(content.shape)}".encode())
            digest.update(content.contiguous().numpy().tobytes())
    return [digest.digest() for digest in digests]
