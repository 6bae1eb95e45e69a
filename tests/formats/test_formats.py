"""One format for each source, chosen by content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli import checkpoint, formats
from madtp_cli.errors import CheckpointError
from madtp_cli.formats import Source, Told

EXPECTED = {"blip_nlvr_base": "Salesforce BLIP", "blip_vqa_base": "Salesforce BLIP", "madtp_nlvr_base": "MADTP",
            "madtp_clip_vit_l14_336": "MADTP", "openai_clip_vit_b16": "OpenAI CLIP"}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_one_format_claims_a_source(
    inventory: Callable[[str], Source], claims: Callable[[Source], list[Any]], name: str, expected: str
) -> None:
    """With two, the order of files in a folder would decide."""
    assert claims(inventory(name)) == [expected]


@pytest.mark.parametrize("kind", ["madtp_blip", "blip", "siglip"])
def test_one_format_claims_a_folder(claims: Callable[[Source], list[Any]], kind: str) -> None:
    """Ours and transformers' differ in the model type alone."""
    source = Source(Path("folder"), "folder", {"any": torch.zeros(1)}, config={"model_type": kind})
    assert len(claims(source)) == 1


def test_an_unknown_model_names_its_keys_and_what_is_known() -> None:
    """The keys tell an expert at once what it is."""
    source = Source(Path("resnet.pth"), "pickle", {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"resnet\.pth: 2 tensors(?s:.)*conv1\.weight(?s:.)*Salesforce BLIP"):
        formats.recognise(source, Told())


def test_a_torchscript_archive_is_refused_with_the_reason(tmp_path: Path) -> None:
    """OpenAI's CLIPs come so; torch.load has only a page of advice to give."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("clip/code/__torch__.py", "")
        archive.writestr("clip/data.pkl", "")
    with pytest.raises(CheckpointError, match="TorchScript archive, as OpenAI's CLIP"):
        checkpoint.load(tmp_path / "clip.pt")


def test_a_resnet_clip_is_refused_with_the_reason() -> None:
    """It has no tokens, so no later version will take it either."""
    source = Source(Path("rn50.pt"), "pickle", {"visual.layer1.0.conv1.weight": torch.zeros(1)})
    refusal = formats.recognise(source, Told()).refusal
    assert refusal is not None
    assert "no tokens to prune" in refusal


def test_a_transformers_folder_is_refused_with_its_architecture(tmp_path: Path) -> None:
    """The library has no NLVR2 model, so the folder cannot be one."""
    (tmp_path / "config.json").write_text('{"model_type": "siglip", "architectures": ["SiglipModel"]}')
    with pytest.raises(CheckpointError, match=r"model type siglip \(SiglipModel\)"):
        checkpoint.load(tmp_path)
    assert checkpoint.inspect(tmp_path).task == "siglip"


def test_a_grid_that_is_no_square_is_refused() -> None:
    """BLIP's images are square; 12 patches would be 3 by 4."""
    with pytest.raises(CheckpointError, match="12 patch positions are no square grid"):
        formats.grid_side(12)


def test_positions_on_the_same_grid_are_untouched() -> None:
    """Resizing by nothing must not smooth anything."""
    positions = torch.randn(1, 10, 2)
    assert formats.resize_positions(positions, 48, 16) is positions


def test_a_constant_position_grid_stays_constant() -> None:
    """Any interpolation keeps a constant; [CLS] is no part of the grid."""
    positions = torch.cat([torch.full((1, 1, 3), 5.0), torch.full((1, 9, 3), 2.0)], 1)
    resized = formats.resize_positions(positions, 80, 16)
    assert resized.shape == (1, 26, 3)
    assert resized[:, 0].eq(5).all()
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 25, 3), 2.0))
