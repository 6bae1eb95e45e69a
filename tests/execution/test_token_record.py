"""The record of where pruned tokens go."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from madtp_cli import methods
from madtp_cli.evaluation.recorded_tokens import image_inputs
from madtp_cli.execution.token_record import TokenRecorder
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.reporting.pruned_sample import ImageInput, PrunedBlock

#: A processor that does not normalise images.
PROCESSOR = SimpleNamespace(image_processor=SimpleNamespace(do_normalize=False))


#: Methods that merge in different ways, and a threshold scale at which they prune some tokens of the tiny model.
METHODS = {"madtp": 1.0, "madtp-paper": 1.0, "evit": 0.5, "tome": 0.5}


@pytest.fixture(scope="module", params=METHODS)
def run(request, attached, samples):
    """A pruned model that recorded a pair of images, and its output."""
    every = {"vision": [1.0] * 3, "text": [1.0] * 3}
    model = attached(METHODS[request.param], method=request.param, scales=every)
    batch = {name: value for name, value in samples[0].items() if name != "labels"}
    with torch.inference_mode():
        plain = model(**batch)
        model.records_tokens = True
        return model, batch, plain, model(**batch)


def pictured(run) -> list[ImageInput]:
    """The two images of the pair."""
    model, batch, _, output = run
    return image_inputs(model, output.trace, batch, PROCESSOR)


def test_recording_changes_no_result_and_is_off_by_default(run) -> None:
    """It only follows the tokens."""
    _, _, plain, recorded = run
    assert torch.equal(plain.logits, recorded.logits)
    assert all(block.record is None for blocks in plain.trace.values() for block in blocks)
    assert any(block.record is not None for block in recorded.trace["vision"])


def test_every_patch_is_in_one_group(run) -> None:
    """A patch is kept, part of a kept one, or part of the merged token; none is lost and none is counted twice."""
    for image in pictured(run):
        assert (image.rows, image.columns) == (6, 6)
        for block in image.blocks:
            members = [patch for group in block.groups for patch in group.members]
            assert sorted(members) == list(range(36))
            assert len(block.groups) == block.tokens - 1  # without [CLS]


def test_the_kept_patches_are_those_of_the_trace(run) -> None:
    """`positions` counts from [CLS], so the first patch is position 1."""
    model, _, _, output = run
    images = pictured(run)
    blocks = output.trace["vision"]
    embedding = [] if blocks[0].embedding is None else [blocks[0].embedding]
    for number, block in enumerate(embedding + blocks):
        parts = block.positions.split(block.left)
        for image, positions in zip(images, parts, strict=True):
            assert image.blocks[number].kept == {position - 1 for position in positions.tolist() if position > 0}
    assert any(len(block.kept) < 35 for image in images for block in image.blocks)
    merged = [group for image in images for block in image.blocks for group in block.merged]
    assert merged
    into_one = methods.get(model.pruning.method).MERGED_TOKENS == 1
    assert all((group.kept is None) == into_one for group in merged)


def test_patches_that_are_one_token_stay_together(run) -> None:
    """Merging is never undone, so the groups of a later block are unions of those of an earlier one."""
    for image in pictured(run):
        for before, after in zip(image.blocks, image.blocks[1:], strict=False):
            owner = owners(after)
            for group in before.groups:
                assert len({owner[patch] for patch in group.members}) == 1


def owners(block: PrunedBlock) -> dict[int, int]:
    """Return the number of the group of each patch."""
    return {patch: number for number, group in enumerate(block.groups) for patch in group.members}


def test_a_kept_patch_has_an_importance(run) -> None:
    """Patches of one token share theirs."""
    for image in pictured(run):
        assert all(weight is not None and weight >= 0 for block in image.blocks for weight in block.weights)
        first, second = image.blocks[:2]
        for group in first.merged:
            assert len({second.weights[patch] for patch in group.members}) == 1


def test_a_token_without_a_place_is_gone() -> None:
    """A method may drop tokens instead of merging them: their place is that of no token."""
    recorder = TokenRecorder()
    ones, nothing = torch.ones(4), torch.zeros(4, dtype=torch.bool)
    first = recorder.record(torch.tensor([0, 2, 1, 2]), 2, ones, nothing)
    assert first.went_to.tolist() == [0, -1, 1, -1]
    second = recorder.record(torch.tensor([0, 0]), 1, ones[:2], nothing[:2])
    assert second.entered_from.tolist() == [0, -1, 1, -1]
    assert second.went_to.tolist() == [0, -1, 0, -1]


def test_words_are_recorded_too(run) -> None:
    """The paper's method prunes both towers."""
    model, _, _, output = run
    assert isinstance(model, MadtpBlipForNLVR2)
    record = output.trace["text"][0].record
    assert record is not None
    assert record.protected.tolist() == [True] + [False] * 8  # [ENC]
