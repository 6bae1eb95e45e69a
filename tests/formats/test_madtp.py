"""MADTP's own result files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from madtp_cli import checkpoint, formats
from madtp_cli.formats import Source, Told


def test_dense_logits_equal_the_originals(golden: Path, told: Told, judge: Callable[..., dict[str, Tensor]]) -> None:
    """At temperature 0 the original prunes nothing, so its weights are a BLIP's."""
    found = checkpoint.recognise(golden / "madtp_nlvr_a/checkpoint.pth", told)
    answers = judge(checkpoint.build(found), "madtp_nlvr_a")
    torch.testing.assert_close(answers["ours"], answers["original"], rtol=0, atol=1e-4)


def test_the_dictionary_is_kept_apart(golden: Path, told: Told) -> None:
    """It belongs to a pruning rule that is not ours, and the notes say so."""
    path = golden / "madtp_nlvr_a/checkpoint.pth"
    found = checkpoint.recognise(path, told)
    assert found.dictionary is not None
    assert torch.equal(found.dictionary, torch.load(path, weights_only=True)["model"]["space_dict"])
    assert "space_dict" not in found.weights
    assert "temperature 3.0" in found.notes[0]
    assert "24 tokens of width 48" in found.notes[0]


def test_a_published_size_has_every_key_and_no_other(inventory: Callable[[str], Source]) -> None:
    """MADTP adds its dictionary to BLIP's keys and nothing else."""
    source = inventory("madtp_nlvr_base")
    found = checkpoint.compare(source.path, formats.recognise(source, Told()))
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    assert found.format == "MADTP (Salesforce BLIP)"


def test_madtps_clip_is_recognised_and_refused(inventory: Callable[[str], Source]) -> None:
    """The host model decides, here one that this version does not compress."""
    found = formats.recognise(inventory("madtp_clip_vit_l14_336"), Told())
    assert found.format == "MADTP (OpenAI CLIP)"
    assert found.refusal is not None
