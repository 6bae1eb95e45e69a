"""What the dense teacher says of each sample: computed once, kept by the sample's content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from madtp_cli.evaluation.run import Batch, ComputeConfig, inputs_of
from madtp_cli.execution.packed import Packed
from madtp_cli.models.prunable import DistillationTargets
from madtp_cli.pruning import segments

#: Memory that kept lessons may take, in bytes; beyond it the teacher is asked anew.
MOST_BYTES = 2**30
#: Of one sample: its row, or its segments, of each part of the teacher's lesson.
SampleTargets = dict[str, "Tensor | list[Tensor]"]


@dataclass
class TeacherCache:
    """Asks a frozen dense model, but only about samples it has not yet been asked about.

    A dense forward is half of a fine-tune step at a small budget. Content is the key, so a
    sample that is augmented anew is a new sample, and one that comes back is known whatever its place.
    """

    teacher: nn.Module
    compute: ComputeConfig
    most_bytes: int = MOST_BYTES
    kept: dict[bytes, SampleTargets] = field(default_factory=dict)
    _bytes: int = 0

    def of(self, batch: Batch) -> DistillationTargets:
        """What the teacher says of a batch, without gradients; see `models.prunable.Lesson`."""
        inputs = inputs_of(batch)
        keys = keys_of(inputs)
        asked = [row for row, key in enumerate(keys) if key not in self.kept]
        told: dict[bytes, SampleTargets] = {}
        if asked:
            with torch.no_grad(), self.compute.precision():
                output = self.teacher(**{name: value[asked] for name, value in inputs.items()}, return_targets=True)
            for row, targets in zip(asked, _by_sample(output.targets, len(asked)), strict=True):
                told[keys[row]] = targets
                self._keep(keys[row], targets)
        return _joined([self.kept.get(key) or told[key] for key in keys])

    def _keep(self, key: bytes, targets: SampleTargets) -> None:
        size = sum(
            part.nbytes for value in targets.values() for part in (value if isinstance(value, list) else [value])
        )
        if key not in self.kept and self._bytes + size <= self.most_bytes:
            self.kept[key] = targets
            self._bytes += size


def _by_sample(targets: DistillationTargets, samples: int) -> list[SampleTargets]:
    """A forward's lesson sample by sample; each has its own memory."""
    kept: list[SampleTargets] = [{} for _ in range(samples)]
    for name, value in targets.items():
        for sample, mine in enumerate(kept):
            if isinstance(value, Tensor):
                mine[name] = value[sample].clone()
                continue
            rows = segments.offsets(value.lengths)
            # Half the memory: what is learned from them is far coarser than their eleven bits.
            own = range(sample, len(value.lengths), samples)
            mine[name] = [value.data[rows[number] : rows[number + 1]].half() for number in own]
    return kept


def _joined(kept: Sequence[SampleTargets]) -> DistillationTargets:
    """The lesson of a batch of these samples."""
    joined: DistillationTargets = {}
    for name, first in kept[0].items():
        if isinstance(first, Tensor):
            joined[name] = torch.stack([cast(Tensor, targets[name]) for targets in kept])
            continue
        parts = [targets[name][number] for number in range(len(first)) for targets in kept]
        joined[name] = Packed(torch.cat(parts), [len(part) for part in parts])
    return joined


def keys_of(batch: Batch) -> list[bytes]:
    """A digest of each sample's pixels and words; padding takes no part."""
    host = {name: value.cpu() for name, value in sorted(batch.items())}
    digests = [hashlib.blake2b(digest_size=16) for _ in host["pixel_values"]]
    for name, values in host.items():
        mask = host.get(name.replace("input_ids", "attention_mask")) if name.endswith("input_ids") else None
        if name.endswith("attention_mask"):
            continue
        for row, digest in enumerate(digests):
            own = values[row] if mask is None else values[row][mask[row].bool()]
            digest.update(f"{name} {tuple(own.shape)}".encode())
            digest.update(own.contiguous().numpy().tobytes())
    return [digest.digest() for digest in digests]
