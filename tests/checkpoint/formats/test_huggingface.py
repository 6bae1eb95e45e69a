"""Folders of transformers: small models, written by transformers itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError

TOWER = {"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 32, "patch_size": 16}
TEXT = TOWER | {"vocab_size": 60, "max_position_embeddings": 20, "bos_token_id": 58, "eos_token_id": 59}
CLASSES = {"vqa": BlipForQuestionAnswering, "caption": BlipForConditionalGeneration,
           "retrieval": BlipForImageTextRetrieval}  # fmt: skip


def _blip(kind: Any, **vision: Any) -> nn.Module:
    config = BlipConfig(vision_config=VISION | vision, text_config=TEXT, image_text_hidden_size=24)
    return _drawn(kind, config)


def _clip(**text: Any) -> CLIPModel:
    model: CLIPModel = _drawn(CLIPModel, CLIPConfig(vision_config=VISION, text_config=TEXT | text, projection_dim=48))
    return model


def _drawn(kind: Any, config: Any) -> Any:
    """Create a model with random parameters, so that exchanged tensors change the outputs."""
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    return model


def _safetensors(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def _sharded(model: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="200KB")
    assert not (folder / "model.safetensors").exists()


def _pickled(model: Any, folder: Path) -> None:
    """Write a folder as older versions did, with the position numbers among the weights."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    numbers = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    torch.save({**model.state_dict(), **numbers}, folder / "pytorch_model.bin")


def _pickled_shards(model: Any, folder: Path) -> None:
    model.config.save_pretrained(folder)
    weights = model.state_dict()
    file_of_key = {key: f"pytorch_model-{number % 2}.bin" for number, key in enumerate(weights)}
    for file in set(file_of_key.values()):
        torch.save({key: value for key, value in weights.items() if file_of_key[key] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": file_of_key}))


@pytest.mark.parametrize("write", [_safetensors, _sharded, _pickled, _pickled_shards])
def test_the_model_of_a_clip_folder_computes_the_same(
    tmp_path: Path, transformers_model: Callable[[Recognised], Any], write: Callable[[Any, Path], None]
) -> None:
    """The weights may be in different kinds of files."""
    model = _clip()
    write(model, tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert (found.format, found.task, found.refusal, found.notes) == ("transformers folder", "retrieval", None, ())
    words, pixels = torch.tensor([[58, 5, 9, 59]]), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            transformers_model(found)(words, pixels).logits_per_image,
            model(words, pixels).logits_per_image,
            rtol=0,
            atol=1e-6,
        )
    if write is _pickled:
        assert found.dropped == {"position numbers": ["text_model.embeddings.position_ids"]}


@pytest.mark.parametrize("task", CLASSES)
def test_the_model_of_a_blip_folder_has_every_weight(
    tmp_path: Path, transformers_model: Callable[[Recognised], Any], task: str
) -> None:
    """Tied weights are included, which safetensors stores only once."""
    model = _blip(CLASSES[task])
    _safetensors(model, tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert (found.task, found.refusal) == (task, None)
    assert found.config.get("image_text_hidden_size") == (24 if task == "retrieval" else None)
    loaded = transformers_model(found).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_differences_from_the_published_models_are_noted(tmp_path: Path) -> None:
    """The defaults of transformers differ: 8 text heads instead of 12, and a larger epsilon."""
    _safetensors(_blip(BlipForQuestionAnswering, num_attention_heads=4), tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    vision = found.config["vision_config"]
    assert (vision["layer_norm_eps"], vision["num_attention_heads"]) == (1e-5, 4)
    assert any("vision tower has 4 heads of width 32, as config.json states" in note for note in found.notes)
    assert any("epsilon of the vision tower is 1e-05, as config.json states" in note for note in found.notes)
    assert not any("text tower" in note for note in found.notes)


def test_a_given_head_width_replaces_that_of_config_json(tmp_path: Path) -> None:
    """config.json may have the default of transformers by mistake."""
    _safetensors(_blip(BlipForQuestionAnswering, num_attention_heads=4), tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides(head_width=64))
    assert found.config["vision_config"]["num_attention_heads"] == 2
    assert any("vision tower has 2 heads, from the given head width" in note for note in found.notes)
    refusal = formats.recognise(read(tmp_path), CheckpointOverrides(head_width=48)).refusal
    assert refusal is not None
    assert "not a multiple of 48" in refusal


def test_a_head_width_concerns_only_the_towers_of_an_image_encoder() -> None:
    """Its width 160 divides into heads of 80; the text tower that it does not have would have the width 512."""
    config = CLIPVisionConfig(**VISION | {"hidden_size": 160})
    model = CLIPVisionModelWithProjection(config)
    source = Source(Path("images"), "folder", model.state_dict(), config=config.to_dict())
    found = formats.recognise(source, CheckpointOverrides(head_width=80))
    assert (found.task, found.refusal) == ("embedding", None)
    assert not any("text tower" in note for note in found.notes)


def test_the_wrong_eot_token_of_older_folders_is_replaced(tmp_path: Path) -> None:
    """OpenAI's folders on the hub have 2; transformers then takes the largest token id, which is the true [EOT]."""
    _safetensors(_clip(eos_token_id=2), tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert (found.config["text_config"]["bos_token_id"], found.config["text_config"]["eos_token_id"]) == (58, 59)
    assert any("end with token 59" in note for note in found.notes)


@pytest.mark.parametrize("write", [lambda: _clip(), lambda: _blip(BlipForImageTextRetrieval)])
def test_another_image_size_resizes_the_positions(
    tmp_path: Path, transformers_model: Callable[[Recognised], Any], write: Callable[[], Any]
) -> None:
    """2 by 2 patches at 32 pixels are 3 by 3 at 48."""
    _safetensors(write(), tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides(image_size=48))
    assert found.config["vision_config"]["image_size"] == 48
    transformers_model(found)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("instructblip", "Q-Former"), ("clip_text_model", r"model type clip_text_model \(Named\)")],
)  # fmt: skip
def test_another_family_is_refused_with_the_reason(tmp_path: Path, kind: str, reason: str) -> None:
    """config.json is enough to see it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "architectures": ["Named"]}))
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert found.task == kind
    assert re.search(reason, str(found.refusal))


def test_a_part_of_a_model_is_refused(tmp_path: Path) -> None:
    """One tower alone, or both without a head, have no task."""
    _safetensors(_drawn(BlipModel, BlipConfig(vision_config=VISION, text_config=TEXT)), tmp_path / "features")
    assert "without a task head" in str(formats.recognise(read(tmp_path / "features"), CheckpointOverrides()).refusal)
    _safetensors(_drawn(CLIPTextModel, CLIPTextConfig(**TEXT)), tmp_path / "texts")
    assert "clip_text_model" in str(formats.recognise(read(tmp_path / "texts"), CheckpointOverrides()).refusal)
    half = {key: value for key, value in _clip().state_dict().items() if not key.startswith("text_model.")}
    source = Source(Path("half"), "folder", half, config={"model_type": "clip", "architectures": ["CLIPHalf"]})
    assert "CLIPHalf) without text_model" in str(formats.recognise(source, CheckpointOverrides()).refusal)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [(("vision_model.a",), "without their config.json"), (("vision_model.a", "query_tokens"), "BLIP-2")],
)  # fmt: skip
def test_weights_without_their_config_are_refused(keys: tuple[str, ...], reason: str) -> None:
    """The number of heads is in config.json. It is assumed only for files that come without one."""
    weights = {key: torch.zeros(1) for key in (*keys, "text_decoder.bert.a")}
    refusal = formats.recognise(
        Source(Path("model.safetensors"), "safetensors", weights), CheckpointOverrides()
    ).refusal
    assert refusal is not None
    assert reason in refusal


def test_a_folder_without_weights_is_incomplete(tmp_path: Path) -> None:
    """The cache has such folders if only the tokenizer was downloaded."""
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="has a config.json but no weights"):
        formats.recognise(read(tmp_path), CheckpointOverrides())


@pytest.mark.parametrize("side", [[32, 16], "large"])
def test_invalid_settings_are_named(tmp_path: Path, side: Any) -> None:
    """An image size that is not square, and a string instead of a number."""
    _safetensors(_clip(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["image_size"] = side
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json has invalid settings(?s:.)*image_size"):
        formats.recognise(read(tmp_path), CheckpointOverrides())
