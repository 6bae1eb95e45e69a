"""Exported files: they need no madtp, prune by the data, and compute the model's outputs at any batch size."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli import exporters, models
from madtp_cli.config import PointSettings
from madtp_cli.errors import CheckError, UsageError
from madtp_cli.exporters import onnx as onnx_format
from madtp_cli.exporters import torch_export
from madtp_cli.exporters._checking import compare_outputs
from madtp_cli.exporters._random_inputs import random_inputs
from madtp_cli.exporters._tracing import input_and_output_shapes, named_outputs, trace
from madtp_cli.models.prunable import Prunable
from madtp_cli.pipelines import export as pipeline
from tests import decoding, drawing, encoders, querying, retrieving, siglips, vilts

#: Runs a .pt2 file where madtp and transformers cannot be imported.
RUN_WITHOUT_MADTP = """
import sys
sys.modules["madtp_cli"] = sys.modules["transformers"] = None
import torch
inputs, outputs = sys.argv[2:]
result = torch.export.load(sys.argv[1]).module()(**torch.load(inputs))
torch.save(result, outputs)
"""

#: A new export format, in one file.
TOY_FORMAT = '''
"""Toy format: the archive of torch.export under another ending."""

import io

import torch

SUFFIX = ".toy"
PREPARING_SECONDS, WRITING_TIME, WRITING_PASSES, CHECKING_TIME = 1.0, 1.0, 0, 1.0


def require():
    """Do nothing: only torch is needed."""


def write(program, file):
    """Write the archive."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    file.write_bytes(buffer.getvalue())


def runner(file):
    """Read the archive."""
    module = torch.export.load(io.BytesIO(file.read_bytes())).module()
    return lambda inputs: module(**inputs)
'''


def with_one_block(model: Prunable) -> Prunable:
    """Return a model with one block per tower, since tracing takes seconds per block."""
    config = copy.deepcopy(model.config)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    config.merge_from = 0
    small = type(model)(config).eval()
    drawing.draw(small, seed=1)
    return small


def pruned(model: Prunable, method: str = "madtp") -> Prunable:
    """Return a small model that is pruned as by `madtp compress`."""
    settings = dict(queries=5, scales={"text": [0.0]}) if method == "madtp" else dict(proportional=False)
    return drawing.attached(with_one_block(model), 0.4, method=method, **settings)


@pytest.fixture(scope="module")
def model(blip) -> Prunable:
    """BLIP for NLVR2 with one pruned image block."""
    return pruned(blip)


@pytest.fixture(scope="module")
def program(model) -> ExportedProgram:
    """The graph of the model, which every format can write."""
    return trace(model)


@pytest.fixture
def toy_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Adds one file to the folder of the export formats; returns the name of the format."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "toy_archive.py").write_text(TOY_FORMAT)
    monkeypatch.setattr(exporters, "__path__", [*exporters.__path__, str(folder)])
    yield "toy-archive"
    sys.modules.pop("madtp_cli.exporters.toy_archive", None)
    vars(exporters).pop("toy_archive", None)


def test_tracing_does_not_change_the_model(model, program) -> None:
    """The model can be used afterwards."""
    assert not model.padded
    assert "dictionary" in dict(model.madtp.named_parameters())
    assert all(value.requires_grad for value in model.parameters())


def test_free_sizes_have_names(program) -> None:
    """They tell a user of the file which sizes may be chosen."""
    inputs, outputs = input_and_output_shapes(program)
    assert inputs == {
        "pixel_values": ["samples", 2, 3, 48, 48],
        "input_ids": ["samples", "tokens"],
        "attention_mask": ["samples", "tokens"],
    }
    assert outputs == {"logits": ["samples", 2], "kept_vision": ["samples", 2, 1]}


def test_a_pt2_file_runs_without_madtp(model, program, tmp_path) -> None:
    """The batch size differs from the traced one, and neither madtp nor transformers can be imported."""
    torch_export.write(program, tmp_path / "model.pt2")
    inputs = random_inputs(model, 3, 9, seed=5)
    torch.save(inputs, tmp_path / "inputs")
    paths = [str(tmp_path / name) for name in ("model.pt2", "inputs", "outputs")]
    subprocess.run([sys.executable, "-I", "-c", RUN_WITHOUT_MADTP, *paths], check=True, capture_output=True)
    with torch.no_grad():
        expected = named_outputs(model, model(**inputs))
    outputs = torch.load(tmp_path / "outputs")
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_an_onnx_file_computes_the_outputs_of_the_model(model, program, tmp_path) -> None:
    """It runs in onnxruntime at batch sizes 1, 3 and 5 with texts of different lengths."""
    pytest.importorskip("onnxruntime", reason="pip install 'madtp[export]'")
    onnx_format.write(program, tmp_path / "model.onnx")
    check = compare_outputs(model, onnx_format.runner(tmp_path / "model.onnx"))
    assert check.max_difference <= 1e-4
    assert check.samples == 9
    assert check.kept_image_tokens is not None
    assert check.kept_image_tokens.least < check.kept_image_tokens.most
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert {value.name: value.shape for value in session.get_inputs()} == input_and_output_shapes(program)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["madtp", "madtp-paper", "madtp-released"])
@pytest.mark.parametrize("kind", models.kinds())
def test_every_model_can_be_exported(kind, method, blip, clip, tmp_path) -> None:
    """Decoders run with teacher forcing, retrieval models return embeddings, CLIP takes more images than texts."""
    makers: dict[str, Callable[[], Prunable]] = {
        "blip.nlvr2": lambda: blip,
        "clip.retrieval": lambda: clip,
        "blip.vqa": decoding.vqa,
        "blip.caption": decoding.captioner,
        "blip.retrieval": retrieving.dense,
        "blip2.retrieval": querying.dense,
        "siglip.retrieval": siglips.dense,
        "clip.classification": lambda: encoders.for_task(clip, "classification"),
        "siglip.classification": lambda: encoders.for_task(siglips.dense(), "classification"),
        "clip.embedding": lambda: encoders.for_task(clip, "embedding"),
        "siglip.embedding": lambda: encoders.for_task(siglips.dense(), "embedding"),
        "vilt.nlvr2": lambda: vilts.dense("nlvr2"),
        "vilt.vqa": lambda: vilts.dense("vqa"),
    }
    model = pruned(makers[kind](), method)
    if hasattr(model, "text_decoder"):  # scales the logits to about one
        model.text_decoder.cls.predictions.transform.LayerNorm.weight.data *= 0.1
    torch_export.write(trace(model), tmp_path / "model.pt2")
    run = torch_export.runner(tmp_path / "model.pt2")
    check = compare_outputs(model, run)
    assert check.max_difference <= 1e-4
    assert check.kept_image_tokens is not None
    if model.ALL_PAIRS:
        images, texts = random_inputs(model, 4, 6, seed=1), random_inputs(model, 2, 6, seed=2)
        inputs = {**texts, "pixel_values": images["pixel_values"]}
        with torch.no_grad():
            torch.testing.assert_close(run(inputs)["logits"], model(**inputs).logits, rtol=0, atol=1e-4)


def runner_of(model: Prunable, error: float = 0.0) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Return a stand-in for the runner of a file, whose logits have the given error."""

    @torch.no_grad()
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = named_outputs(model, model(**inputs))
        return outputs | {"logits": outputs["logits"] + error}

    return run


def test_the_check_passes_correct_outputs(model) -> None:
    """It reports the largest difference, and texts have different lengths."""
    check = compare_outputs(model, runner_of(model, 5e-5))
    assert check.max_difference == pytest.approx(5e-5, rel=0.1)
    assert check.text_tokens is not None
    assert check.text_tokens.least < check.text_tokens.most


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_the_check_fails_for_wrong_outputs(model, error) -> None:
    """NaN is wrong, too."""
    with pytest.raises(CheckError, match="logits differs"):
        compare_outputs(model, runner_of(model, error))


def test_the_check_fails_if_nothing_is_pruned(model) -> None:
    """Such a graph computes nearly the same logits, but saves nothing."""
    dense = copy.deepcopy(model)
    dense.attach(type(model.pruning)(**{**model.config.madtp, "threshold_scale": 1e-9}))
    with pytest.raises(CheckError):
        compare_outputs(model, runner_of(dense))


def test_the_notes_for_users_of_the_file(model) -> None:
    """They explain that there is no generation, and why a file of half-precision weights is twice as large."""
    assert pipeline._notes(model) == []
    assert pipeline._notes(decoding.captioner()) == [pipeline.GENERATION_NOTE]
    (note,) = pipeline._notes(copy.deepcopy(model).bfloat16())
    assert "bfloat16" in note


def test_the_formats_are_the_files_of_the_folder() -> None:
    """The error for an unknown format lists them."""
    assert exporters.names() == ["onnx", "torch-export"]
    with pytest.raises(UsageError, match="onnx, torch-export"):
        exporters.get("tflite")


def test_a_new_format_is_one_file(toy_format: str, checkpoint: Path, tmp_path: Path) -> None:
    """The ending of the output selects it, and its file is checked like any other."""
    assert exporters.names() == ["onnx", "torch-export", toy_format]
    report = pipeline.export(checkpoint, tmp_path / "model.toy", PointSettings())
    assert report.format == toy_format
    assert report.size_bytes == (tmp_path / "model.toy").stat().st_size
    assert report.check.max_difference <= report.check.tolerance


def test_the_error_for_a_missing_package_has_the_remedy(monkeypatch) -> None:
    """The packages are optional."""
    monkeypatch.setattr(onnx_format, "PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(UsageError, match=r"needs no_such_runtime.\nInstall: .* -m pip install no_such_runtime"):
        onnx_format.require()
