"""`inspect` and `scenes`, for people and for scripts."""

from __future__ import annotations

import json
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
def test_inspect_says_what_a_file_is(madtp, name, form, task):
    """To a script and to a person alike."""
    done = madtp("inspect", GOLDEN / name, "--head-width", 16, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["schema_version"], found["command"], found["task"]) == (1, "inspect", task)
    assert form in found["format"]
    human = madtp("inspect", GOLDEN / name, "--head-width", 16)
    assert human.exit_code == 0, human.stderr
    assert (human.stderr, form in human.stdout, f"{found['parameters']:,}" in human.stdout) == ("", True, True)
    if task == "pretraining":
        assert "no NLVR2 head" in human.stdout
    else:
        assert (found["missing"], found["unexpected"], found["refusal"]) == ([], [], None)
        assert f"{found['matched']} matched, 0 missing" in human.stdout


def test_inspect_says_that_a_file_is_incomplete(madtp):
    """Its tables alone leave people to conclude so; `compress` would refuse it."""
    stored = torch.load(GOLDEN / "blip_nlvr_a/checkpoint.pth", weights_only=True)
    stored["model"].pop("cls_head.0.weight")
    torch.save(stored, "cut.pth")
    done = madtp("inspect", "cut.pth", "--head-width", 16)
    assert "1 missing" in done.stdout
    assert "Cannot be compressed: the file is incomplete" in " ".join(done.stdout.split())


def test_inspect_takes_a_folder(madtp, compressed):
    """Also one that is pruned."""
    found = json.loads(madtp("inspect", compressed[0], "--json").stdout)
    assert (found["task"], found["missing"], found["unexpected"]) == ("nlvr2", [], [])


def test_scenes_says_what_it_wrote(madtp):
    """How balanced the answers are, and how far one gets without the images."""
    sizes = ("--train", 20, "--val", 1, "--test", 10)
    done = madtp("scenes", "made", *sizes, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["schema_version"], found["command"], found["folder"]) == (1, "scenes", "made")
    assert {split: part["rows"] for split, part in found["splits"].items()} == {"train": 20, "val": 1, "test": 10}
    assert found["text_only"]["all"]["samples"] == 10
    human = madtp("scenes", "again", *sizes)
    assert human.exit_code == 0, human.stderr
    assert "judged by text alone" in human.stdout
    assert "--data again" in human.stdout
    assert "Writing scenes" in human.stderr


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("vqa",), ("% commonest)", "judged by text alone", "existence")),
        (("caption",), ("8 images, 40 captions",)),
        (("retrieval", "--captions", 1), ("8 images, 8 captions",)),
    ],
)
def test_scenes_of_every_task(madtp, options, shown):
    """A person sees what the task has."""
    done = madtp("scenes", "made", "--task", *options, "--train", 9, "--val", 0, "--test", 8)
    assert done.exit_code == 0, done.stderr
    assert all(words in done.stdout for words in shown)


def test_scenes_says_how_many_captions_there_are(madtp):
    """Exit 2, and nothing is written."""
    done = madtp("scenes", "made", "--task", "retrieval", "--captions", 2)
    assert (done.exit_code, "--captions 5 or 1" in done.stderr) == (2, True)
    assert not Path("made").exists()


def test_scenes_replaces_only_what_it_wrote(madtp):
    """And only when told."""
    assert madtp("scenes", "made", "--train", 0, "--val", 0, "--test", 1).exit_code == 0
    refused = madtp("scenes", "made", "--test", 1)
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "--overwrite" in refused.stderr
    assert madtp("scenes", "made", "--train", 0, "--val", 2, "--test", 0, "--overwrite").exit_code == 0
    assert [path.name for path in Path("made/annotation").iterdir()] == ["nlvr_dev.json"]
    Path("made/thesis.tex").touch()
    assert "thesis.tex" in madtp("scenes", "made", "--test", 1, "--overwrite").stderr


def test_scenes_of_no_such_task(madtp):
    """Exit 2, naming what there is."""
    done = madtp("scenes", "made", "--task", "chess")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nlvr2" in done.stderr
    assert not Path("made").exists()
