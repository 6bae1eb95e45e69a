"""Wrong values and paths fail before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

CODE = """
import sys
from madtp_cli.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    print(end.code, sorted({"torch", "transformers"} & {*sys.modules}))
"""
BUDGET = ("--gflops-budget", "0.5")


@pytest.mark.parametrize(
    ("code", "reason", "command"),
    [
        (2, "'0.2x' is no budget", ("compress", "blip.pt", "--gflops-budget", "0.2x")),
        (2, "Did you mean madtp?", ("compress", "blip.pt", *BUDGET, "--method", "madpt")),
        (2, "Did you mean retrieval?", ("eval", "blip.pt", "--task", "retreival")),
        (2, "Did you mean train?", ("eval", "blip.pt", "--split", "trian")),
        (2, "Did you mean float32?", ("profile", "blip.pt", "--dtype", "flaot32")),
        (2, "Did you mean cuda?", ("eval", "blip.pt", "--device", "cudda")),
        (2, "Did you mean onnx?", ("export", "blip.pt", "blip.onnx", "--format", "onxx")),
        (2, "Did you mean clip-vit-b-32?", ("profile", "--arch", "clip-vitb-32")),
        (3, "no image file missing.png", ("show", "blip.pt", "--image", "missing.png", "--text", "a")),
        (3, "no file or folder missing.pt", ("show", "missing.pt", "--image", "blip.pt", "--text", "a")),
        (3, "no file or folder missing", ("rerun", "missing")),
        (2, "Did you mean caption?", ("data", "blip.pt", "--task", "captoin")),
        (2, "Did you mean caption?", ("scenes", "new", "--task", "captoin")),
        (3, "no file or folder missing.pt", ("compress", "missing.pt", *BUDGET)),
        (3, "no file or folder missing.pt", ("eval", "missing.pt")),
        (3, "no file or folder missing.pt", ("profile", "missing.pt")),
        (3, "no file or folder missing.pt", ("inspect", "missing.pt")),
        (3, "no file or folder missing.pt", ("export", "missing.pt", "blip.onnx")),
        (3, "hf download some/model", ("inspect", "some/model")),
        (3, "no file or folder nowhere", ("eval", "blip.pt", "--data", "nowhere")),
        (3, "no file or folder nowhere", ("data", "nowhere")),
        (6, "--overwrite", ("compress", "blip.pt", *BUDGET, "-o", "full")),
        (6, "--overwrite", ("export", "blip.pt", "full/file.onnx")),
    ],
)
def test_a_wrong_value_fails_before_torch_is_imported(tmp_path: Path, code: int, reason: str, command) -> None:
    """The import takes ten seconds on some machines."""
    (tmp_path / "blip.pt").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file.onnx").touch()
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert reason in done.stderr
    assert done.stdout == f"{code} []\n"


def test_control_characters_are_escaped_on_stderr(madtp) -> None:
    """A terminal would execute them."""
    done = madtp("inspect", "a\x1b]0;title\x07.pt")
    assert done.exit_code == 3
    assert "a\\x1b]0;title\\x07.pt" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_url_is_called_a_url(madtp, tmp_path: Path) -> None:
    """Nothing is downloaded."""
    (tmp_path / "blip.pt").touch()
    assert "https://host/x.pt is a URL" in madtp("inspect", "https://host/x.pt").stderr
    done = madtp("eval", tmp_path / "blip.pt", "--data", "https://host/x.json")
    assert "https://host/x.json is a URL" in done.stderr
