"""The report and the model card that `compress` writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import madtp_cli
from madtp_cli import tasks
from madtp_cli.checkpoint import source_card
from madtp_cli.cli.app import app
from madtp_cli.reporting import contact_sheet
from madtp_cli.reporting.card import CardFacts, model_card
from tests.reports import compress_report


def test_the_code_in_the_model_card_loads_the_folder(compressed, monkeypatch):
    """Users copy it. It names the folder without the path on the machine that wrote it."""
    folder, _ = compressed
    monkeypatch.chdir(folder.parent)
    _, _, prose = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    lines = [line[4:] for line in prose.splitlines() if line.startswith("    ")]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert sum(f'"{folder.name}"' in line for line in lines) == 4
    types = [type(names[name]).__name__ for name in ("model", "processor")]
    assert types == ["MadtpBlipForNLVR2", "MadtpBlipProcessor"]


def test_the_front_matter_of_the_model_card_describes_the_model(compressed):
    """Model hubs read it: the pipeline tag of the task, the result, and no local path as the base model."""
    folder, report = compressed
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front_matter = yaml.safe_load(head)
    assert front_matter["pipeline_tag"] == tasks.get(report["task"]).pipeline_tag == "visual-question-answering"
    assert tasks.get("caption").pipeline_tag == "image-to-text"
    assert "base_model" not in front_matter
    (model,) = front_matter["model-index"]
    (result,) = model["results"]
    assert (model["name"], result["task"]["type"]) == (folder.name, front_matter["pipeline_tag"])
    assert result["dataset"] == {"type": "nlvr2", "name": report["data"], "split": "test"}
    assert result["metrics"][0]["value"] == round(report["quality"]["pruned"], 2)


def test_the_model_card_has_no_local_path_and_the_hub_accepts_it(compressed) -> None:
    """It is made to be published."""
    folder, report = compressed
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert str(folder.parent) not in text
    assert str(Path(report["checkpoint"]).parent) not in text
    data: Any = ModelCard(text).data
    assert data.eval_results[0].metric_value == round(report["quality"]["pruned"], 2)


def test_the_card_has_a_picture_an_example_and_the_command(compressed, dataset, monkeypatch, capsys) -> None:
    """The example runs, the picture is there, and the options of the command exist."""
    folder, report = compressed
    monkeypatch.chdir(folder.parent)
    text = (folder / "README.md").read_text(encoding="utf-8")
    with Image.open(folder / "pruning.png") as picture:
        # Two images; each is shown as it is, before the first block, and after the one block that prunes.
        width, height = (number * contact_sheet.SIDE + (number - 1) * contact_sheet.SPACE for number in (3, 2))
        assert picture.size == (width, height)
    assert "(pruning.png)" in text
    assert f"{report['threshold_scale']:.4g}" in text
    for title in ("Results", "How to use it", "How it was made", "What a GFLOPs figure counts", "Limits", "Licence"):
        assert f"\n## {title}\n" in text
    command = shlex.split(text.split("```sh\n")[1].split("```")[0])
    assert command[:5] == ["madtp", "compress", "blip.pt", "--gflops-budget", "0.7"]
    assert {"--limit", "--steps"} < set(command)
    typer.main.get_command(app).commands["compress"].make_context("compress", command[2:])  # type: ignore[attr-defined]
    for side in ("left", "right"):
        Image.new("RGB", (64, 64), "red").save(f"{side}.png")
    names: dict[str, Any] = dict(zip(("model", "processor"), madtp_cli.load(folder), strict=True))
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert capsys.readouterr().out.strip() in ("true", "false")


def test_the_licence_and_the_name_of_the_source_are_inherited(tmp_path) -> None:
    """A folder from the hub has a card; what it says in other words is not believed."""
    (tmp_path / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# BLIP\n", "utf-8")
    assert source_card.licence(tmp_path) == "bsd-3-clause"
    facts = CardFacts(
        "image-to-text", "Captions", "madtp compress", base_model="Salesforce/blip", licence="bsd-3-clause"
    )
    data: Any = ModelCard(model_card(compress_report(), facts)).data
    front = data.to_dict()
    assert (front["base_model"], front["license"], front["library_name"]) == (
        "Salesforce/blip",
        "bsd-3-clause",
        "madtp",
    )
    assert data.eval_results[0].metric_value == 97.0
    for other in ("---\nlicense: [a, b]\n---\n", "---\nlicense: x y\n---\n", "no card", "---\n: [\n---\n"):
        (tmp_path / "README.md").write_text(other, "utf-8")
        assert source_card.licence(tmp_path) is None


def test_the_curve_lists_the_trials_of_the_calibration(compressed) -> None:
    """Each trial has a threshold scale and the share that it gives; the best one is the scale of the model."""
    report = compressed[1]
    shares = {point["threshold_scale"]: point["share"] for point in report["curve"]}
    assert shares[report["threshold_scale"]] == pytest.approx(report["budget"]["achieved_share"])


def unnamed_pairs(value: Any, path: str = "") -> list[str]:
    """Return the paths of lists of numbers in a JSON document."""
    if isinstance(value, dict):
        return [found for name, part in value.items() for found in unnamed_pairs(part, f"{path}/{name}")]
    if not isinstance(value, list):
        return []
    own = [path] if any(isinstance(part, int | float) for part in value) else []
    return own + [found for part in value for found in unnamed_pairs(part, f"{path}[]")]


def test_every_number_of_a_report_has_a_name(compressed) -> None:
    """A list such as [0.4, 0.7] does not say what its numbers mean."""
    assert unnamed_pairs({"interval": [[1, 2]]}) == ["/interval[]"]
    assert unnamed_pairs(compressed[1]) == []


def test_what_was_assumed_stands_in_the_report_and_the_card_also_when_quiet(madtp, checkpoint, small, compressed):
    """A pipeline runs with -q, and reads nothing but these files."""
    done = madtp("eval", checkpoint, *small, "-q", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads((compressed[0] / "report.json").read_text())
    for notes in (json.loads(done.stdout)["notes"], report["notes"]):
        assert any("attention heads of width 64" in note and "activation GELU" in note for note in notes)
    assert "attention heads of width 64" in (compressed[0] / "README.md").read_text()
