"""Loading: the file is read once, and the model has its weights."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import madtp_cli
from madtp_cli.checkpoint import reading
from madtp_cli.checkpoint.inspection import inspect
from madtp_cli.checkpoint.loading import LoadedCheckpoint, load
from madtp_cli.checkpoint.save import save
from madtp_cli.errors import CheckpointError


@pytest.fixture
def weights(nlvr_file: Path) -> dict[str, torch.Tensor]:
    """The tensors of the golden file."""
    state: dict[str, torch.Tensor] = torch.load(nlvr_file, weights_only=True)["model"]
    return state


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The weight files that are read during the test, in order; a file that is read twice is listed twice."""
    files: list[Path] = []
    for name in ("unpickle", "read_torchscript", "_read_safetensors"):
        original: Callable[..., Any] = getattr(reading, name)

        def read(path: Path, *arguments: Any, original: Callable[..., Any] = original) -> Any:
            files.append(path)
            return original(path, *arguments)

        monkeypatch.setattr(reading, name, read)
    return files


def test_loading_reads_a_file_once(nlvr_file: Path, vocabulary: Path, files_read: list[Path]) -> None:
    """Published checkpoints have gigabytes."""
    load(nlvr_file, tokenizer=vocabulary, head_width=16)
    assert files_read == [nlvr_file]


def test_loading_reads_the_weights_of_a_folder_once(
    loaded: LoadedCheckpoint, tmp_path: Path, files_read: list[Path]
) -> None:
    """The package's own `load` is used, since it is the public function."""
    save(loaded.model, loaded.processor, tmp_path / "out")
    madtp_cli.load(tmp_path / "out")
    assert files_read == [tmp_path / "out/model.safetensors"]


def test_a_command_reads_the_checkpoint_once(
    madtp: Callable[..., Result], checkpoint: Path, files_read: list[Path]
) -> None:
    """The notes of the checkpoint, which are shown before the result, need no second read."""
    result = madtp("eval", checkpoint, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert files_read == [checkpoint]
    assert "attention heads of width 64" in result.stderr


def test_the_notes_are_returned_with_the_model(
    weights: dict[str, torch.Tensor], vocabulary: Path, tmp_path: Path
) -> None:
    """They state what was assumed, and how many tensors the model does not use."""
    torch.save({"model": {**weights, "extra.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", tokenizer=vocabulary, head_width=16)
    assumed, left_out = loaded.notes
    assert "attention heads of width 16 (as given)" in assumed
    assert "does not use 1 tensors of the file, such as extra.weight" in left_out
    assert loaded.inspection.unexpected == ["extra.weight"]
    assert loaded.inspection.notes == [assumed]


def test_the_public_load_logs_the_notes(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It returns the model and the processor alone. Only a note about tensors left out is a warning."""
    shutil.copytree(checkpoint.parent, tmp_path / "copy")
    content = torch.load(checkpoint, weights_only=True)
    content["model"]["extra.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "copy/blip.pt")
    with caplog.at_level(logging.INFO, "madtp_cli"):
        model, processor = madtp_cli.load(tmp_path / "copy/blip.pt")
    assert not model.training
    assert len(processor.tokenizer) == model.config.text_config.vocab_size
    levels = {record.levelname: record.getMessage() for record in caplog.records}
    assert "attention heads of width 64" in levels["INFO"]
    assert "does not use 1 tensors" in levels["WARNING"]


def test_files_in_half_precision_are_loaded_in_float32(
    weights: dict[str, torch.Tensor], vocabulary: Path, tmp_path: Path
) -> None:
    """The example checkpoints are stored in half precision to be small; half precision is slow on a CPU."""
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    torch.save({"model": halved}, tmp_path / "half.pt")
    assert inspect(tmp_path / "half.pt", head_width=16).precision == "float16"
    assert load(tmp_path / "half.pt", tokenizer=vocabulary, head_width=16).model.dtype == torch.float32


def test_another_image_size_changes_model_and_processor(nlvr_file: Path, vocabulary: Path) -> None:
    """A processor of the old size would give the model more patches than it has positions."""
    loaded = load(nlvr_file, tokenizer=vocabulary, head_width=16, image_size=64)
    assert loaded.model.config.vision_config.image_size == 64
    assert loaded.model.vision_model.embeddings.position_embedding.shape == (1, 17, 48)
    assert dict(loaded.processor.image_processor.size)["height"] == 64


def test_the_configuration_has_the_special_tokens_of_the_tokenizer(loaded: LoadedCheckpoint) -> None:
    """They are not in the file, and the defaults of transformers are other tokens."""
    text = loaded.model.config.text_config
    assert (text.bos_token_id, text.sep_token_id, text.eos_token_id, text.pad_token_id) == (598, 102, 102, 0)


def test_a_loaded_model_does_not_share_memory_with_the_file(nlvr_file: Path, vocabulary: Path, tmp_path: Path) -> None:
    """Tensors can be views of a mapped file; training would then change the file."""
    file = tmp_path / "a.pth"
    shutil.copy(nlvr_file, file)
    before = file.read_bytes()
    model = load(file, tokenizer=vocabulary, head_width=16).model
    with torch.no_grad():
        model.get_parameter("cls_head.0.weight").zero_()
    again = load(file, tokenizer=vocabulary, head_width=16).model
    assert again.get_parameter("cls_head.0.weight").abs().sum() > 0
    assert file.read_bytes() == before


def test_a_missing_tensor_is_an_error(weights: dict[str, torch.Tensor], vocabulary: Path, tmp_path: Path) -> None:
    """The original code gives it random values without a message."""
    del weights["cls_head.2.bias"]
    torch.save({"model": weights}, tmp_path / "a.pth")
    assert inspect(tmp_path / "a.pth", head_width=16).missing == ["cls_head.2.bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors(?s:.)*cls_head\.2\.bias"):
        load(tmp_path / "a.pth", tokenizer=vocabulary, head_width=16)


def test_a_tensor_with_a_wrong_shape_is_an_error(
    weights: dict[str, torch.Tensor], vocabulary: Path, tmp_path: Path
) -> None:
    """The message has both shapes. The original code ignores such a tensor without a message."""
    weights["cls_head.2.weight"] = torch.zeros(3, 32)
    torch.save({"model": weights}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"cls_head\.2\.weight has shape \[3, 32\](?s:.)*\[2, 32\]"):
        load(tmp_path / "a.pth", tokenizer=vocabulary, head_width=16)


def test_invalid_settings_are_an_error(loaded: LoadedCheckpoint, tmp_path: Path) -> None:
    """config.json may have been edited by hand."""
    save(loaded.model, loaded.processor, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["vision_config"]["num_attention_heads"] = 7
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not divide into 7 heads"):
        load(tmp_path / "out")


@pytest.mark.parametrize("task", ["tidying", None])
def test_a_folder_for_an_unknown_task_is_an_error(loaded: LoadedCheckpoint, tmp_path: Path, task: str | None) -> None:
    """The message lists the models that there are."""
    save(loaded.model, loaded.processor, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    (tmp_path / "out/config.json").write_text(json.dumps({**config, "task": task}))
    with pytest.raises(CheckpointError, match=rf"no model blip for {task}(?s:.)*blip for nlvr2"):
        load(tmp_path / "out")
