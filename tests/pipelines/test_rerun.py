"""A report is enough to repeat its run; the weights are then the same, to the bit."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import madtp_cli
from madtp_cli.errors import CheckError, InputError
from madtp_cli.pipelines import rerun
from madtp_cli.reporting.schema import CompressReport

SMALL: Any = {"gflops_budget": 0.7, "limit": 6, "batch_size": 3, "steps": 3, "device": "cpu", "seed": 5}


@pytest.fixture(scope="module")
def first(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run."""
    folder = tmp_path_factory.mktemp("first") / "pruned"
    madtp_cli.compress(checkpoint, output=folder, **SMALL)
    return folder / "report.json"


def test_the_report_records_what_the_run_depends_on(first, checkpoint) -> None:
    """Each setting has its value and its origin. The run chooses the learning rate, so a repeated run does so too."""
    record = CompressReport.model_validate_json(first.read_text()).record
    used = {name: (part.value, part.origin) for name, part in record.settings.items()}
    assert used["seed"] == (5, "seed")
    assert used["device"] == ("cpu", "device")
    assert used["task"] == ("nlvr2", "default")
    assert used["learning_rate"] == (None, "default")
    assert used["save_dtype"] == ("float16", "default")
    assert record.versions["torch"] == metadata.version("torch")
    assert record.inputs.keys() == {"checkpoint", "processor", "data"}
    assert record.outputs.keys() == {"model.safetensors"}
    assert record.reproducible
    assert f"{torch.get_num_threads()} thread" in record.conditions[0]


def test_a_run_in_which_sums_have_no_order_is_not_called_reproducible(first, monkeypatch) -> None:
    """The report of a run on a GPU says that its weights cannot be had again."""
    from madtp_cli.evaluation import run_record

    device = torch.device("cuda")
    assert run_record.conditions(device, 1)[0] is False
    assert run_record.conditions(torch.device("cpu"), 2)[0] is False
    assert "differ by rounding" in run_record.conditions(device, 1)[1]
    assert run_record.conditions(torch.device("cpu"), 1)[0] is True


def test_the_repeated_run_gives_the_same_weights(first, tmp_path, monkeypatch) -> None:
    """Settings of the environment do not apply to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MADTP_SEED", "7")
    torch.manual_seed(9)
    report = madtp_cli.rerun(first)
    assert (report.same, report.differences, report.output) == (True, [], "pruned-rerun")
    assert Path("pruned-rerun/model.safetensors").read_bytes() == first.with_name("model.safetensors").read_bytes()
    rerun.require_same(report)


@pytest.mark.slow
def test_other_weights_are_reported_with_a_reason(first, checkpoint, tmp_path, madtp) -> None:
    """With --verify they end with exit code 5. A checkpoint that was moved can be given."""
    report = json.loads(first.read_text())
    report["record"]["settings"]["seed"]["value"] = 6
    report["record"]["versions"]["torch"] = "1.0"
    report["checkpoint"] = "moved.pt"
    (tmp_path / "report.json").write_text(json.dumps(report))
    moved = ("--checkpoint", checkpoint, "-o", tmp_path / "again")
    words = ("rerun", str(tmp_path / "report.json"), *map(str, moved), "--verify", "--json", "-q")
    done = madtp(*words, "--log-json", tmp_path / "log.jsonl")
    assert done.exit_code == 5
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["command"] == "rerun"
    record = json.loads((tmp_path / "again/report.json").read_text())["record"]
    assert record["command_line"][: len(words) + 1] == ["madtp", *words]
    found = json.loads(done.stdout)
    assert found["same"] is False
    assert found["differences"] == [f"the version of torch was 1.0 and is {metadata.version('torch')}"]
    assert "differ from those of" in done.stderr
    with pytest.raises(CheckError):
        rerun.require_same(rerun.RerunReport.model_validate(found))


def test_another_checkpoint_or_file_is_refused(first, checkpoint, tmp_path) -> None:
    """Before the run, not after it."""
    (tmp_path / "tokenizer").symlink_to(checkpoint.with_name("tokenizer"))
    shutil.copy(checkpoint, tmp_path / "other.pt")
    with (tmp_path / "other.pt").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="is not the checkpoint of"):
        madtp_cli.rerun(first, checkpoint=tmp_path / "other.pt")
    for content, message in [("{}", "is not a report"), ("[", "is not valid JSON")]:
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(InputError, match=message):
            madtp_cli.rerun(tmp_path / "report.json")
    old = json.loads(first.read_text())
    del old["record"]
    (tmp_path / "report.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match="has no record"):
        madtp_cli.rerun(tmp_path / "report.json")
