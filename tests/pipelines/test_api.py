"""The functions of `madtp_cli` do what the commands do, with typed keyword arguments."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Required, get_args, get_origin, get_type_hints

import pytest
from PIL import Image

import madtp_cli
from madtp_cli.config import CompressSettings, EvalSettings, RunSettings
from madtp_cli.config.keywords import CompressKeywords, EvalKeywords, RunKeywords
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError, MadtpError, UsageError
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.pipelines import evaluate as evaluate_pipeline
from madtp_cli.pipelines import profile as profile_pipeline
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CompressReport, EvalReport, ProfileReport
from tests.paths import ROOT

#: Keyword arguments with which a function takes a second.
SMALL: Any = {"limit": 8, "batch_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def compressed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompressReport]:
    """A folder that `compress` wrote, and its report."""
    folder = tmp_path_factory.mktemp("results") / "pruned"
    return folder, madtp_cli.compress(checkpoint, gflops_budget=0.7, steps=0, output=folder, **SMALL)


def test_compress_writes_a_folder_and_returns_the_report(compressed) -> None:
    """The report is the one in the folder."""
    folder, report = compressed
    assert isinstance(report, CompressReport)
    assert report == CompressReport.model_validate_json((folder / "report.json").read_text("utf-8"))
    assert report.budget.requested == "0.7"
    assert report.settings["gflops_budget"] == "0.7"
    assert report.quality.groups == report.quality.samples == 8
    points = [point for point in report.curve if point.threshold_scale == report.threshold_scale]
    assert [point.share for point in points] == [report.budget.achieved_share]


def test_load_takes_a_text_or_a_path(compressed) -> None:
    """And returns the model and its processor."""
    for source in (compressed[0], str(compressed[0])):
        model, processor = madtp_cli.load(source)
        assert isinstance(model, MadtpBlipForNLVR2)
        assert type(processor).__name__ == "MadtpBlipProcessor"
        assert not model.training


def test_load_resizes_the_position_embeddings(compressed) -> None:
    """The processor prepares images of the new size, also for a saved folder; the model takes them."""
    model, processor = madtp_cli.load(compressed[0], image_size=72)
    image = Image.new("RGB", (90, 70))
    inputs = processor(images=[image, image], text="red", return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 2, 3, 72, 72)
    assert model(**inputs).logits.shape == (1, 2)


def test_evaluate_returns_the_quality(compressed) -> None:
    """It is the quality that `compress` reported."""
    folder, report = compressed
    evaluated = madtp_cli.evaluate(str(folder), **SMALL)
    assert isinstance(evaluated, EvalReport)
    assert (evaluated.quality.value, evaluated.quality.groups) == (report.quality.pruned, 8)


def test_profile_counts_a_checkpoint_or_an_architecture(compressed) -> None:
    """fvcore and the formula agree."""
    counted = madtp_cli.profile(compressed[0], limit=2, batch_sizes=[2], device="cpu")
    assert isinstance(counted, ProfileReport)
    assert counted.gflops.fvcore == pytest.approx(counted.gflops.formula, rel=1e-9)
    assert [part.batch_size for part in counted.latency] == [2]
    unchecked = madtp_cli.profile(compressed[0], limit=2, device="cpu", fvcore_check=False).gflops
    assert (unchecked.fvcore, unchecked.fvcore_samples, unchecked.pruned) == (None, 0, counted.gflops.pruned)
    published = madtp_cli.profile(arch="clip-vit-b-16", text_tokens=20)
    assert published.gflops.dense == pytest.approx(published.gflops.fvcore)


def test_profile_of_sorted_data_checks_the_cost_of_the_same_samples(checkpoint, tmp_path) -> None:
    """The samples for fvcore are chosen at random; here each has a text of another length."""
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    rows = [{"images": ["0.png", "0.png"], "sentence": "red " * number, "label": "True"} for number in range(1, 31)]
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    counted = madtp_cli.profile(checkpoint, data=tmp_path, device="cpu").gflops
    assert counted.fvcore_samples < len(rows)
    assert counted.fvcore == pytest.approx(counted.formula, rel=1e-9)


def test_export_writes_a_file(compressed, tmp_path) -> None:
    """The ending of the file chooses the format."""
    pytest.importorskip("madtp_cli.pipelines.export")
    report = madtp_cli.export(compressed[0], tmp_path / "blip.pt2")
    assert (report.format, report.file) == ("torch-export", str(tmp_path / "blip.pt2"))
    assert (tmp_path / "blip.pt2").stat().st_size > 0


#: The package without types: the calls below are wrong on purpose, and type checkers see it.
API: Any = madtp_cli


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: API.compress("x.pt", gflop_budget=0.2), "Did you mean gflops_budget?"),
        (lambda: API.compress("x.pt", gflops_budget=0.2, step=1), "Did you mean steps?"),
        (lambda: API.evaluate("x.pt", splits="val"), "Did you mean split?"),
        (lambda: API.profile("x.pt", batch_size_s=[1]), "Did you mean batch_sizes?"),
        (lambda: API.evaluate("x.pt", steps=1), "steps is not a keyword argument of this function"),
        (lambda: API.compress("x.pt"), "gflops_budget is missing."),
        (lambda: API.compress("x.pt", gflops_budget="much"), "gflops_budget: 'much' is no budget."),
        (lambda: API.compress("x.pt", gflops_budget=2), "2G (2 GFLOPs per sample) or 2%"),
        (lambda: API.evaluate("x.pt", limit=0), "limit: 0 cannot be used"),
    ],
)
def test_a_wrong_keyword_or_value_is_a_usage_error(call: Callable[[], Any], message: str) -> None:
    """The message uses the Python name, and suggests the most similar one."""
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)


def test_errors_name_keyword_arguments(compressed, tmp_path, monkeypatch) -> None:
    """Also their notes, and the hint of a file in the way. Commands for a terminal are not changed."""
    folder, report = compressed
    calls = [
        (lambda: API.compress(report.checkpoint, gflops_budget=0.7, output=folder), "`overwrite=True`"),
        (lambda: API.export(folder, folder / "report.json", format="onnx"), '`format="onnx"`'),
        (
            lambda: API.load(report.checkpoint, gflops_budget=0.5),
            r"`gflops_budget` cannot .* CHECKPOINT --gflops-budget 0\.2",
        ),
        (lambda: API.evaluate(folder, k_test=3), r"Leave out `k_test`\."),
        (lambda: API.show(folder, images=["a.png"], text="x"), "`images=LEFT`"),
    ]
    for call, message in calls:
        with pytest.raises(MadtpError, match=f"(?s){message}"):
            call()

    def stopped(*given: object) -> None:
        error = KeyboardInterrupt()
        error.add_note("Continue with --resume.")
        raise error

    monkeypatch.setattr(evaluate_pipeline, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt) as ended:
        API.evaluate(folder)
    assert ended.value.__notes__ == ["Continue with `resume=True`."]


def test_a_missing_label_ends_a_run_at_its_start(checkpoint, monkeypatch) -> None:
    """Not after the fine-tuning."""
    monkeypatch.setattr(Schema, "is_labelled", lambda schema, row: False)
    calls = [
        lambda: API.compress(checkpoint, gflops_budget=0.7, **SMALL),
        lambda: API.plan("compress", checkpoint, gflops_budget=0.7, **SMALL),
        lambda: API.evaluate(checkpoint, **SMALL),
        lambda: API.compare(checkpoint, methods="tome", budgets="0.8", **SMALL),
    ]
    for call in calls:
        with pytest.raises(DataError, match="Only 0 of 8 test samples"):
            call()
    assert not Path("blip-comparison").exists()


@pytest.mark.parametrize(
    ("keywords", "settings"),
    [(RunKeywords, RunSettings), (EvalKeywords, EvalSettings), (CompressKeywords, CompressSettings)],
)
def test_the_keywords_are_the_fields_of_the_settings(keywords, settings) -> None:
    """Type checkers see the keywords, so they must have the same names and the same literals."""
    hints, written = get_type_hints(keywords), get_type_hints(keywords, include_extras=True)
    assert hints.keys() == settings.model_fields.keys()
    for name, field in settings.model_fields.items():
        assert literals(hints[name]) == literals(field.annotation), name
        assert (get_origin(written[name]) is Required) == field.is_required(), name


def literals(hint: Any) -> set[Any]:
    """Return the values of all `Literal` types in a type."""
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return set().union(*(literals(argument) for argument in get_args(hint)))


def test_profile_has_the_parameters_of_its_pipeline() -> None:
    """The settings are keyword arguments; all other parameters are written out."""
    pipeline = inspect.signature(profile_pipeline.profile).parameters.keys() - {"settings"}
    assert pipeline == inspect.signature(madtp_cli.profile).parameters.keys() - {"settings"}


def test_environment_variables_do_not_apply(compressed, monkeypatch) -> None:
    """The result of a script depends on its arguments only."""
    monkeypatch.setenv("MADTP_LIMIT", "2")
    monkeypatch.setenv("MADTP_NO_SETTING", "1")
    assert madtp_cli.evaluate(compressed[0], **SMALL).quality.samples == 8


def test_progress_is_silent_by_default(compressed, capfd) -> None:
    """True shows bars on standard error; a reporter receives the calls."""
    madtp_cli.evaluate(compressed[0], **SMALL)
    assert capfd.readouterr() == ("", "")
    madtp_cli.evaluate(compressed[0], progress=True, **SMALL)
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"Evaluating the model: .* 8/8", err)

    class Recorder(ProgressReporter):
        def __init__(self) -> None:
            self.stages: list[str] = []

        def start(self, stage: str, total: int) -> None:
            self.stages.append(stage)

    recorder = Recorder()
    madtp_cli.evaluate(compressed[0], progress=recorder, **SMALL)
    assert recorder.stages == ["Loading the checkpoint", "Reading the data", "Evaluating the model"]


def test_importing_the_package_loads_no_libraries() -> None:
    """A script may import it for an error class alone."""
    code = "import sys, madtp_cli; print(*({'torch', 'transformers', 'pydantic', 'numpy'} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
