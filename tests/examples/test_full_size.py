"""The script that runs every command on full-size checkpoints, tested with small models."""

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
from examples.training.vocabularies import bert_tokenizer, clip_tokenizer
from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.towers import MadtpClipConfig
from madtp_cli.scenes import generator
from tests.paths import GOLDEN

INVENTORY = GOLDEN / "key_inventory.json.gz"
#: Name of each case's published file in the inventory.
PUBLISHED = {"nlvr": "blip_nlvr_base", "vqa": "blip_vqa_base", "clip": "openai_clip_vit_l14_336"}


def small_config(case: str) -> Any:
    """Return a configuration with few blocks of width 64 and a small vocabulary; all else is as published.

    Most of the cost must be in the image tower. Otherwise a budget of 0.5 cannot be met.
    """
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = tower | {"num_hidden_layers": 4, "image_size": 160, "patch_size": 16}
    if case == "clip":
        text = tower | {"vocab_size": 900, "bos_token_id": 898, "eos_token_id": 899}
        return MadtpClipConfig(projection_dim=32, vision_config=vision, text_config=text)
    text = tower | {"vocab_size": 400, "bos_token_id": 398, "encoder_hidden_size": 64}
    task = {"nlvr": "nlvr2"}.get(case, case)
    return MadtpBlipConfig(task=task, vision_config=vision, text_config=text, merge_from=2)


@pytest.fixture(params=list(full_size.CASES))
def small_case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Return the name of each case and the folder with its small checkpoint."""
    with torch.random.fork_rng():
        full_size.make_checkpoint(request.param, tmp_path, small_config(request.param))
    return request.param, tmp_path


@pytest.fixture
def run_in_process(madtp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the script's commands in this process, so that torch is not loaded again, and on few samples."""
    for command in ("PROFILE", "COMPRESS"):
        monkeypatch.setattr(full_size, command, (*getattr(full_size, command), "--limit", "4"))

    def run(command: list[Any], record: Path) -> Step:
        words = [str(word) for word in command[1:]]
        if words[0] == "-m":
            done = madtp(*words[2:])
            assert done.exit_code == 0, done.stderr
            return Step(1, 0.5, json.loads(done.stdout))
        with monkeypatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as printed:
            patched.setattr(sys, "argv", words[1:])
            exec(words[1], {})
        return Step(1, 0.5, json.loads(printed.getvalue()))

    monkeypatch.setattr(full_size, "run", run)


def test_every_command_runs_on_every_case(small_case, run_in_process) -> None:
    """At full size an hour would pass before an error shows."""
    case, folder = small_case
    steps = full_size.run_commands(case, folder)
    assert list(steps) == ["inspect", "profile", "compress", "load"]
    assert "tensors found" in full_size.table_row(case, "inspect", steps["inspect"])
    gflops = steps["profile"].result["gflops"]
    assert gflops["formula"] == pytest.approx(gflops["fvcore"], rel=1e-9)
    assert abs(steps["compress"].result["budget"]["achieved_share"] - 0.5) < 0.005
    assert "agreement" in steps["compress"].result["quality"]["metric"]
    entered, left = steps["load"].result["tokens"]
    assert left < entered == 101


def test_a_checkpoint_has_the_format_of_the_published_file(small_case) -> None:
    """Key names and dtypes of the blocks that the small model has; the inventory comes from the original code."""
    case, folder = small_case
    content = torch.load(folder / full_size.CASES[case][1], weights_only=True)
    weights = content if case == "clip" else content["model"]
    with gzip.open(INVENTORY) as file:
        published = json.load(file)[PUBLISHED[case]]
    dtypes = {key: str(value.dtype).removeprefix("torch.") for key, value in weights.items()}
    assert dtypes == {key: published[key][1] for key in dtypes}
    other_blocks = {key for key in published if any(f".{number}." in key for number in range(2, 24))}
    assert published.keys() - other_blocks - dtypes.keys() == set()


def test_every_word_of_the_scenes_is_one_token_of_a_full_size_vocabulary() -> None:
    """With the published vocabularies too; longer texts would have a different cost."""
    blip, clip = bert_tokenizer(30_524), clip_tokenizer(77, 49_408)
    assert (len(blip), len(clip)) == (30_524, 49_408)
    assert blip.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [30_522, 30_523]
    assert (clip.bos_token_id, clip.eos_token_id) == (49_406, 49_407)
    for tokenizer in (blip, clip):
        assert all(len(tokenizer.tokenize(word)) == 1 for word in generator.vocabulary() if word.isalnum())


def test_a_finished_step_is_not_run_again(tmp_path) -> None:
    """An interrupted run continues where it stopped; a command that fails leaves no record."""
    command = [sys.executable, "-c", "import pathlib; pathlib.Path('ran').touch(exist_ok=False); print('{\"a\": 1}')"]
    with contextlib.chdir(tmp_path):
        first = full_size.run(command, tmp_path / "step.json")
        assert first.result == {"a": 1}
        assert first.peak > 0  # no upper bound: a child process starts with the peak of its parent, here of all tests
        assert full_size.run(command, tmp_path / "step.json") == first
        with pytest.raises(subprocess.CalledProcessError):
            full_size.run(command, tmp_path / "other.json")
        assert not (tmp_path / "other.json").exists()


def test_the_page_has_its_rows_and_says_that_weights_are_random(tmp_path) -> None:
    """A reader must not take the page for a statement about quality."""
    step = Step(61.4, 3.14159, {"parameters": 428e6, "dtype": "torch.float32", "tokens": [577, 60]})
    full_size.write_page([full_size.table_row("clip", "load", step)], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    result = "428.0 M weights, torch.float32; 60 of 577 image tokens left after the last block"
    assert f"| clip-vit-l-14-336 | `load` | 61 | 3.14 | {result} |" in text
    assert "random" in text
