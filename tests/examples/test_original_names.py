"""The examples are stored under the names of the original checkpoints."""

from __future__ import annotations

import gzip
import json

import torch

from examples import original_names
from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, salesforce_blip
from madtp_cli.checkpoint.reading import read
from tests.paths import GOLDEN


def test_blip_keys_become_the_original_ones() -> None:
    """All keys of a published checkpoint are converted to our names and back."""
    with gzip.open(GOLDEN / "key_inventory.json.gz") as file:
        keys = json.load(file)["blip_nlvr_base"]
    ours = {salesforce_blip.to_transformers(key): torch.zeros(1) for key in keys}
    assert original_names.blip(ours).keys() == keys.keys()


def test_clip_weights_become_the_original_ones() -> None:
    """Converting to our names and back changes no tensor; the sizes in the archive are not weights."""
    archive = read(GOLDEN / "clip_a/archive.pt")
    ours = formats.recognise(archive, CheckpointOverrides()).weights
    original = original_names.clip(ours)
    assert original.keys() == archive.weights.keys() - {"input_resolution", "context_length", "vocab_size"}
    for key, value in original.items():
        assert torch.equal(value, archive.weights[key]), key
