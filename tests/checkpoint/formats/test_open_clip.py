"""Folders and files of OpenCLIP: the config is followed or refused, and outputs equal those of the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from madtp_cli import models
from madtp_cli.checkpoint import loading, processors
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.image_settings import image_settings
from madtp_cli.checkpoint.inspection import inspect
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.pixels import pixel_values
from madtp_cli.errors import CheckpointError
from tests.paths import GOLDEN
from tests.tasks import words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a folder with a plain CLIP."""
    return Path(shutil.copytree(GOLDEN / "open_clip_a", tmp_path / "model"))


def _edit(folder: Path, part: str | None, **fields: Any) -> None:
    """Change fields of the config, of the model itself or of one of its parts."""
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    target = content["model_cfg"] if part is None else content["model_cfg"][part]
    target.update(fields)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("case", ["a", "b", "c", "d", "f", "g"])
def test_outputs_equal_those_of_open_clip(case: str) -> None:
    """The activation, the heads, the end of a text and the projection with bias move the outputs by 8e-3 or more."""
    folder = GOLDEN / f"open_clip_{case}"
    model = loading.build(loading.recognise(folder, CheckpointOverrides()))
    inputs, outputs = load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")
    pixels, ids = inputs["pixel_values"].float(), inputs["token_ids"]
    with torch.no_grad():
        images = model.get_image_features(pixels).pooler_output
        texts = model.get_text_features(ids).pooler_output
        logits = model(pixels, ids).logits
    torch.testing.assert_close(images, outputs["image_features"], rtol=0, atol=5e-5)
    torch.testing.assert_close(texts, outputs["text_features"], rtol=0, atol=5e-5)
    torch.testing.assert_close(logits, outputs["logits_per_image"], rtol=0, atol=5e-5)


def test_a_trainer_checkpoint_next_to_the_config_is_read(folder: Path) -> None:
    """The trainer writes {"state_dict"} with the prefix of data-parallel training."""
    weights = load_file(folder / "open_clip_model.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, folder / "e.pt")
    found = inspect(folder / "e.pt")
    assert (found.format, found.refusal, found.missing, found.unexpected) == ("OpenCLIP", None, [], [])
    assert any("after epoch 3" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "ResNet"),
        ("coca_ViT-B-32", "CoCa"),
        ("convnext_base", "ConvNeXt"),
        ("roberta-ViT-B-32", "hf_model_name"),
    ],
)
def test_other_towers_are_refused_by_name(name: str, reason: str, tmp_path: Path) -> None:
    """Their towers have no tokens, or are not OpenCLIP's own."""
    shutil.copy(GOLDEN / "open_clip_e" / name / "open_clip_config.json", tmp_path)
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    assert reason in (inspect(tmp_path).refusal or "")


@pytest.mark.parametrize(
    ("part", "fields", "named"),
    [
        ("vision_cfg", {"ls_init_value": 0.1}, "ls_init_value"),
        ("vision_cfg", {"attentional_pool": True}, "attentional_pool"),
        ("vision_cfg", {"head_width": 0}, "head_width"),
        ("text_cfg", {"pool_type": "last"}, "pool_type"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
        ("text_cfg", {"heads": "four"}, "heads"),
        (None, {"new_part": 1}, "new_part"),
        (None, {"init_logit_bias": -10}, "init_logit_bias"),
    ],
)
def test_a_field_that_cannot_be_followed_is_refused_by_name(
    folder: Path, part: str | None, fields: dict[str, Any], named: str
) -> None:
    """Ignoring it would compress another model than the one that was given."""
    _edit(folder, part, **fields)
    with pytest.raises(CheckpointError, match=named):
        inspect(folder)


def test_the_first_three_disagreements_are_named(folder: Path) -> None:
    """Config and weights of different models lie in one folder."""
    _edit(folder, "vision_cfg", layers=5, width=80)
    _edit(folder, "text_cfg", context_length=9)
    refusal = inspect(folder).refusal or ""
    assert "vision_cfg.width is 80, the weights have 72" in refusal
    assert refusal.count(";") == 2


def test_a_given_head_width_must_divide_each_tower(folder: Path) -> None:
    """24 divides the image tower's 72 but not the text tower's 64; widths by tower are taken."""
    assert "text width 64" in (inspect(folder, head_width=24).refusal or "")
    assert inspect(folder, head_width={"vision": 36}).towers["vision"]["heads"] == 2


def test_custom_text_without_its_config_is_named(folder: Path) -> None:
    """Its heads and its activation stand only in the config."""
    path = Path(shutil.copy(GOLDEN / "open_clip_c/open_clip_model.safetensors", folder.parent))
    assert "CustomTextCLIP" in (inspect(path).refusal or "")


@pytest.mark.parametrize("case", ["a", "b", "c", "d"])
def test_images_equal_those_of_open_clip(case: str) -> None:
    """The mean, the deviation and the way of resizing (cut or squash) of each config, bit for bit."""
    folder = GOLDEN / f"open_clip_{case}"
    config = loading.model_config(loading.recognise(folder, CheckpointOverrides()).config)
    family = models.family_of(config)
    settings = image_settings(folder, family.image_settings, family.resize_modes)
    processor = processors.build(config, words.tokenizer(), settings)
    found = pixel_values([ImageFile(GOLDEN / "open_clip_preprocess" / "image_a.png")], processor.image_processor)
    assert torch.equal(found[0], load_file(folder / "preprocess.safetensors")["pixel_values"].reshape(found[0].shape))


def test_a_grey_image_equals_that_of_open_clip() -> None:
    """It becomes RGB before it is resized here, and afterwards there."""
    config = loading.model_config(loading.recognise(GOLDEN / "open_clip_a", CheckpointOverrides()).config)
    images = processors.build(config, words.tokenizer()).image_processor
    found = pixel_values([ImageFile(GOLDEN / "open_clip_preprocess" / "image_a_L.png")], images)
    assert torch.equal(found[0], load_file(GOLDEN / "open_clip_preprocess" / "grey.safetensors")["mode.L"])


@pytest.mark.parametrize("side", [48, 96])
def test_resized_positions_equal_those_of_open_clip(side: int) -> None:
    """From 4 by 4 patches to 3 by 3 and to 6 by 6, with the library's antialiasing."""
    found = loading.recognise(GOLDEN / "open_clip_a", CheckpointOverrides(image_size=side))
    expected = load_file(GOLDEN / "open_clip_a" / "pos_resize.safetensors")[f"visual.positional_embedding.{side}px"]
    key = models.family_of(found.config).position_key
    torch.testing.assert_close(found.weights[key], expected, rtol=0, atol=1e-6)
