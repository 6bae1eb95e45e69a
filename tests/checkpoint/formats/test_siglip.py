"""SigLIP folders of transformers and of OpenCLIP, and relatives that are refused by name."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel

from examples.training.vocabularies import siglip_tokenizer
from madtp_cli.checkpoint import formats, loading, processors
from madtp_cli.checkpoint.formats import CheckpointOverrides, Source
from madtp_cli.checkpoint.inspection import compare, inspect
from madtp_cli.errors import CheckpointError
from tests import siglips
from tests.paths import GOLDEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP as transformers writes it, with its processor."""
    place = tmp_path_factory.mktemp("siglip")
    tokenizer = siglip_tokenizer(16)
    config = SiglipConfig(
        vision_config=dict(siglips.VISION), text_config={**siglips.TEXT, "vocab_size": len(tokenizer)}
    )
    SiglipModel(config).save_pretrained(place)
    processors.build(loading.model_config({**config.to_dict(), "model_type": "madtp_siglip", "task": "retrieval"}),
                     tokenizer).save_pretrained(place)  # fmt: skip
    return place


def _edited(folder: Path, target: Path, file: str, **fields: Any) -> Path:
    """Return a copy of a folder with other fields at the top level of a JSON file."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text()) | fields
    (target / file).write_text(json.dumps(content))
    return target


def test_a_folder_of_transformers_loads_and_gives_its_outputs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Weights, activation and image settings are those of the folder, without a warning of transformers."""
    loaded = loading.load(folder)
    published = SiglipModel.from_pretrained(folder).eval()
    pixels = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    ids = loaded.processor.tokenizer(
        ["A red seven!", "two rings"], padding="max_length", max_length=16, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        ours, theirs = loaded.model(pixels, ids), published(pixel_values=pixels, input_ids=ids)
    torch.testing.assert_close(ours.logits, theirs.logits_per_image, rtol=0, atol=1e-5)
    assert loaded.inspection.towers["vision"]["tokens"] == 36
    assert loaded.inspection.format == "transformers folder of SigLIP"
    assert loaded.processor.image_processor.image_mean == (0.5, 0.5, 0.5)
    assert "bos_token_id" not in capfd.readouterr().err


def test_texts_are_cleaned_as_the_first_siglip_was_trained(folder: Path) -> None:
    """Lower case, no punctuation; padding stands on the right, so that the last position is padding."""
    tokenizer = loading.load(folder).processor.tokenizer
    plain, written = (tokenizer(text, padding="max_length", max_length=9)["input_ids"] for text in ("a red ring",
                      "A  red, ring!"))  # fmt: skip
    assert plain == written
    assert plain[-1] == tokenizer.pad_token_id == 1


def test_another_image_size_resizes_all_positions(folder: Path) -> None:
    """There is no [CLS] whose embedding stays."""
    found = loading.recognise(folder, CheckpointOverrides(image_size=64))
    assert found.weights["vision_model.embeddings.position_embedding.weight"].shape == (64, 48)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("siglip2", "NaFlex"), ("mobileclip", "model type mobileclip"), ("siglip", "without text_model")],
)
def test_relatives_are_refused_by_name(folder: Path, tmp_path: Path, kind: str, reason: str) -> None:
    """The reason and what would work."""
    weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if "text" not in key}
    config = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
    found = formats.recognise(Source(folder, "folder", weights, config=config), CheckpointOverrides())
    assert reason in str(found.refusal)
    assert "Give a" in str(found.refusal)


@pytest.mark.parametrize(
    ("tower", "reason"),
    [
        ("fastvit_mci2", "a MobileCLIP"),
        ("vit_base_mci_224", "a MobileCLIP"),
        ("eva02_base_patch16_clip_224", "an EVA-CLIP"),
        ("naflexvit_base_patch16_siglip", "NaFlex"),
        ("vit_base_patch16_siglip_gap_224", "without attention pooling"),
        ("resnet50", "no plain vision transformer"),
    ],
)
def test_other_image_towers_of_timm_are_refused_by_name(tmp_path: Path, tower: str, reason: str) -> None:
    """Their folders have the same files as those of SigLIP."""
    model = json.loads((GOLDEN / "open_clip_d" / "open_clip_config.json").read_text())["model_cfg"]
    model["vision_cfg"]["timm_model_name"] = tower
    target = _edited(GOLDEN / "open_clip_d", tmp_path / "model", "open_clip_config.json", model_cfg=model)
    assert reason in str(inspect(target).refusal)


def test_a_config_that_disagrees_with_the_weights_is_refused(tmp_path: Path) -> None:
    """The first three disagreements are named."""
    model = json.loads((GOLDEN / "open_clip_d" / "open_clip_config.json").read_text())["model_cfg"]
    model["embed_dim"], model["text_cfg"]["layers"], model["text_cfg"]["width"] = 80, 3, 128
    target = _edited(GOLDEN / "open_clip_d", tmp_path / "model", "open_clip_config.json", model_cfg=model)
    refusal = str(inspect(target).refusal)
    assert "embed_dim is 80, the weights have 72" in refusal
    assert refusal.count(";") == 2


@pytest.mark.parametrize(
    ("tower", "reason"),
    [("vit_so400m_patch16_siglip_256", "tokens of 1152 channels, the weights have 768"),
     ("vit_base_patch16_siglip_384", "a grid of 24 patches wide, the weights have 14"),
     ("vit_base_patch32_siglip_256", "patches of 32 pixels, the weights have 16")],
)  # fmt: skip
def test_an_image_tower_of_another_name_is_refused(tower: str, reason: str) -> None:
    """The heads and the activation follow from the name, and no tensor shows them."""
    file = GOLDEN / "open_clip_inventory" / "open_clip_vit_b16_siglip.json.gz"
    content = json.loads(gzip.decompress(file.read_bytes()))
    weights = {key: torch.empty(shape, device="meta") for key, (shape, _) in content["state_dict"].items()}
    content["open_clip_config"]["model_cfg"]["vision_cfg"]["timm_model_name"] = tower
    source = Source(file, "safetensors", weights, open_clip=content["open_clip_config"])
    assert reason in str(formats.recognise(source, CheckpointOverrides()).refusal)


def test_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    """It would change the model."""
    model = json.loads((GOLDEN / "open_clip_d" / "open_clip_config.json").read_text())["model_cfg"]
    model["vision_cfg"]["timm_proj"] = "linear"
    target = _edited(GOLDEN / "open_clip_d", tmp_path / "model", "open_clip_config.json", model_cfg=model)
    with pytest.raises(CheckpointError, match="timm_proj"):
        inspect(target)


def test_siglip_of_open_clip_without_its_config_is_named(tmp_path: Path) -> None:
    """Its heads and its activation stand only in the config."""
    shutil.copy(GOLDEN / "open_clip_d/open_clip_model.safetensors", tmp_path / "model.safetensors")
    assert "SigLIP of OpenCLIP" in str(inspect(tmp_path / "model.safetensors").refusal)


@pytest.mark.parametrize("file", sorted((GOLDEN / "open_clip_inventory").iterdir()), ids=lambda file: file.name)
def test_every_key_of_published_models_has_a_place(file: Path) -> None:
    """Full-size inventories of OpenCLIP: nothing is missing, unexpected or of another shape."""
    content = json.loads(gzip.decompress(file.read_bytes()))
    weights = {key: torch.empty(shape, device="meta") for key, (shape, _) in content["state_dict"].items()}
    source = Source(file, "safetensors", weights, open_clip=content["open_clip_config"])
    found = compare(file, formats.recognise(source, CheckpointOverrides()))
    assert (found.refusal, found.missing, found.unexpected, found.reshaped) == (None, [], [], {})
    assert found.matched > 300
