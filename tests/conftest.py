"""A small BLIP with weights that matter, and samples of unlike sizes; a tiny checkpoint for whole commands."""

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

from examples import pretrain
from madtp_cli.cli.app import app
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from madtp_cli.models.clip.towers import MadtpClipConfig
from tests import drawing
from tests.drawing import draw

# The same examples every time, however slow the machine: a failure is then the code's.
settings.register_profile("madtp", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("madtp")

Batch = dict[str, Tensor]
#: Words of each sample's sentence; [ENC] is among them.
TEXT_LENGTHS = (9, 4, 12, 2, 7)


def _config() -> MadtpBlipConfig:
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3,
              "image_size": 48, "patch_size": 8}  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 2,
            "encoder_hidden_size": 48, "vocab_size": 70, "max_position_embeddings": 16,
            "bos_token_id": 1, "sep_token_id": 2}  # fmt: skip
    return MadtpBlipConfig(vision_config=vision, text_config=text, merge_from=2)


@pytest.fixture(scope="session")
def blip() -> MadtpBlipForNLVR2:
    """The dense model, for all tests to read: vision 3 x 48 at 37 tokens, text 3 x 32, merging in text layer 2."""
    model = MadtpBlipForNLVR2(_config()).eval()
    draw(model, seed=1)
    return model


@pytest.fixture(scope="session")
def attached(blip: MadtpBlipForNLVR2) -> Callable[..., MadtpBlipForNLVR2]:
    """Return a copy of the dense model that prunes in both towers: `attached(0.4, min_keep=2)`."""

    def attach(threshold_scale: float, **settings: Any) -> MadtpBlipForNLVR2:
        return drawing.attached(blip, threshold_scale, **{"dictionary_width": 20, **settings})

    return attach


@pytest.fixture(scope="session")
def samples() -> list[Batch]:
    """Five pairs and their sentences of unlike lengths, each a batch of its own, without padding."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, length in enumerate(TEXT_LENGTHS):
        coarse = torch.randn(2, 3, 6, 6, generator=generator) * (1 + number)
        fine = torch.randn(2, 3, 48, 48, generator=generator)
        pixels = functional.interpolate(coarse, size=(48, 48)) + fine
        words = torch.randint(5, 70, (1, length), generator=generator)
        words[0, 0] = 4  # [ENC]
        made.append({"pixel_values": pixels[None], "input_ids": words, "attention_mask": torch.ones_like(words),
                     "labels": torch.tensor([number % 2])})  # fmt: skip
    return made


@pytest.fixture(scope="session")
def clip() -> MadtpClipForRetrieval:
    """A dense CLIP to read: vision 3 x 48 at 37 tokens, text 4 x 32, joint width 28; 68 starts a text, 69 ends it."""
    vision = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3,
              "image_size": 48, "patch_size": 8}  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 4, "num_attention_heads": 2,
            "vocab_size": 70, "max_position_embeddings": 16, "bos_token_id": 68, "eos_token_id": 69}  # fmt: skip
    model = MadtpClipForRetrieval(MadtpClipConfig(projection_dim=28, vision_config=vision, text_config=text)).eval()
    draw(model, seed=1)
    return model


@pytest.fixture(scope="session")
def attached_clip(clip: MadtpClipForRetrieval) -> Callable[..., MadtpClipForRetrieval]:
    """A copy with a dictionary, pruned as a method does unless told: `attached_clip("madtp-paper", 0.4)`."""

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
    """Five images, each with a caption of unlike length for `clip`; labels number the images."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for number, (sample, length) in enumerate(zip(samples, TEXT_LENGTHS, strict=True)):
        words = torch.randint(0, 68, (1, length), generator=generator)
        words[0, 0], words[0, -1] = 68, 69
        made.append({"pixel_values": sample["pixel_values"][:, 0], "input_ids": words,
                     "attention_mask": torch.ones_like(words), "labels": torch.tensor([number])})  # fmt: skip
    return made


@pytest.fixture(scope="session")
def collate() -> Callable[..., Batch]:
    """Samples in one batch, their sentences padded to `longest` with a word that means something."""

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
    """A random BLIP for NLVR2, blip.pt with tokenizer/ beside it, that says it was trained on the scenes."""
    folder = tmp_path_factory.mktemp("examples")
    tokenizer = pretrain.build_tokenizer()
    sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=1)
    vision = sizes | dict(image_size=96, patch_size=12, layer_norm_eps=1e-6, initializer_range=0.02)
    text = sizes | dict(max_position_embeddings=48, vocab_size=len(tokenizer), bos_token_id=len(tokenizer) - 2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MadtpBlipForNLVR2(MadtpBlipConfig(vision_config=vision, text_config=text, merge_from=1))
        pretrain.draw_weights(model)
    pretrain.save(model, tokenizer, folder)
    return folder / "blip.pt"


@pytest.fixture(scope="session")
def madtp() -> Iterator[Callable[..., Result]]:
    """The command line in this process: `madtp("inspect", path).stdout`."""
    with pytest.MonkeyPatch.context() as patched:
        for name in {*os.environ}:
            if name.startswith("MADTP_") or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS"):
                patched.delenv(name)
        yield lambda *words, env=None: CliRunner().invoke(
            app, [str(word) for word in words], env=env, prog_name="madtp"
        )
