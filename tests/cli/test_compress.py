"""The commands `compress`, `eval` and `profile` on a tiny random checkpoint."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import madtp_cli
from madtp_cli.evaluation import run
from madtp_cli.pipelines import compress as pipeline

BUDGET = ("--gflops-budget", "0.7")

#: Keys of each part of the document that scripts rely on.
SCHEMA = {
    "budget": {"requested", "share", "gflops", "achieved_val"},
    "gflops": {"dense", "pruned", "share", "convention"},
    "quality": {"metric", "split", "samples", "dense", "pruned", "change", "interval95"},
    "latency": {"dense_ms", "pruned_ms", "speedup", "batch_size"},
    "tokens": {"vision", "text"},
}


def without_times(report):
    """Return a report without the fields that depend on the clock."""
    return {name: value for name, value in report.items() if name not in ("seconds", "latency")}


def test_json_output_is_one_document_with_the_promised_fields(compressed):
    """Scripts parse stdout, so nothing else may be printed there."""
    _, report = compressed
    assert report.keys() >= {"schema_version", "command", "checkpoint", "output", "task", "method", "seconds", *SCHEMA}
    assert (report["schema_version"], report["command"], report["task"]) == (1, "compress", "nlvr2")
    for part, names in SCHEMA.items():
        assert report[part].keys() >= names, part
    quality = report["quality"]
    assert (quality["metric"], quality["split"], quality["samples"]) == ("accuracy", "test", 16)
    assert quality["change"] == pytest.approx(quality["pruned"] - quality["dense"])
    assert report["gflops"]["share"] == pytest.approx(report["gflops"]["pruned"] / report["gflops"]["dense"])


def test_the_budget_is_met_on_validation_samples(compressed):
    """Within 1 % of the requested budget; the share on test samples is reported too."""
    budget = compressed[1]["budget"]
    assert budget["requested"] == "0.7"
    assert budget["achieved_val"] == pytest.approx(budget["gflops"], rel=0.01)
    assert compressed[1]["gflops"]["share"] == pytest.approx(0.7, rel=0.1)


def test_the_output_folder_is_complete_and_contains_the_report(compressed):
    """The printed report can be read again later."""
    folder, report = compressed
    assert json.loads((folder / "report.json").read_text()) == report
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "README.md", "tokenizer.json", "processor_config.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["pruned"]


def test_a_loaded_folder_gives_the_same_logits_as_the_saved_model(madtp, checkpoint, small, monkeypatch):
    """Bit for bit: the report describes the model in the folder."""
    saved, save = [], pipeline.save

    def record_and_save(model, *arguments, **options):
        saved.append(model)
        save(model, *arguments, **options)

    monkeypatch.setattr(pipeline, "save", record_and_save)
    assert madtp("compress", checkpoint, *BUDGET, *small, "--steps", 1, "-o", "out").exit_code == 0
    loaded, _ = madtp_cli.load("out")
    pixels = torch.randn(3, 2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    words = torch.tensor([[saved[0].config.text_config.vocab_size - 1, 9, 8, 3, 0]] * 3)
    with torch.no_grad():
        before, after = (model(pixels, words, (words > 0).long()).logits for model in (saved[0].eval(), loaded))
    assert torch.equal(before, after)


@pytest.mark.parametrize(("given", "saved"), [("auto", "float16"), ("bfloat16", "bfloat16"), ("float32", "float32")])
def test_the_report_describes_the_rounded_weights(madtp, checkpoint, small, given, saved):
    """A float16 source stays as small as it is; `eval` of the folder repeats the measured figures exactly."""
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 1, "--save-dtype", given, "-o", "out", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["weights"]["dtype"], report["weights"]["source_dtype"]) == (saved, "float16")
    file = Path("out/model.safetensors").stat().st_size
    assert 0 <= file - report["weights"]["bytes"] < 50_000
    assert f"MB in {saved}" in Path("out/README.md").read_text(encoding="utf-8")
    again = json.loads(madtp("eval", "out", *small, "--json").stdout)
    assert again["gflops"]["pruned"] == report["gflops"]["pruned"]
    assert again["quality"]["value"] == report["quality"]["pruned"]


def test_zero_steps_only_calibrate(madtp, checkpoint, small):
    """The weights of the checkpoint do not change."""
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    dense, _ = madtp_cli.load(checkpoint)
    pruned, _ = madtp_cli.load("blip-madtp")
    weights = pruned.state_dict()
    for name, value in dense.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_the_table_goes_to_stdout_and_the_progress_to_stderr(madtp, checkpoint, small):
    """`madtp compress ... > result.txt` saves the result and still shows the progress."""
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", "out")
    assert done.exit_code == 0, done.stderr
    for text in ("GFLOPs per sample", "accuracy, %", "16 test samples", "95 % interval", "multiply-adds", "not bytes"):
        assert text in done.stdout
    assert "Trying allocation" not in done.stdout
    assert "Trying allocation 1 of " in done.stderr
    assert "Evaluating the pruned model: done in" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_a_piped_table_is_not_wrapped(madtp, checkpoint, tmp_path, small):
    """A pipe has no width, and a line that is cut at 80 columns cannot be searched."""
    folder = tmp_path / ("long" * 20)
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", folder)
    assert f'madtp_cli.load("{folder}")' in done.stdout
    assert any("accuracy, %" in line and "points" in line for line in done.stdout.splitlines())


def test_compress_accepts_a_pruned_folder(madtp, compressed, small):
    """A pruned model can get another budget; its dense model is the one with threshold scale 0."""
    done = madtp("compress", compressed[0], "--gflops-budget", "80%", *small, "--steps", 0, "--json", "-o", "again")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["budget"]["achieved_val"] / report["gflops"]["dense"] == pytest.approx(0.8, rel=0.1)


def test_a_budget_in_gflops_equals_the_same_budget_as_a_share(madtp, compressed, checkpoint, small):
    """`26.5G` and `0.2` are two ways to write a budget."""
    budget = compressed[1]["budget"]
    done = madtp(
        "compress", checkpoint, "--gflops-budget", f"{budget['gflops']}G", *small, "--steps", 0, "--json", "-o", "out"
    )
    assert done.exit_code == 0, done.stderr
    from_gflops = json.loads(done.stdout)["budget"]
    assert from_gflops["share"] == pytest.approx(0.7)
    assert from_gflops["achieved_val"] == pytest.approx(budget["gflops"], rel=0.01)


def test_eval_accepts_files_and_folders(madtp, compressed, checkpoint, small):
    """Two runs give the same report, and the same quality as `compress` reported."""
    dense, pruned, again = (
        json.loads(madtp("eval", source, *small, "--json").stdout)
        for source in (checkpoint, compressed[0], compressed[0])
    )
    assert without_times(pruned) == without_times(again)
    assert pruned["quality"].keys() >= {"metric", "split", "samples", "value", "interval95"}
    assert pruned["quality"]["value"] == compressed[1]["quality"]["pruned"]
    assert pruned["gflops"]["pruned"] == pytest.approx(compressed[1]["gflops"]["pruned"], rel=1e-6)
    assert dense["gflops"]["pruned"] is dense["gflops"]["share"] is None
    interval = dense["quality"]["interval95"]
    assert interval["low"] <= dense["quality"]["value"] <= interval["high"]


def test_profile_agrees_with_fvcore_on_files_and_folders(madtp, compressed, checkpoint):
    """The formula and fvcore count in different ways."""
    for source, dtype in itertools.product((checkpoint, compressed[0]), ("float32", "bfloat16")):
        done = madtp("profile", source, "--limit", 2, "--json", "--dtype", dtype)
        assert done.exit_code == 0, done.stderr
        report = json.loads(done.stdout)
        gflops = report["gflops"]
        assert gflops["fvcore"] == pytest.approx(gflops["formula"], rel=1e-9)
        assert (gflops["pruned"] is None) == (source == checkpoint)
        assert sum(layer["gflops"] for layer in report["layers"]) == pytest.approx(gflops["pruned"] or gflops["dense"])
    table = madtp("profile", checkpoint, "--limit", 1).stdout
    assert "fvcore counts" in table
    assert "1 sample of" in table


def test_a_dense_model_is_counted_without_forward_passes(madtp, checkpoint, monkeypatch):
    """256 forward passes of a full-size model take an hour on two cores; the text lengths give the same counts."""
    full = json.loads(madtp("profile", checkpoint, "--limit", 3, "--json").stdout)
    monkeypatch.setattr(run, "run", None)
    done = madtp("profile", checkpoint, "--limit", 3, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == full
    assert full["samples"] == full["gflops"]["fvcore_samples"] == 3
    assert full["gflops"]["dense"] == pytest.approx(full["gflops"]["fvcore"], rel=1e-9)
    assert all(layer["tokens_in"] == layer["tokens_out"] for layer in full["layers"] if layer["tokens_in"])


def test_a_checkpoint_that_was_not_trained_on_the_scenes_is_measured_by_agreement(madtp, checkpoint, small):
    """The labels of the scenes do not fit it, so the figure must not look like an accuracy."""
    state = torch.load(checkpoint, weights_only=True)["model"]
    torch.save({"model": state}, "other.pt")
    tokenizer = ("--tokenizer", checkpoint.parent / "tokenizer")
    done = madtp("compress", "other.pt", *BUDGET, *small, *tokenizer, "--steps", 0)
    assert done.exit_code == 0, done.stderr
    assert "agreement with the dense model, %" in done.stdout
    assert "not trained on the built-in scenes" in done.stdout
    assert "100.00" in done.stdout
    refused = madtp("eval", "other.pt", *tokenizer, "--limit", 2)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--data" in refused.stderr


def test_user_data_gives_the_same_cost_as_the_built_in_scenes(madtp, compressed, checkpoint, dataset):
    """`madtp scenes` writes the built-in scenes as files, and the readers of user data read them."""
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
    """The settings have a documented order of priority."""
    Path("run.yaml").write_text("limit: 2\nbatch_size: 2\n")
    done = madtp("eval", checkpoint, "--config", "run.yaml", *flags, "--json", env=environment)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["quality"]["samples"] == samples


def test_the_same_seed_gives_the_same_result(madtp, checkpoint, small, tmp_path, monkeypatch):
    """Weights and report are equal; --overwrite replaces a folder that madtp wrote."""
    reports, weights = [], []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 1, "--seed", 5, "--json")
        assert done.exit_code == 0, done.stderr
        reports.append(without_times(json.loads(done.stdout)))
        weights.append(load_file("blip-madtp/model.safetensors"))
    assert reports[0] == reports[1]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path / "two")
        replaced = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "--overwrite", "-q")
    assert replaced.exit_code == 0, replaced.stderr


def test_the_streams_of_a_real_process_are_clean(process, checkpoint, small):
    """One JSON document on stdout and plain lines on stderr, even if colour is forced."""
    running = process("compress", checkpoint, *BUDGET, *small, "--steps", 0, "--json", FORCE_COLOR="1", CI="1")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert json.loads(out)["command"] == "compress"
    assert out.count('"schema_version"') == 1
    assert "\r" not in err
    assert "\x1b[?25l" not in err


def test_the_published_architectures_are_listed(madtp) -> None:
    """As lines and as JSON; an unknown name is an error that lists them."""
    listed = madtp("profile", "--list-archs").stdout.split()
    assert {"blip-nlvr-base", "blip-vqa-large", "blip-caption-base", "blip-retrieval-base", "clip-vit-l-14-336"} <= set(
        listed
    )
    assert json.loads(madtp("profile", "--list-archs", "--json").stdout)["architectures"] == listed
    assert "caption" in madtp("profile", "--arch", "clip", "-q").stderr
