"""What the dense teacher says of each sample: computed once, kept by the sample's content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

#: Memory that kept lessons may take, in bytes; beyond it the teacher is asked anew.
MOST_BYTES = 2**30
#: What a lesson takes of the teacher's output with one row per sample; `image_tokens` [2, tokens, width]
#: come besides, and the ragged `words` [words, layers, width].
FIELDS = ("logits", "image_state", "text_state")

Batch = dict[str, Tensor]
Lesson = dict[str, Tensor]


@dataclass
class Lessons:
    """Asks a frozen dense model, but only about samples it has not yet been asked about.

    A dense forward is half of a fine-tune step at a small budget. Content is the key, so a
    sample that is augmented anew is a new sample, and one that comes back is known whatever its place.
    """

    teacher: nn.Module
    most_bytes: int = MOST_BYTES
    kept: dict[bytes, Lesson] = field(default_factory=dict)
    _bytes: int = 0

    def of(self, batch: Batch) -> Lesson:
        """What the teacher says of a batch, without gradients: `FIELDS` and `image_tokens`
        [pairs, 2, tokens, width], and `words` [all words, layers, width]."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        keys = keys_of(inputs)
        asked = [row for row, key in enumerate(keys) if key not in self.kept]
        told: dict[bytes, Lesson] = {}
        if asked:
            with torch.no_grad():
                output = self.teacher(**{name: value[asked] for name, value in inputs.items()}, teach=True)
            for row, lesson in zip(asked, _lessons(output), strict=True):
                told[keys[row]] = lesson
                self._keep(keys[row], lesson)
        lessons = [self.kept.get(key) or told[key] for key in keys]
        joined = {name: torch.stack([lesson[name] for lesson in lessons]) for name in (*FIELDS, "image_tokens")}
        return joined | {"words": torch.cat([lesson["words"] for lesson in lessons])}

    def _keep(self, key: bytes, lesson: Lesson) -> None:
        size = sum(value.nbytes for value in lesson.values())
        if key not in self.kept and self._bytes + size <= self.most_bytes:
            self.kept[key] = lesson
            self._bytes += size


def _lessons(output: Any) -> list[Lesson]:
    """A dense forward's output, sample by sample; each has its own memory."""
    samples = len(output.logits)
    images = output.image_tokens.data.unflatten(0, (2, samples, -1)).transpose(0, 1)
    words = output.words.data.split(output.words.lengths)
    return [
        {name: output[name][sample].clone() for name in FIELDS}
        # Half the memory: what is learned from them is far coarser than their eleven bits.
        | {"image_tokens": images[sample].half(), "words": words[sample].half()}
        for sample in range(samples)
    ]


def keys_of(batch: Batch) -> list[bytes]:
    """A digest of each sample's pixels and words; padding takes no part."""
    host = {name: value.cpu() for name, value in batch.items()}
    masks = host["attention_mask"].bool()
    keys = []
    for pixels, words, mask in zip(host["pixel_values"], host["input_ids"], masks, strict=True):
        digest = hashlib.blake2b(pixels.contiguous().numpy(), digest_size=16)
        digest.update(words[mask].numpy())
        keys.append(digest.digest())
    return keys
