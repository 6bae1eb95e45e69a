"""The commands `inspect` and `scenes`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests.paths import GOLDEN


@pytest.mark.parametrize(
    ("name", "form", "task"),
    [
        ("blip_nlvr_a/checkpoint.pth", "Salesforce BLIP", "nlvr2"),
        ("madtp_nlvr_a/checkpoint.pth", "MADTP", "nlvr2"),
        ("blip_nlvr_from_pretrain_c/pretrain.pth", "Salesforce BLIP", "pretraining"),
    ],
)
def test_inspect_shows_format_task_and_weights(madtp, name, form, task):
    """In the JSON document and in the table."""
    done = madtp("inspect", GOLDEN / name, "--head-width", 16, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["schema_version"], found["command"], found["task"]) == (1, "inspect", task)
    assert form in found["format"]
    plain = madtp("inspect", GOLDEN / name, "--head-width", 16)
    assert plain.exit_code == 0, plain.stderr
    assert (plain.stderr, form in plain.stdout, f"{found['parameters']:,}" in plain.stdout) == ("", True, True)
    if task == "pretraining":
        assert "no NLVR2 head" in plain.stdout
    else:
        assert (found["missing"], found["unexpected"], found["refusal"]) == ([], [], None)
        assert f"{found['matched']} matched, 0 missing" in plain.stdout


def test_inspect_says_that_a_file_is_incomplete(madtp):
    """`compress` would refuse it."""
    stored = torch.load(GOLDEN / "blip_nlvr_a/checkpoint.pth", weights_only=True)
    stored["model"].pop("cls_head.0.weight")
    torch.save(stored, "cut.pth")
    done = madtp("inspect", "cut.pth", "--head-width", 16)
    assert "1 missing" in done.stdout
    assert "Cannot be compressed: the file is incomplete" in " ".join(done.stdout.split())


def test_inspect_accepts_a_pruned_folder(madtp, compressed):
    """All weights of the folder fit the model."""
    found = json.loads(madtp("inspect", compressed[0], "--json").stdout)
    assert (found["task"], found["missing"], found["unexpected"]) == ("nlvr2", [], [])


def test_scenes_reports_the_rows_and_the_text_only_accuracy(madtp):
    """The balance of the answers, and the accuracy without images."""
    sizes = ("--train", 20, "--val", 1, "--test", 10)
    done = madtp("scenes", "made", *sizes, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["schema_version"], found["command"], found["folder"]) == (1, "scenes", "made")
    assert {split: part["rows"] for split, part in found["splits"].items()} == {"train": 20, "val": 1, "test": 10}
    assert found["text_only"]["all"]["samples"] == 10
    plain = madtp("scenes", "again", *sizes)
    assert plain.exit_code == 0, plain.stderr
    assert "in brackets the share of true" in plain.stdout
    assert "text only" in plain.stdout
    assert "--data again" in plain.stdout
    assert "Writing scenes" in plain.stderr


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("vqa",), ("the most common answer", "text only", "existence")),
        (("caption",), (r"images +9 +8", r"captions +45 +40")),
        (("retrieval", "--captions", 1), (r"images +9 +8", r"captions +9 +8")),
    ],
)
def test_scenes_shows_what_a_task_has(madtp, options, shown):
    """Kinds of questions, or images and captions."""
    done = madtp("scenes", "made", "--task", *options, "--train", 9, "--val", 0, "--test", 8)
    assert done.exit_code == 0, done.stderr
    assert all(re.search(pattern, done.stdout) for pattern in shown)


def test_scenes_refuses_a_wrong_number_of_captions(madtp):
    """Exit code 2, and nothing is written."""
    done = madtp("scenes", "made", "--task", "retrieval", "--captions", 2)
    assert (done.exit_code, "--captions 5 or 1" in done.stderr) == (2, True)
    assert not Path("made").exists()


def test_scenes_replaces_only_its_own_files(madtp):
    """And only with --overwrite."""
    assert madtp("scenes", "made", "--train", 0, "--val", 0, "--test", 1).exit_code == 0
    refused = madtp("scenes", "made", "--test", 1)
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "--overwrite" in refused.stderr
    assert madtp("scenes", "made", "--train", 0, "--val", 2, "--test", 0, "--overwrite").exit_code == 0
    assert [path.name for path in Path("made/annotation").iterdir()] == ["nlvr_dev.json"]
    Path("made/thesis.tex").touch()
    assert "thesis.tex" in madtp("scenes", "made", "--test", 1, "--overwrite").stderr


def test_scenes_refuses_an_unknown_task(madtp):
    """Exit code 2; the message names the tasks."""
    done = madtp("scenes", "made", "--task", "chess")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nlvr2" in done.stderr
    assert not Path("made").exists()
