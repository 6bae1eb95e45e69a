"""The teacher's answers: asked for once, and the same however the samples come."""

from __future__ import annotations

import torch

from madtp_cli.compression import teacher_cache
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution.packed import Packed

CPU = ComputeConfig.of("cpu", "float32")


class Counting(torch.nn.Module):
    """The dense model, counting the samples it is asked about."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, **inputs):
        self.asked += len(inputs["pixel_values"])
        return self.model(**inputs)


def _packed(given_: torch.Tensor | Packed) -> Packed:
    assert isinstance(given_, Packed)
    return given_


def test_a_sample_that_comes_again_is_not_asked_about(blip, collate, samples) -> None:
    """In another batch, at another place and with other padding."""
    teacher = Counting(blip)
    taught = TeacherCache(teacher, CPU)
    first = taught.of(collate(samples[:3]))
    again = taught.of(collate([samples[3], samples[1]], longest=15))
    assert teacher.asked == 4
    for name in ("logits", "state.image", "state.text"):
        old_rows, new_rows = first[name], again[name]
        assert isinstance(old_rows, torch.Tensor)
        assert isinstance(new_rows, torch.Tensor)
        torch.testing.assert_close(new_rows[1], old_rows[1], rtol=0, atol=0)
    old, new = (_packed(targets["words.text"]) for targets in (first, again))
    assert torch.equal(old.data.split(old.lengths)[1], new.data.split(new.lengths)[1])


def test_lessons_are_what_the_teacher_says(blip, collate, samples) -> None:
    """Row by row, without gradients and without labels."""
    taught = TeacherCache(blip, CPU)
    taught.of(collate(samples[1:3]))
    batch = collate(samples)
    told = taught.of(batch)
    with torch.no_grad():
        expected = blip(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)
    assert told.keys() == expected.targets.keys()
    for name, value in expected.targets.items():
        own = told[name]
        if isinstance(value, Packed):  # kept in half precision; all left images first, then all right ones
            assert _packed(own).lengths == value.lengths
            torch.testing.assert_close(_packed(own).data.float(), value.data, rtol=1e-3, atol=2e-3)
            continue
        assert isinstance(own, torch.Tensor)
        assert not own.requires_grad
        torch.testing.assert_close(own, value, rtol=0, atol=1e-5)


def test_what_does_not_fit_is_asked_about_anew(blip, collate, samples) -> None:
    """Memory has an end; the lesson has not."""
    teacher = Counting(blip)
    taught = TeacherCache(teacher, CPU, most_bytes=0)
    batch = collate(samples[:2])
    first, again = taught.of(batch), taught.of(batch)
    assert teacher.asked == 4
    assert not taught.kept
    torch.testing.assert_close(first["logits"], again["logits"])


def test_a_pixel_or_a_word_makes_another_sample(samples) -> None:
    """Augmented pictures and other statements about the same pictures are lessons of their own."""
    batch = {name: value for name, value in samples[0].items() if name != "labels"}
    changed = {name: value.clone() for name, value in batch.items()}
    changed["pixel_values"][0, 1, 2, 3, 4] += 1
    reworded = {name: value.clone() for name, value in batch.items()}
    reworded["input_ids"][0, 3] += 1
    assert len({teacher_cache.keys_of(each)[0] for each in (batch, changed, reworded)}) == 3
