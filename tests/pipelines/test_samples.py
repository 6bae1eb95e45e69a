"""`--samples-out`: one record per sample, whose means are the figures of the report."""

from __future__ import annotations

import json
import sys
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import madtp_cli
from madtp_cli.errors import DataError, OutputError, UsageError
from madtp_cli.evaluation import sample_files, session
from madtp_cli.reporting.samples import SampleRecord
from madtp_cli.reporting.schema import CompressReport
from tests.paths import EXAMPLES

#: Samples of a tiny model that differ in cost and score.
SMALL: Any = {"limit": 12, "batch_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def compressed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompressReport, Path]:
    """A folder that `compress` wrote, its report, and a Parquet file of its samples."""
    folder = tmp_path_factory.mktemp("results")
    file = folder / "samples.parquet"
    report = madtp_cli.compress(
        checkpoint, gflops_budget=0.7, steps=0, output=folder / "pruned", samples_out=file, **SMALL
    )
    return folder / "pruned", report, file


def mean_score(records: list[SampleRecord], model: str) -> float:
    """Return the quality that the scores give."""
    return 100 * fsum(getattr(record.score, model) for record in records) / len(records)


def test_the_means_of_the_records_are_the_figures_of_the_report(compressed) -> None:
    """A script that computes with the records must find the published figures again, to the last digit."""
    folder, report, _ = compressed
    records = sample_files.read(folder / "samples.jsonl")
    assert len(records) == report.quality.samples == 12
    assert np.mean([record.gflops.dense for record in records]) == report.gflops.dense
    assert np.mean([record.gflops.pruned for record in records]) == report.gflops.pruned
    assert len({record.gflops.pruned for record in records}) > 1
    assert (mean_score(records, "dense"), mean_score(records, "pruned")) == (
        report.quality.dense,
        report.quality.pruned,
    )
    for tower, layers in report.tokens.items():
        tokens = np.array([record.tokens[tower] for record in records])  # [samples, inputs, blocks + 1]
        assert tokens.reshape(-1, len(layers) + 1).mean(0).tolist() == [
            layers[0].tokens_in,
            *(layer.tokens_out for layer in layers),
        ]


def test_parquet_has_the_same_records(compressed) -> None:
    """Data frames read it; only the format differs."""
    folder, _, file = compressed
    assert sample_files.read(file) == sample_files.read(folder / "samples.jsonl")


def test_eval_and_profile_write_the_same_samples(compressed, tmp_path) -> None:
    """The pruned model is that of compress. Dense is the same model with pruning switched off: without fine-tuning,
    the dense model of compress.
    """
    folder, _, file = compressed
    evaluated, profiled = tmp_path / "eval.jsonl", tmp_path / "profile.jsonl"
    report = madtp_cli.evaluate(folder, samples_out=evaluated, **SMALL)
    records = sample_files.read(evaluated)
    assert (mean_score(records, "pruned"), len(records)) == (report.quality.value, 12)
    assert records == sample_files.read(file)
    madtp_cli.profile(folder, samples_out=profiled, fvcore_check=False, **SMALL)
    assert sample_files.read(profiled) == records


def test_a_dense_checkpoint_has_no_pruned_figures(checkpoint, tmp_path) -> None:
    """Nothing is pruned; every tower keeps its tokens."""
    file = tmp_path / "dense.jsonl"
    report = madtp_cli.profile(checkpoint, samples_out=file, fvcore_check=False, **SMALL)
    records = sample_files.read(file)
    assert np.mean([record.gflops.dense for record in records]) == report.gflops.dense
    assert {record.gflops.pruned for record in records} == {None}
    assert {record.prediction.dense for record in records} <= {0, 1}
    assert all(len(set(tokens)) == 1 for record in records for inputs in record.tokens.values() for tokens in inputs)


def test_without_labels_the_score_is_the_agreement(compressed, tmp_path, monkeypatch) -> None:
    """As in the report of a checkpoint that was trained on other data."""
    monkeypatch.setattr(session, "SCENES", "other data")
    madtp_cli.profile(compressed[0], samples_out=tmp_path / "samples.jsonl", fvcore_check=False, **SMALL)
    for record in sample_files.read(tmp_path / "samples.jsonl"):
        same = float(record.prediction.dense == record.prediction.pruned)
        assert (record.score.dense, record.score.pruned) == (1.0, same)


def test_the_queries_of_retrieval_belong_to_their_image(tmp_path) -> None:
    """An image has one answer, and each of its texts has one; the scores give the mean recall."""
    file = tmp_path / "retrieval.jsonl"
    report = madtp_cli.evaluate(EXAMPLES / "clip.pt", limit=6, samples_out=file, device="cpu")
    records = sample_files.read(file)
    predictions = [record.prediction.dense for record in records]
    assert [len(answers) for answers in predictions if isinstance(answers, list)] == [6] * 6
    assert mean_score(records, "dense") == report.quality.value


def test_records_are_replaced_and_other_files_are_not(compressed, tmp_path) -> None:
    """A CI job runs again; a user's file with the same name is not lost."""
    records = sample_files.read(compressed[2])
    for name in ("again.jsonl", "again.parquet"):
        sample_files.write(tmp_path / name, records)
        sample_files.write(tmp_path / name, records[:3])
        assert sample_files.read(tmp_path / name) == records[:3]
    for content in ('{"id": 1}\n', "", "\udcff"):
        (tmp_path / "own.jsonl").write_text(content, "utf-8", "surrogateescape")
        with pytest.raises(OutputError, match=r"own\.jsonl exists"):
            sample_files.check(tmp_path / "own.jsonl")


def test_a_wrong_record_is_named_with_its_row(compressed, tmp_path) -> None:
    """The file may have been edited or cut."""
    lines = (compressed[0] / "samples.jsonl").read_text("utf-8").splitlines()
    wrong = json.dumps(json.loads(lines[1]) | {"gflops": {"dense": "much"}})
    for second in (wrong, lines[1][:40]):
        (tmp_path / "cut.jsonl").write_text("\n".join([lines[0], second]), "utf-8")
        with pytest.raises(DataError, match="row 2"):
            sample_files.read(tmp_path / "cut.jsonl")


def test_other_endings_and_a_missing_package_are_refused(checkpoint, tmp_path, monkeypatch) -> None:
    """Before the model is loaded."""
    with pytest.raises(UsageError, match=r"samples_out: .* must end with \.jsonl or \.parquet"):
        madtp_cli.evaluate(checkpoint, samples_out=tmp_path / "samples.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow"):
        madtp_cli.evaluate(checkpoint, samples_out=tmp_path / "samples.parquet")
    with pytest.raises(UsageError, match="`samples_out` needs samples"):
        madtp_cli.profile(arch="blip-nlvr-base", samples_out=tmp_path / "samples.jsonl")
    with pytest.raises(UsageError, match="Timing needs samples, so it cannot be used with `arch`"):
        madtp_cli.profile(arch="blip-nlvr-base", batch_sizes=[1])
