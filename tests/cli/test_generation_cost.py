"""What answers cost beside the forward, as every command that runs a model says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.paths import EXAMPLES

FEW = ("--limit", "4", "--batch-size", "4")


@pytest.fixture(scope="module")
def pruned(madtp: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Captions at half the cost, and what compress said of it."""
    folder = tmp_path_factory.mktemp("pruned") / "caption"
    done = madtp("compress", EXAMPLES / "blip-caption.pt", "--gflops-budget", "0.5", "--steps", 0, "--limit", 16, "-o",
                 folder, "--json", "-q")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_compress_tells_what_both_models_spent(pruned) -> None:
    """No part of the budget: that is met by the forward alone."""
    report = pruned[1]
    answering = report["answering"]
    assert 0 < answering["pruned"] < answering["dense"]
    assert answering["share"] == pytest.approx(answering["pruned"] / answering["dense"])
    assert (answering["answers"], report["quality"]["samples"]) == (16, 16)
    assert "caption" in answering["what"]
    assert report["budget"]["achieved_share"] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("command", ["eval", "profile"])
def test_a_pruned_model_alone_tells_both_figures(madtp, pruned, command) -> None:
    """What its own search would have cost on all tokens stands for the dense model's."""
    done = madtp(command, pruned[0], *FEW, "--json", "-q")
    answering = json.loads(done.stdout)["answering"]
    assert 0 < answering["pruned"] < answering["dense"]
    said = madtp(command, pruned[0], *FEW, "-q").stdout
    assert f"GFLOPs per answer: dense {answering['dense']:.4g}, pruned {answering['pruned']:.4g}" in said


def test_k_test_is_heard_of(madtp) -> None:
    """Fewer answers in full cost less; the forward costs the same, and the line says how many there were."""
    documents = [json.loads(madtp("eval", EXAMPLES / "blip-vqa.pt", *FEW, "--k-test", number, "--json", "-q").stdout)
                 for number in (2, 9)]  # fmt: skip
    few, many = [document["answering"] for document in documents]
    assert few["dense"] < many["dense"]
    assert few["pruned"] is few["share"] is None
    assert "the 2 most likely ones in full" in few["what"]
    assert documents[0]["gflops"] == documents[1]["gflops"]


def test_a_query_is_an_answer(madtp) -> None:
    """Of four images with five captions each there are 24."""
    done = madtp("eval", EXAMPLES / "blip-retrieval.pt", *FEW, "--json", "-q")
    assert json.loads(done.stdout)["answering"]["answers"] == 4 + 4 * 5


def test_what_searches_nothing_has_no_such_line(madtp) -> None:
    """NLVR2's and CLIP's figure is the whole."""
    for name in ("blip.pt", "clip.pt"):
        done = madtp("eval", EXAMPLES / name, *FEW, "--json", "-q")
        assert json.loads(done.stdout)["answering"] is None
    assert "per answer" not in madtp("eval", EXAMPLES / "blip.pt", *FEW, "-q").stdout


def test_k_test_needs_candidates(madtp) -> None:
    """It would do nothing."""
    done = madtp("eval", EXAMPLES / "blip.pt", *FEW, "--k-test", 3)
    assert done.exit_code == 2
    assert "--k-test" in done.stderr
