"""The script that takes full-size checkpoints through every command, at toy size."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from examples import full_size
from examples.full_size import Step
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.towers import MadtpClipConfig
from madtp_cli.scenes import generator
from tests.paths import GOLDEN

INVENTORY = GOLDEN / "key_inventory.json.gz"
#: Each case's published file in the inventory.
PUBLISHED = {"nlvr": "blip_nlvr_base", "vqa": "blip_vqa_base", "clip": "openai_clip_vit_l14_336"}


def config(name: str) -> Any:
    """Few layers of width 64 and few word pieces, all else as published; mostly images, or 0.5 were out of reach."""
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = tower | {"num_hidden_layers": 4, "image_size": 160, "patch_size": 16}
    if name == "clip":
        text = tower | {"vocab_size": 900, "bos_token_id": 898, "eos_token_id": 899}
        return MadtpClipConfig(projection_dim=32, vision_config=vision, text_config=text)
    text = tower | {"vocab_size": 400, "bos_token_id": 398, "encoder_hidden_size": 64}
    task = {"nlvr": "nlvr2"}.get(name, name)
    return MadtpBlipConfig(task=task, vision_config=vision, text_config=text, merge_from=2)


@pytest.fixture(params=list(full_size.CASES))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A toy of each case and its folder."""
    with torch.random.fork_rng():
        full_size.make(request.param, tmp_path, config(request.param))
    return request.param, tmp_path


@pytest.fixture
def inside(madtp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's commands in this process, where they need not load torch again, on few samples."""
    for command in ("PROFILE", "COMPRESS"):
        monkeypatch.setattr(full_size, command, (*getattr(full_size, command), "--limit", "4"))

    def run(command: list[Any], record: Path) -> Step:
        words = [str(word) for word in command[1:]]
        if words[0] == "-m":
            done = madtp(*words[2:])
            assert done.exit_code == 0, done.stderr
            return Step(1, 0.5, json.loads(done.stdout))
        with monkeypatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as said:
            patched.setattr(sys, "argv", words[1:])
            exec(words[1], {})
        return Step(1, 0.5, json.loads(said.getvalue()))

    monkeypatch.setattr(full_size, "run", run)


def test_every_case_goes_through_every_command(made, inside) -> None:
    """Else an hour is lost before the script breaks."""
    name, folder = made
    done = full_size.steps(name, folder)
    assert list(done) == ["inspect", "profile", "compress", "load"]
    said = {command: full_size.said(command, step.result) for command, step in done.items()}
    assert "tensors found" in said["inspect"]
    formula, fvcore = (done["profile"].result["gflops"][by] for by in ("formula", "fvcore"))
    assert formula == pytest.approx(fvcore, rel=1e-9)
    assert abs(done["compress"].result["budget"]["achieved_share"] - 0.5) < 0.005
    assert "agreement" in done["compress"].result["quality"]["metric"]
    entered, left = done["load"].result["kept"]
    assert left < entered == 101


def test_a_checkpoint_is_stored_as_the_published_one(made) -> None:
    """Names and number formats of the layers that a toy has; the inventory is of the original code."""
    name, folder = made
    content = torch.load(folder / full_size.CASES[name][1], weights_only=True)
    weights = content if name == "clip" else content["model"]
    with gzip.open(INVENTORY) as file:
        published = json.load(file)[PUBLISHED[name]]
    formats = {key: str(value.dtype).removeprefix("torch.") for key, value in weights.items()}
    assert formats == {key: published[key][1] for key in formats}
    layers = {key for key in published if any(f".{number}." in key for number in range(2, 24))}
    assert published.keys() - layers - formats.keys() == set()


def test_the_words_of_the_scenes_are_pieces_of_a_full_vocabulary() -> None:
    """Texts as long as with the published vocabularies, or their cost would be another."""
    blip, clip = full_size.build_tokenizer(30_524), full_size.clip_tokenizer(77, 49_408)
    assert (len(blip), len(clip)) == (30_524, 49_408)
    assert blip.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [30_522, 30_523]
    assert (clip.bos_token_id, clip.eos_token_id) == (49_406, 49_407)
    for tokenizer in (blip, clip):
        assert all(len(tokenizer.tokenize(word)) == 1 for word in generator.vocabulary() if word.isalnum())


def test_a_finished_step_is_not_run_again(tmp_path) -> None:
    """A broken run goes on where it stopped; what failed leaves no record."""
    command = [sys.executable, "-c", "import pathlib; pathlib.Path('ran').touch(exist_ok=False); print('{\"a\": 1}')"]
    with contextlib.chdir(tmp_path):
        first = full_size.run(command, tmp_path / "step.json")
        assert first.result == {"a": 1}
        assert first.peak > 0  # no upper bound: a child's peak starts with what its parent, here all tests, holds
        assert full_size.run(command, tmp_path / "step.json") == first
        with pytest.raises(subprocess.CalledProcessError):
            full_size.run(command, tmp_path / "other.json")
        assert not (tmp_path / "other.json").exists()


def test_the_page_has_every_line(tmp_path) -> None:
    """The page is the script's result."""
    line = full_size.row("clip", "load", Step(61.4, 3.14159, {"parameters": 428e6, "dtype": "f", "kept": [577, 60]}))
    full_size.write_page([line], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| clip-vit-l-14-336 | `load` | 61 | 3.14 | 428.0 M weights, f; 577 image tokens end as 60 |" in text
    assert "random" in text
