"""Runs with several seeds: the same computation as `madtp compress`, and a finished run is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import madtp_cli
from examples import seeds
from madtp_cli.config import BudgetRequest
from madtp_cli.errors import ResumeError

EXAMPLE = Path("examples/siglip")
LIMIT = 24


@pytest.mark.slow
def test_seeds_are_those_of_compress_and_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the scores that `compress` writes; a line has the mean of all seeds."""
    output = tmp_path / "out"
    madtp_cli.compress(EXAMPLE, gflops_budget="0.5", steps=0, limit=LIMIT, output=output)
    written = [json.loads(text)["score"] for text in (output / "samples.jsonl").read_text("utf-8").splitlines()]
    session = seeds.open_session(EXAMPLE, "test", {"limit": LIMIT, "steps": 0})
    request = {"gflops_budget": BudgetRequest.parse("0.5"), "seed": 0}
    file = tmp_path / "0.5-0.json"
    found = seeds.scores(session, EXAMPLE, request, file)
    assert found == [score["pruned"] for score in written]

    known = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**known, "scores": [0.25] * LIMIT}), encoding="utf-8")
    assert seeds.scores(session, EXAMPLE, request, file) == [0.25] * LIMIT, "a finished run is read"
    with pytest.raises(ResumeError, match="is of another run"):
        seeds.scores(session, EXAMPLE, {**request, "seed": 1}, file)

    monkeypatch.setattr(seeds, "open_session", lambda *_: session)
    monkeypatch.setattr(seeds, "scores", lambda *_: [0.0] * LIMIT)
    dense, first = (100 * np.mean([score[model] for score in written]) for model in ("dense", "pruned"))
    (line,) = seeds.rows("SigLIP", EXAMPLE, None, {"0.5": output}, tmp_path)
    cells = line.strip("| ").split(" | ")
    assert cells[:5] == ["SigLIP", "0.5", f"{first - dense:+.2f}", f"{-dense:+.2f}", f"{-dense:+.2f}"]
    assert cells[5].startswith(f"{first / 3 - dense:+.2f} (")
