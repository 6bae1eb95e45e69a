"""The forms of the alignment dictionary: each one differs from the default, and a finished run is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples import mag_ablation
from madtp_cli.errors import ResumeError
from madtp_cli.methods import BlockInputs, Rule
from madtp_cli.methods._density_score import DensityParameters, DensityScore

QUICK = ["--budgets", "0.3", "--seeds", "1", "--steps", "0", "--limit", "24"]


@pytest.mark.slow
def test_the_table_has_every_form_and_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scores of a run are in a file; a file that is there is read, whatever it contains."""
    mag_ablation.main([*QUICK, "--folder", str(tmp_path)])
    output = capsys.readouterr().out
    assert output.startswith("dense: ")
    assert all(f"| 0.3 | {mag_ablation.FORMS[form][0]} |" in output for form in mag_ablation.MEASURED)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(mag_ablation.MEASURED)
    file = tmp_path / "none-0.3-0.json"
    known = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**known, "scores": [0.0] * len(known["scores"])}), encoding="utf-8")
    mag_ablation.main([*QUICK, "--folder", str(tmp_path)])
    assert "| 0.3 | without MAG | 0.00 | 0.00 | -" in capsys.readouterr().out
    with pytest.raises(ResumeError, match="is of another run"):
        mag_ablation.main([*QUICK[:-1], "16", "--folder", str(tmp_path)])


def test_each_form_changes_the_score_before_the_first_block() -> None:
    """No attention is known there, so a form without the dictionary needs another importance."""
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, True, True, False]])
    tokens = torch.randn(1, 6, 8)
    inputs = BlockInputs(mask, tokens, lambda values: values, dictionary_logits=torch.randn(1, 6, 4))
    rule = Rule(0.5, 1, DensityParameters(), 0, 8)
    default, other = DensityScore.of(inputs, rule), mag_ablation.distance_instead(inputs, rule)
    kept = tokens[0, :5]
    expected = (kept - kept.mean(0)).square().sum(-1)
    assert torch.allclose(other.weight[0, :5], expected / expected.sum())
    assert other.weight[0, 5] == 0
    assert not torch.allclose(default.weight, other.weight)
