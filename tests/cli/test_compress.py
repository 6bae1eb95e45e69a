"""`compress`, `eval` and `profile` as people and scripts use them, on a tiny random checkpoint."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import madtp_cli
from madtp_cli import tasks
from madtp_cli.checkpoint import load as checkpoints
from madtp_cli.evaluation import run

BUDGET = ("--gflops-budget", "0.7")

#: What scripts rely on: the keys of each part of the document.
SCHEMA = {
    "budget": {"requested", "share", "gflops", "achieved_val"},
    "gflops": {"dense", "pruned", "share", "convention"},
    "quality": {"metric", "split", "samples", "dense", "pruned", "change", "interval95"},
    "latency": {"dense_ms", "pruned_ms", "speedup", "batch_size"},
    "tokens": {"vision", "text"},
}


def lasting(report):
    """A report without what the clock decides."""
    return {name: value for name, value in report.items() if name not in ("seconds", "latency")}


def test_json_is_one_document_with_the_promised_fields(compressed):
    """Scripts parse stdout as it is, so nothing else may be there."""
    _, report = compressed
    assert report.keys() >= {"schema_version", "command", "checkpoint", "output", "task", "method", "seconds", *SCHEMA}
    assert (report["schema_version"], report["command"], report["task"]) == (1, "compress", "nlvr2")
    for part, names in SCHEMA.items():
        assert report[part].keys() >= names, part
    quality = report["quality"]
    assert (quality["metric"], quality["split"], quality["samples"]) == ("accuracy", "test", 16)
    assert quality["change"] == pytest.approx(quality["pruned"] - quality["dense"])
    assert report["gflops"]["share"] == pytest.approx(report["gflops"]["pruned"] / report["gflops"]["dense"])


def test_the_budget_is_met_on_validation_and_the_tests_share_stands_beside_it(compressed):
    """Within 1 % of what was asked."""
    budget = compressed[1]["budget"]
    assert budget["requested"] == "0.7"
    assert budget["achieved_val"] == pytest.approx(budget["gflops"], rel=0.01)
    assert compressed[1]["gflops"]["share"] == pytest.approx(0.7, rel=0.1)


def test_the_folder_is_complete_and_holds_the_same_report(compressed):
    """What was printed can be looked up later."""
    folder, report = compressed
    assert json.loads((folder / "report.json").read_text()) == report
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "README.md", "tokenizer.json", "processor_config.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["pruned"]


def test_the_model_cards_lines_load_the_folder(compressed):
    """People paste them."""
    folder, report = compressed
    _, _, prose = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    lines = [line[4:] for line in prose.splitlines() if line.startswith("    ")]
    read: dict[str, Any] = {}
    exec("\n".join(lines), read)
    assert sum(report["output"] in line for line in lines) == 3
    assert (type(read["model"]).__name__, type(read["processor"]).__name__) == ("MadtpBlipForNLVR2", "BlipProcessor")


def test_the_model_card_tells_a_hub_what_the_model_is_for(compressed):
    """By the task, not by the example that was there first; no path of this machine stands for a model's name."""
    folder, report = compressed
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["pipeline_tag"] == tasks.get(report["task"]).pipeline_tag == "visual-question-answering"
    assert tasks.get("caption").pipeline_tag == "image-to-text"
    assert "base_model" not in told


def test_a_loaded_folder_answers_bit_for_bit_as_the_model_that_was_saved(madtp, checkpoint, small, monkeypatch):
    """What was measured is what is delivered."""
    kept, save = [], checkpoints.save

    def keep(model, *arguments, **options):
        kept.append(model)
        save(model, *arguments, **options)

    monkeypatch.setattr(checkpoints, "save", keep)
    assert madtp("compress", checkpoint, *BUDGET, *small, "--steps", 1, "-o", "out").exit_code == 0
    loaded, _ = madtp_cli.load("out")
    pixels = torch.randn(3, 2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    words = torch.tensor([[kept[0].config.text_config.vocab_size - 1, 9, 8, 3, 0]] * 3)
    with torch.no_grad():
        before, after = (model(pixels, words, (words > 0).long()).logits for model in (kept[0].eval(), loaded))
    assert torch.equal(before, after)


def test_steps_0_only_calibrates(madtp, checkpoint, small):
    """The checkpoint's own weights stay as they are."""
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    dense, _ = madtp_cli.load(checkpoint)
    pruned, _ = madtp_cli.load("blip-madtp")
    weights = pruned.state_dict()
    for name, value in dense.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_a_person_reads_the_table_on_stdout_and_progress_on_stderr(madtp, checkpoint, small):
    """`madtp compress ... > result.txt` keeps the result and shows the progress."""
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", "out")
    assert done.exit_code == 0, done.stderr
    for words in ("GFLOPs per sample", "accuracy, %", "16 test samples", "0.7", "multiply-adds", "not bytes"):
        assert words in done.stdout
    assert "Calibrating" not in done.stdout
    assert "Calibrating the threshold scale" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_piped_table_is_not_wrapped(madtp, checkpoint, tmp_path, small):
    """A pipe has no width; a line cut at 80 columns cannot be searched."""
    folder = tmp_path / ("long" * 20)
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", folder)
    assert f'madtp_cli.load("{folder}")' in done.stdout
    assert any("accuracy, %" in line and "95 %" in line for line in done.stdout.splitlines())


def test_compress_takes_the_folder_it_wrote(madtp, compressed, small):
    """A pruned model can be brought to another budget, measured against what it is at knob 0."""
    done = madtp("compress", compressed[0], "--gflops-budget", "80%", *small, "--steps", 0, "--json", "-o", "again")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["budget"]["achieved_val"] / report["gflops"]["dense"] == pytest.approx(0.8, rel=0.1)


def test_a_budget_in_gflops_is_the_share_it_amounts_to(madtp, compressed, checkpoint, small):
    """`26.5G` and `0.2` are two spellings."""
    budget = compressed[1]["budget"]
    done = madtp(
        "compress", checkpoint, "--gflops-budget", f"{budget['gflops']}G", *small, "--steps", 0, "--json", "-o", "out"
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["budget"]
    assert found["share"] == pytest.approx(0.7)
    assert found["achieved_val"] == pytest.approx(budget["gflops"], rel=0.01)


def test_eval_takes_files_and_folders(madtp, compressed, checkpoint, small):
    """And says the same each time."""
    dense, pruned, again = (
        json.loads(madtp("eval", source, *small, "--json").stdout)
        for source in (checkpoint, compressed[0], compressed[0])
    )
    assert lasting(pruned) == lasting(again)
    assert pruned["quality"].keys() >= {"metric", "split", "samples", "value", "interval95"}
    assert pruned["quality"]["value"] == compressed[1]["quality"]["pruned"]
    assert pruned["gflops"]["pruned"] == pytest.approx(compressed[1]["gflops"]["pruned"], rel=1e-6)
    assert dense["gflops"]["pruned"] is dense["gflops"]["share"] is None
    low, high = dense["quality"]["interval95"]
    assert low <= dense["quality"]["value"] <= high


def test_profile_agrees_with_fvcore_on_files_and_folders(madtp, compressed, checkpoint):
    """Two counts that were made in different ways."""
    for source, dtype in itertools.product((checkpoint, compressed[0]), ("float32", "bfloat16")):
        done = madtp("profile", source, "--limit", 2, "--json", "--dtype", dtype)
        assert done.exit_code == 0, done.stderr
        report = json.loads(done.stdout)
        gflops = report["gflops"]
        assert gflops["fvcore"] == pytest.approx(gflops["formula"], rel=1e-9)
        assert (gflops["pruned"] is None) == (source == checkpoint)
        assert sum(layer["gflops"] for layer in report["layers"]) == pytest.approx(gflops["pruned"] or gflops["dense"])
    human = madtp("profile", checkpoint, "--limit", 1)
    assert "fvcore counts" in human.stdout
    assert "1 sample of" in human.stdout


def test_a_dense_model_is_counted_without_a_pass(madtp, checkpoint, monkeypatch):
    """256 forwards of a full-size model are an hour of two cores, and tell what the texts' lengths tell."""
    full = json.loads(madtp("profile", checkpoint, "--limit", 3, "--json").stdout)
    monkeypatch.setattr(run, "run", None)
    done = madtp("profile", checkpoint, "--limit", 3, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == full
    assert full["samples"] == full["gflops"]["fvcore_samples"] == 3
    assert full["gflops"]["dense"] == pytest.approx(full["gflops"]["fvcore"], rel=1e-9)
    assert all(layer["tokens_in"] == layer["tokens_out"] for layer in full["layers"] if layer["tokens_in"])


def test_a_checkpoint_from_elsewhere_is_judged_by_agreement(madtp, checkpoint, small):
    """The scenes' labels mean nothing to it, and the user must not take the figure for accuracy."""
    state = torch.load(checkpoint, weights_only=True)["model"]
    torch.save({"model": state}, "theirs.pt")
    words = ("--tokenizer", checkpoint.parent / "tokenizer")
    done = madtp("compress", "theirs.pt", *BUDGET, *small, *words, "--steps", 0)
    assert done.exit_code == 0, done.stderr
    assert "agreement with the dense model, %" in done.stdout
    assert "not trained on the built-in scenes" in done.stdout
    assert "100.00" in done.stdout
    refused = madtp("eval", "theirs.pt", *words, "--limit", 2)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--data" in refused.stderr


def test_data_of_ones_own(madtp, compressed, checkpoint, dataset):
    """What `madtp scenes` writes is read like a user's NLVR2, and gives the built-in scenes' result."""
    done = madtp("compress", checkpoint, *BUDGET, "--data", dataset, "-b", 8, "--steps", 1, "--json", "-o", "out")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert str(dataset) in report["data"]
    assert report["quality"]["samples"] == 16
    assert report["gflops"]["dense"] == pytest.approx(compressed[1]["gflops"]["dense"])
    again = madtp("eval", "out", "--data", dataset, "--split", "val", "--json")
    assert json.loads(again.stdout)["quality"]["split"] == "val"


@pytest.mark.parametrize(
    ("flags", "environment", "samples"),
    [((), {}, 2), ((), {"MADTP_LIMIT": "3"}, 3), (("--limit", "4"), {"MADTP_LIMIT": "3"}, 4)],
)
def test_a_flag_beats_a_variable_which_beats_the_config_file(madtp, checkpoint, flags, environment, samples):
    """Design section 5."""
    Path("run.yaml").write_text("limit: 2\nbatch_size: 2\n")
    done = madtp("eval", checkpoint, "--config", "run.yaml", *flags, "--json", env=environment)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["quality"]["samples"] == samples


def test_a_run_can_be_repeated(madtp, checkpoint, small, tmp_path, monkeypatch):
    """The same seed gives the same weights and the same report."""
    reports, weights = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 1, "--seed", 5, "--json")
        assert done.exit_code == 0, done.stderr
        reports.append(lasting(json.loads(done.stdout)))
        weights.append(load_file("blip-madtp/model.safetensors"))
    assert reports[0] == reports[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path / "two")
        replaced = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "--overwrite", "-q")
    assert replaced.exit_code == 0, replaced.stderr


def test_streams_of_a_real_process(process, checkpoint, small):
    """One JSON document on stdout, plain lines on stderr, whatever colour is forced."""
    running = process("compress", checkpoint, *BUDGET, *small, "--steps", 0, "--json", FORCE_COLOR="1", CI="1")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert json.loads(out)["command"] == "compress"
    assert out.count('"schema_version"') == 1
    assert "\r" not in err
    assert "\x1b[?25l" not in err


def test_every_published_architecture_can_be_named_and_counted(madtp) -> None:
    """The list is for people and scripts; each name is one that --arch takes."""
    listed = madtp("profile", "--list-archs").stdout.split()
    assert {"blip-nlvr-base", "blip-vqa-large", "blip-caption-base", "blip-retrieval-base", "clip-vit-l-14-336"} <= set(
        listed
    )
    assert json.loads(madtp("profile", "--list-archs", "--json").stdout)["architectures"] == listed
    assert "caption" in madtp("profile", "--arch", "clip", "-q").stderr
