"""Small models with random weights, small samples of different lengths, and a small checkpoint for whole commands."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner, Result

from examples.training.small import small_checkpoint
from madtp_cli.cli.app import app
from madtp_cli.evaluation import timing
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from madtp_cli.models.clip.towers import MadtpClipConfig
from tests import drawing, json_documents
from tests.drawing import draw

# Use the same hypothesis examples in every run and no deadline. A failure then comes from the code and not from a
# slow machine.
settings.register_profile("madtp", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("madtp")

Batch = dict[str, Tensor]
#: Number of tokens in the text of each sample, including [ENC].
TEXT_LENGTHS = (9, 4, 12, 2, 7)
#: Token ids of the small models: the first token of BLIP's texts, the first and the last token of CLIP's texts.
ENC, CLIP_START, CLIP_END = 4, 68, 69
IMAGE_TOWER = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 48,
    "patch_size": 8,
}
TEXT_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_attention_heads": 2,
    "vocab_size": 70,
    "max_position_embeddings": 16,
}
#: Environment variables that change the output of the command line.
TERMINAL_VARIABLES = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS")


@pytest.fixture(scope="session")
def blip() -> MadtpBlipForNLVR2:
    """Return a dense BLIP for NLVR2; tests must not change it.

    Image tower: 3 blocks, width 48, 37 tokens. Text tower: 3 blocks, width 32, merging from block 2 on.
    """
    text = TEXT_TOWER | {"num_hidden_layers": 3, "encoder_hidden_size": 48, "bos_token_id": 1, "sep_token_id": 2}
    config = MadtpBlipConfig(vision_config=dict(IMAGE_TOWER), text_config=text, merge_from=2)
    model = MadtpBlipForNLVR2(config).eval()
    draw(model, seed=1)
    return model


@pytest.fixture(scope="session")
def attached(blip: MadtpBlipForNLVR2) -> Callable[..., MadtpBlipForNLVR2]:
    """Return a function that copies the dense BLIP and prunes both towers: `attached(0.4, min_keep=2)`."""

    def attach(threshold_scale: float, **settings: Any) -> MadtpBlipForNLVR2:
        return drawing.attached(blip, threshold_scale, **{"dictionary_width": 20, **settings})

    return attach


@pytest.fixture(scope="session")
def samples() -> list[Batch]:
    """Return five pairs with texts of different lengths; each is a batch of one sample without padding."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    for number, length in enumerate(TEXT_LENGTHS):
        coarse = torch.randn(2, 3, 6, 6, generator=generator) * (1 + number)
        fine = torch.randn(2, 3, 48, 48, generator=generator)
        pixels = functional.interpolate(coarse, size=(48, 48)) + fine
        ids = torch.randint(5, 70, (1, length), generator=generator)
        ids[0, 0] = ENC
        labels = torch.tensor([number % 2])
        batches.append(_batch(pixels[None], ids, labels))
    return batches


@pytest.fixture(scope="session")
def clip() -> MadtpClipForRetrieval:
    """Return a dense CLIP for retrieval; tests must not change it.

    Image tower: 3 blocks, width 48, 37 tokens. Text tower: 4 blocks, width 32. Embeddings: width 28.
    """
    text = TEXT_TOWER | {"num_hidden_layers": 4, "bos_token_id": CLIP_START, "eos_token_id": CLIP_END}
    config = MadtpClipConfig(projection_dim=28, vision_config=dict(IMAGE_TOWER), text_config=text)
    model = MadtpClipForRetrieval(config).eval()
    draw(model, seed=1)
    return model


@pytest.fixture(scope="session")
def attached_clip(clip: MadtpClipForRetrieval) -> Callable[..., MadtpClipForRetrieval]:
    """Return a function that copies the dense CLIP and prunes it by a method: `attached_clip("madtp-paper", 0.4)`."""

    def attach(method: str, threshold_scale: float, **settings: Any) -> MadtpClipForRetrieval:
        model = copy.deepcopy(clip)
        preset = PruningSettings.preset(method, model.widths, model.blocks)
        sizes = {"dictionary_size": 7, "dictionary_width": 20}
        model.attach(replace(preset, threshold_scale=threshold_scale, **(sizes | settings)))
        assert model.madtp is not None
        draw(model.madtp, seed=2)
        return model.eval()

    return attach


@pytest.fixture(scope="session")
def captioned(samples: list[Batch]) -> list[Batch]:
    """Return five images with captions of different lengths for `clip`; the label is the number of the image."""
    generator = torch.Generator().manual_seed(4)
    batches = []
    for number, (sample, length) in enumerate(zip(samples, TEXT_LENGTHS, strict=True)):
        ids = torch.randint(0, CLIP_START, (1, length), generator=generator)
        ids[0, 0], ids[0, -1] = CLIP_START, CLIP_END
        batches.append(_batch(sample["pixel_values"][:, 0], ids, torch.tensor([number])))
    return batches


def _batch(pixels: Tensor, ids: Tensor, labels: Tensor) -> Batch:
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.fixture(scope="session")
def collate() -> Callable[..., Batch]:
    """Return a function that joins samples to one batch and pads the texts.

    The padding is a token id with a normal embedding, so a model that attends to padding gives different results.
    """

    def join(samples: Sequence[Batch], longest: int = 0, padding: int = 69) -> Batch:
        longest = max(longest, *[sample["input_ids"].shape[1] for sample in samples])

        def padded(name: str, fill: int) -> Tensor:
            return torch.cat([functional.pad(s[name], (0, longest - s[name].shape[1]), value=fill) for s in samples])

        return {
            "pixel_values": torch.cat([sample["pixel_values"] for sample in samples]),
            "input_ids": padded("input_ids", padding),
            "attention_mask": padded("attention_mask", 0),
            "labels": torch.cat([sample["labels"] for sample in samples]),
        }

    return join


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small BLIP for NLVR2 with random weights: blip.pt and tokenizer/, marked as trained on the scenes."""
    return small_checkpoint(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def madtp() -> Iterator[Callable[..., Result]]:
    """Return a function that runs the command line in this process: `madtp("inspect", path).stdout`.

    Each JSON document that it prints is checked with its schema.
    """
    with pytest.MonkeyPatch.context() as patched:
        for name in list(os.environ):
            if name.startswith("MADTP_") or name in TERMINAL_VARIABLES:
                patched.delenv(name)

        def run(*words: object, env: dict[str, str] | None = None) -> Result:
            result = CliRunner().invoke(app, [str(word) for word in words], env=env, prog_name="madtp")
            json_documents.check(words, result)
            return result

        yield run


@pytest.fixture(autouse=True, scope="module")
def few_turns() -> Iterator[None]:
    """Time each model twice only: timing takes ten seconds, which is most of a run on a few samples."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "turns_for", lambda seconds: 2)
        yield


#: Folders and files below tests/ whose tests run whole commands or many processes; `make test-fast` leaves them out.
SLOW = ("cli", "examples", "checkpoint/test_remote_code.py")

#: Files whose single tests take a minute or more.
LONGEST = ("test_readme.py", "test_two_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in the slow folders and files, and run the longest tests first.

    Two processes share the tests. The longest ones at the end would leave one of the processes without work.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)  # keeps the order of all others
    for item in items:
        if any(item.path.is_relative_to(Path(__file__).parent / part) for part in SLOW):
            item.add_marker(pytest.mark.slow)
