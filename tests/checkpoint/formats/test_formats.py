"""Exactly one format recognises a source, by its content."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Source
from madtp_cli.checkpoint.loading import load
from madtp_cli.checkpoint.position_embeddings import grid_side, resize_positions
from madtp_cli.errors import CheckpointError

EXPECTED = {"blip_nlvr_base": "Salesforce BLIP", "blip_vqa_large": "Salesforce BLIP",
            "blip_caption_base": "Salesforce BLIP", "blip_pretrain_base": "Salesforce BLIP",
            "madtp_nlvr_base": "MADTP", "madtp_caption_base": "MADTP", "madtp_clip_vit_l14_336": "MADTP",
            "openai_clip_vit_b16": "OpenAI CLIP"}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_exactly_one_format_recognises_a_file(
    inventory: Callable[[str], Source], recognising_formats: Callable[[Source], list[str]], name: str, expected: str
) -> None:
    """With two, the order of the files in a folder would decide."""
    assert recognising_formats(inventory(name)) == [expected]


@pytest.mark.parametrize("kind", ["madtp_blip", "madtp_clip", "blip", "clip", "siglip"])
def test_exactly_one_format_recognises_a_folder(recognising_formats: Callable[[Source], list[str]], kind: str) -> None:
    """Folders of madtp and of transformers differ only in the model type."""
    weights = {key: torch.zeros(1) for key in ("vision_model.any", "text_encoder.embeddings.any")}
    config = {"model_type": kind, "vision_config": {"image_size": 48}, "text_config": {}}
    source = Source(Path("folder"), "folder", weights, config=config)
    assert len(recognising_formats(source)) == 1


def test_the_error_for_an_unknown_model_lists_keys_and_formats() -> None:
    """The keys show an expert what the file is."""
    source = Source(Path("resnet.pth"), "pickle", {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"resnet\.pth has 2 tensors(?s:.)*conv1\.weight(?s:.)*Salesforce BLIP"):
        formats.recognise(source, CheckpointOverrides())


@pytest.mark.parametrize(
    ("weights", "config", "sign"),
    [
        ({"text_model.a.weight": torch.zeros(2, dtype=torch.int8)}, {"model_type": "clip"}, "text_model.a.weight"),
        ({"text_model.a.weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, None, "text_model.a.weight"),
        ({"visual_encoder.a.qweight": torch.zeros(2, dtype=torch.int32)}, None, "a.qweight"),
        ({"text_model.a.weight": torch.zeros(2), "text_model.a.SCB": torch.zeros(2)}, None, "a.SCB"),
        ({}, {"model_type": "blip", "quantization_config": {"load_in_8bit": True}}, "quantization_config"),
    ],
)
def test_quantised_weights_are_refused(weights: dict[str, Tensor], config: dict[str, Any] | None, sign: str) -> None:
    """They would load as numbers of the wrong scale, and the outputs would be nonsense."""
    refusal = formats.recognise(Source(Path("a"), "folder", weights, config=config), CheckpointOverrides()).refusal
    assert refusal is not None
    assert "quantised" in refusal
    assert sign in refusal


def test_integers_other_than_weights_are_not_quantised_weights(inventory: Callable[[str], Source]) -> None:
    """Position numbers and the pointer of a queue are integers in every retrieval file."""
    assert formats.recognise(inventory("blip_retrieval_base"), CheckpointOverrides()).refusal is None


def test_a_grid_that_is_not_square_is_refused() -> None:
    """Only square images are supported; 12 patches would be 3 by 4."""
    with pytest.raises(CheckpointError, match="12 patches, which is not a square grid"):
        grid_side(12)


def test_positions_on_the_same_grid_do_not_change() -> None:
    """Interpolation to the same size must not smooth them."""
    positions = torch.randn(1, 10, 2)
    assert resize_positions(positions, 48, 16) is positions


def test_a_constant_grid_of_positions_stays_constant() -> None:
    """Interpolation keeps a constant, and [CLS] is not part of the grid."""
    positions = torch.cat([torch.full((1, 1, 3), 5.0), torch.full((1, 9, 3), 2.0)], 1)
    resized = resize_positions(positions, 80, 16)
    assert resized.shape == (1, 26, 3)
    assert resized[:, 0].eq(5).all()
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 25, 3), 2.0))


#: A new format, in one file.
TOY_FORMAT = '''
"""Toy format: tensors of a madtp folder with "toy." before each key, and the configuration in `extras`."""

from madtp_cli.checkpoint.formats import Recognised

NAME = "toy"


def recognise(source, overrides):
    """Recognise a file whose keys begin with "toy."."""
    if not all(key.startswith("toy.") for key in source.weights):
        return None
    weights = {key.removeprefix("toy."): value for key, value in source.weights.items()}
    return Recognised(NAME, source.extras["settings"]["task"], source.extras["settings"], weights)
'''


@pytest.fixture
def toy_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adds one file to the folder of the formats."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY_FORMAT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    yield
    sys.modules.pop("madtp_cli.checkpoint.formats.toy", None)
    vars(formats).pop("toy", None)


@pytest.mark.usefixtures("toy_format")
def test_a_new_format_is_one_file(checkpoint: Path, tmp_path: Path) -> None:
    """A file in the new format is recognised and loaded, and computes the same as the original."""
    original = load(checkpoint)
    weights = {f"toy.{key}": value for key, value in original.model.state_dict().items()}
    torch.save({"model": weights, "settings": original.model.config.to_dict()}, tmp_path / "a.pt")
    loaded = load(tmp_path / "a.pt", tokenizer=checkpoint.parent / "tokenizer")
    assert loaded.inspection.format == "toy"
    assert (loaded.inspection.missing, loaded.inspection.unexpected) == ([], [])
    for key, value in original.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key


def test_formats_have_different_names() -> None:
    """Messages list them, and reports say by name which one a checkpoint has."""
    names = [entry.NAME for entry in formats.all_formats()]
    assert len(set(names)) == len(names)
