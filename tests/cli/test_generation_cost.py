"""The generation cost in the reports of `compress`, `eval` and `profile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.paths import EXAMPLES

FEW = ("--limit", "4", "--batch-size", "4")


@pytest.fixture(scope="module")
def pruned(madtp: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A caption model at half the cost, and the report of `compress`."""
    folder = tmp_path_factory.mktemp("pruned") / "caption"
    done = madtp("compress", EXAMPLES / "blip-caption.pt", "--gflops-budget", "0.5", "--steps", 0, "--limit", 16, "-o",
                 folder, "--json", "-q")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_compress_reports_the_generation_cost_of_both_models(pruned) -> None:
    """It is not part of the budget, which the forward pass alone meets."""
    report = pruned[1]
    generation = report["generation"]
    assert 0 < generation["pruned"] < generation["dense"]
    assert generation["share"] == pytest.approx(generation["pruned"] / generation["dense"])
    assert (generation["answers"], report["quality"]["samples"]) == (16, 16)
    assert "caption" in generation["description"]
    assert report["budget"]["achieved_share"] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("command", ["eval", "profile"])
def test_a_pruned_model_alone_has_both_figures(madtp, pruned, command) -> None:
    """The dense figure is the cost of the same runs on all tokens."""
    done = madtp(command, pruned[0], *FEW, "--json", "-q")
    generation = json.loads(done.stdout)["generation"]
    assert 0 < generation["pruned"] < generation["dense"]
    printed = madtp(command, pruned[0], *FEW, "-q").stdout
    assert f"dense {generation['dense']:.4g}, pruned {generation['pruned']:.4g}" in printed
    assert "Generation cost in GFLOPs per answer, not part of the budget" in printed


def test_k_test_changes_the_generation_cost(madtp) -> None:
    """Fewer answers in full cost less; the forward pass costs the same."""
    documents = [json.loads(madtp("eval", EXAMPLES / "blip-vqa.pt", *FEW, "--k-test", number, "--json", "-q").stdout)
                 for number in (2, 9)]  # fmt: skip
    few, many = [document["generation"] for document in documents]
    assert few["dense"] < many["dense"]
    assert few["pruned"] is few["share"] is None
    assert "the 2 most likely ones in full" in few["description"]
    assert documents[0]["gflops"] == documents[1]["gflops"]


def test_retrieval_counts_one_answer_per_query(madtp) -> None:
    """Four images with five captions each are 24 queries."""
    done = madtp("eval", EXAMPLES / "blip-retrieval.pt", *FEW, "--json", "-q")
    assert json.loads(done.stdout)["generation"]["answers"] == 4 + 4 * 5


def test_a_model_without_generation_has_no_such_line(madtp) -> None:
    """The forward pass of NLVR2 and CLIP models gives the answer."""
    for name in ("blip.pt", "clip.pt"):
        done = madtp("eval", EXAMPLES / name, *FEW, "--json", "-q")
        assert json.loads(done.stdout)["generation"] is None
    assert "per answer" not in madtp("eval", EXAMPLES / "blip.pt", *FEW, "-q").stdout


def test_k_test_is_refused_without_candidates(madtp) -> None:
    """It would have no effect."""
    done = madtp("eval", EXAMPLES / "blip.pt", *FEW, "--k-test", 3)
    assert done.exit_code == 2
    assert "--k-test" in done.stderr
