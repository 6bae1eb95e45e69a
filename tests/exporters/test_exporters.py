"""Exported files: they need no madtp, prune by the data, and give the model's answers at any batch size."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli import exporters, models
from madtp_cli.errors import CheckError, UsageError
from madtp_cli.exporters import _checking, _tracing, torch_export
from madtp_cli.exporters import onnx as onnx_files
from madtp_cli.models.prunable import Prunable
from tests import decoding, drawing, retrieving

#: Runs a .pt2 where madtp and transformers cannot be imported.
ALONE = """
import sys
sys.modules["madtp_cli"] = sys.modules["transformers"] = None
import torch
inputs, outputs = sys.argv[2:]
found = torch.export.load(sys.argv[1]).module()(**torch.load(inputs))
torch.save(found, outputs)
"""


def shallow(model: Prunable) -> Prunable:
    """The model with one block per tower: every block more takes seconds to trace."""
    config = copy.deepcopy(model.config)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    config.merge_from = 0
    made = type(model)(config).eval()
    drawing.draw(made, seed=1)
    return made


def pruned(model: Prunable, method: str = "madtp") -> Prunable:
    """As `compress` leaves it, in miniature."""
    settings = dict(queries=5, scales={"text": [0.0]}) if method == "madtp" else dict(proportional=False)
    return drawing.attached(shallow(model), 0.4, method=method, **settings)


@pytest.fixture(scope="module")
def model(blip) -> Prunable:
    """BLIP for NLVR2, its one image block pruned."""
    return pruned(blip)


@pytest.fixture(scope="module")
def program(model) -> ExportedProgram:
    """Its graph, which both formats write."""
    return _tracing.traced(model)


def test_a_traced_model_is_left_as_it_was(model, program) -> None:
    """Whoever exports a model may go on with it."""
    assert not model.padded
    assert "dictionary" in dict(model.madtp.named_parameters())
    assert all(value.requires_grad for value in model.parameters())


def test_sizes_are_free_and_named(program) -> None:
    """What a user of the file may choose, and what comes out."""
    inputs, outputs = _tracing.shapes(program)
    assert inputs == {
        "pixel_values": ["samples", 2, 3, 48, 48],
        "input_ids": ["samples", "tokens"],
        "attention_mask": ["samples", "tokens"],
    }
    assert outputs == {"logits": ["samples", 2], "kept_vision": ["samples", 2, 1]}


def test_a_pt2_runs_without_madtp(model, program, tmp_path) -> None:
    """At a batch size it was not traced with, where neither our package nor transformers can be imported."""
    torch_export.write(program, tmp_path / "model.pt2")
    inputs = _tracing.drawn(model, 3, 9, seed=5)
    torch.save(inputs, tmp_path / "inputs")
    paths = [str(tmp_path / name) for name in ("model.pt2", "inputs", "outputs")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *paths], check=True, capture_output=True)
    with torch.no_grad():
        expected = _tracing.named(model, model(**inputs))
    found = torch.load(tmp_path / "outputs")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_an_onnx_file_gives_the_models_answers(model, program, tmp_path) -> None:
    """In onnxruntime at batches of 1, 3 and 5 with ragged texts; images keep numbers of tokens of their own."""
    pytest.importorskip("onnxruntime", reason="pip install 'madtp[export]'")
    onnx_files.write(program, tmp_path / "model.onnx")
    run = onnx_files.runner(tmp_path / "model.onnx")
    checked = _checking.check(model, run)
    assert checked.difference <= 1e-4
    assert checked.samples == 9
    assert checked.kept is not None
    assert checked.kept[0] < checked.kept[1]
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert {value.name: value.shape for value in session.get_inputs()} == _tracing.shapes(program)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["madtp", "madtp-paper"])
@pytest.mark.parametrize("kind", models.kinds())
def test_every_kind_is_exported(kind, method, blip, clip, tmp_path) -> None:
    """Decoders teacher-forced, retrieval with its embeddings, CLIP with more images than texts."""
    makers: dict[str, Callable[[], Prunable]] = {
        "blip.nlvr2": lambda: blip,
        "clip.retrieval": lambda: clip,
        "blip.vqa": decoding.vqa,
        "blip.caption": decoding.captioner,
        "blip.retrieval": retrieving.dense,
    }
    model = pruned(makers[kind](), method)
    if hasattr(model, "text_decoder"):  # logits of about one, though words are embedded by large numbers
        model.text_decoder.cls.predictions.transform.LayerNorm.weight.data *= 0.1
    torch_export.write(_tracing.traced(model), tmp_path / "model.pt2")
    run = torch_export.runner(tmp_path / "model.pt2")
    checked = _checking.check(model, run)
    assert checked.difference <= 1e-4
    assert checked.kept is not None
    if model.ALL_PAIRS:
        images, texts = _tracing.drawn(model, 4, 6, seed=1), _tracing.drawn(model, 2, 6, seed=2)
        both = {**texts, "pixel_values": images["pixel_values"]}
        with torch.no_grad():
            torch.testing.assert_close(run(both)["logits"], model(**both).logits, rtol=0, atol=1e-4)


def answers(model: Prunable, off_by: float = 0.0) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """A file that is right, or whose logits are not."""

    @torch.no_grad()
    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = _tracing.named(model, model(**inputs))
        return found | {"logits": found["logits"] + off_by}

    return run


def test_the_check_passes_what_is_right(model) -> None:
    """It reports what it measured, on ragged texts."""
    checked = _checking.check(model, answers(model, 5e-5))
    assert checked.difference == pytest.approx(5e-5, rel=0.1)
    assert checked.tokens[0] < checked.tokens[1]


@pytest.mark.parametrize("off_by", [2e-4, float("nan")])
def test_the_check_stops_what_is_wrong(model, off_by) -> None:
    """A check that cannot fail guards nothing; NaN is no answer either."""
    with pytest.raises(CheckError, match="logits differs"):
        _checking.check(model, answers(model, off_by))


def test_the_check_sees_tokens_that_should_have_gone(model) -> None:
    """A graph that prunes nothing gives nearly the model's answers, and no saving."""
    dense = copy.deepcopy(model)
    dense.attach(type(model.pruning)(**{**model.config.madtp, "threshold_scale": 1e-9}))
    with pytest.raises(CheckError):
        _checking.check(model, answers(dense))


def test_what_a_user_of_the_file_should_know_is_said(model) -> None:
    """A file of a model that writes has no search in it, and half precision would double in size unexplained."""
    assert exporters._notes(model) == []
    assert exporters._notes(decoding.captioner()) == [exporters.LOOPS]
    (note,) = exporters._notes(copy.deepcopy(model).bfloat16())
    assert "bfloat16" in note


def test_formats_are_the_files_of_the_folder() -> None:
    """A new one is a new file; an unknown one is told which there are."""
    assert exporters.names() == ["onnx", "torch-export"]
    with pytest.raises(UsageError, match="onnx, torch-export"):
        exporters.get("tflite")


def test_what_is_missing_is_named_with_its_remedy(monkeypatch) -> None:
    """The packages are optional, so many will not have them."""
    monkeypatch.setattr(onnx_files, "NEEDS", ("onnx", "no_such_runtime"))
    with pytest.raises(UsageError, match=r"needs no_such_runtime.\nInstall: pip install 'madtp\[export\]'"):
        onnx_files.require()
