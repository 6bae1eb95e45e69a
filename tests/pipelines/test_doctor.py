"""`madtp doctor` describes the environment, also one in which torch does not work."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch

from madtp_cli.evaluation import machine_probe
from madtp_cli.execution import attention
from madtp_cli.pipelines import doctor
from tests.paths import ROOT


def test_a_broken_torch_is_a_problem_and_everything_else_is_shown(tmp_path: Path, madtp, monkeypatch) -> None:
    """Exit code 5 tells a pipeline. Variables that can hold secrets are not shown."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('undefined symbol')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "MADTP_SEED": "3", "HF_TOKEN": "secret"}
    done = madtp("doctor", "--json", env=environment)
    assert done.exit_code == 5
    assert "torch cannot be used: ImportError: undefined symbol" in done.stderr
    found = json.loads(done.stdout)
    assert found["torch"] is None
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["extras"]["export"].keys() == {"onnx", "onnxruntime", "onnxscript"}
    assert found["variables"]["MADTP_SEED"] == "3"
    assert "secret" not in done.stdout
    shown = madtp("doctor", env=environment).stdout
    assert "MADTP_SEED=3" in shown
    assert "Problem: torch cannot be used" in shown


def test_a_torch_that_ends_the_process_is_a_problem(monkeypatch) -> None:
    """A build for another CPU dies of an illegal instruction."""
    monkeypatch.setattr(doctor, "PROBE", "import os; os.abort()")
    assert doctor.doctor().problems == ["torch cannot be used: its process ended with code -6"]


def test_the_probe_tries_each_device() -> None:
    """The flash kernel needs CUDA."""
    found = machine_probe.probe()
    cpu = found.devices[0]
    assert (found.version, cpu.name, cpu.attention["padded"]) == (torch.__version__, "cpu", "works")
    assert "CUDA" in cpu.attention["varlen (flash)"]
    assert "float32" in cpu.fast_formats


def test_an_old_torch_has_no_flash_kernel_on_any_device(monkeypatch) -> None:
    """torch 2.10 has such a function, but not what the execution needs of it."""
    monkeypatch.setattr(attention, "HAS_VARLEN", False)
    with pytest.raises(RuntimeError, match="needs torch 2.11 or newer"):
        machine_probe._varlen("cuda:0")


def test_the_requirements_come_from_the_installed_package_where_there_is_no_checkout(monkeypatch, tmp_path) -> None:
    """A wheel has no pyproject.toml."""
    monkeypatch.setattr(doctor, "PROJECT", tmp_path / "pyproject.toml")
    lines = ["torch>=2.13", 'onnx>=1.19; extra == "export"', "rich"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    found = {extra: [each.name for each in needed] for extra, needed in doctor._requirements().items()}
    assert found == {"": ["torch", "rich"], "export": ["onnx"]}


def test_a_package_that_is_too_old_or_too_new_is_a_problem(monkeypatch, tmp_path) -> None:
    """pip only warns when another package replaces torch or transformers."""
    monkeypatch.setattr(doctor, "PROJECT", tmp_path / "pyproject.toml")
    lines = ["torch>=2.9.1", "transformers>=5.21,<6", "rich>=13"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    versions = {"torch": "2.9.0+cpu", "transformers": "6.0.0", "rich": "15.0.0"}
    monkeypatch.setattr(doctor.metadata, "version", versions.__getitem__)
    monkeypatch.setattr(doctor, "_torch", lambda: (None, []))
    assert doctor.doctor().problems == [
        "torch 2.9.0+cpu does not fit: madtp needs torch>=2.9.1.",
        "transformers 6.0.0 does not fit: madtp needs transformers<6,>=5.21.",
    ]
