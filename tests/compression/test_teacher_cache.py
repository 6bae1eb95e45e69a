"""The teacher cache: each sample is computed once, and its targets do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression import teacher_cache, training_state
from madtp_cli.compression.distillation import Training
from madtp_cli.compression.optimizers import Schedule
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.errors import OutputError
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.execution.packed import Packed

CPU = ComputeConfig.of("cpu", "float32")


class Counting(torch.nn.Module):
    """The dense model, counting the samples of its forward passes."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.samples = model, 0

    def forward(self, **inputs):
        self.samples += len(inputs["pixel_values"])
        return self.model(**inputs)


def _packed(value: torch.Tensor | Packed) -> Packed:
    assert isinstance(value, Packed)
    return value


def test_a_known_sample_is_not_computed_again(blip, collate, samples) -> None:
    """It is found in another batch, at another position and with other padding."""
    teacher = Counting(blip)
    cache = TeacherCache(teacher, CPU)
    first = cache.targets(collate(samples[:3]))
    again = cache.targets(collate([samples[3], samples[1]], longest=15))
    assert teacher.samples == 4
    for name in ("logits", "state.image", "state.text"):
        old_rows, new_rows = first[name], again[name]
        assert isinstance(old_rows, torch.Tensor)
        assert isinstance(new_rows, torch.Tensor)
        torch.testing.assert_close(new_rows[1], old_rows[1], rtol=0, atol=0)
    old, new = (_packed(targets["words.text"]) for targets in (first, again))
    assert torch.equal(old.data.split(old.lengths)[1], new.data.split(new.lengths)[1])


def test_targets_are_those_of_the_teacher(blip, collate, samples) -> None:
    """They are kept by sample, without gradients and without labels."""
    cache = TeacherCache(blip, CPU)
    cache.targets(collate(samples[1:3]))
    batch = collate(samples)
    targets = cache.targets(batch)
    with torch.no_grad():
        expected = blip(**{name: value for name, value in batch.items() if name != "labels"}, return_targets=True)
    assert targets.keys() == expected.targets.keys()
    for name, value in expected.targets.items():
        kept = targets[name]
        if isinstance(value, Packed):  # kept in float16; first all left images, then all right ones
            assert _packed(kept).lengths == value.lengths
            torch.testing.assert_close(_packed(kept).data.float(), value.data, rtol=1e-3, atol=2e-3)
            continue
        assert isinstance(kept, torch.Tensor)
        assert not kept.requires_grad
        torch.testing.assert_close(kept, value, rtol=0, atol=1e-5)


def test_targets_that_do_not_fit_are_computed_again(blip, collate, samples) -> None:
    """The memory of the cache is limited; the targets stay the same."""
    teacher = Counting(blip)
    cache = TeacherCache(teacher, CPU, most_bytes=0)
    batch = collate(samples[:2])
    first, again = cache.targets(batch), cache.targets(batch)
    assert teacher.samples == 4
    assert not cache.kept
    torch.testing.assert_close(first["logits"], again["logits"])


def test_another_pixel_or_token_is_another_sample(samples) -> None:
    """Augmented images and other texts about the same images have their own targets."""
    batch = {name: value for name, value in samples[0].items() if name != "labels"}
    changed = {name: value.clone() for name, value in batch.items()}
    changed["pixel_values"][0, 1, 2, 3, 4] += 1
    reworded = {name: value.clone() for name, value in batch.items()}
    reworded["input_ids"][0, 3] += 1
    assert len({teacher_cache.keys_of(each)[0] for each in (batch, changed, reworded)}) == 3


def test_the_share_that_fits_follows_from_what_is_kept() -> None:
    """Ten samples of 8 bytes in a memory of 40 bytes; before the first sample nothing is known."""
    cache = TeacherCache(nn.Identity(), CPU, most_bytes=40)
    assert cache.share_that_fits(10) == 0.0
    cache._keep(b"first", {"logits": torch.zeros(2)})
    assert cache.share_that_fits(10) == 0.5
    assert cache.share_that_fits(3) == 1.0


def test_a_lost_part_of_the_saved_targets_is_an_error(attached, blip, collate, samples, tmp_path: Path) -> None:
    """Targets that are computed again, in another batch, differ by rounding, and so would the weights."""
    student, schedule = attached(0.4), Schedule(2, 1e-3, 1e-3)
    training = Training.begin(student, blip, schedule, CPU)
    with StateFolder(tmp_path / "out") as folder:
        for batch in (collate(samples[:2]), collate(samples[2:])):
            training.teacher_cache.targets(batch)
            training_state.save_training(folder, training, student, {})
        saved, again = folder.load(training_state.TRAINING), Training.begin(student, blip, schedule, CPU)
        training_state.restore_training(folder, saved, again, student)
        assert again.teacher_cache.kept.keys() == training.teacher_cache.kept.keys()
        (folder.path / "teacher-0.pt").unlink()
        with pytest.raises(OutputError, match=r"teacher-0\.pt is damaged"):
            training_state.restore_training(folder, saved, Training.begin(student, blip, schedule, CPU), student)
