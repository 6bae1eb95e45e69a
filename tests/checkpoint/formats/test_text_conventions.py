"""How a BLIP's texts begin: read where the file tells it, otherwise assumed with a note, and the user can state it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval, CLIPConfig, CLIPModel

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, madtp_folder
from madtp_cli.checkpoint.loading import build
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError

TOWER = {"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TOWER | {"image_size": 32, "patch_size": 16}
TEXT = TOWER | {"vocab_size": 60, "max_position_embeddings": 20, "bos_token_id": 58, "eos_token_id": 59}
CLS = 4


def _folder(kind: Any, folder: Path) -> Any:
    torch.manual_seed(5)
    model = kind(BlipConfig(vision_config=VISION, text_config=TEXT, image_text_hidden_size=24)).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.2)
    model.save_pretrained(folder)
    return model


def _notes(found: Recognised, word: str) -> list[str]:
    return [note for note in found.notes if word in note]


def test_a_transformers_folder_matches_as_transformers_does(tmp_path: Path) -> None:
    """Its training and its use in transformers keep [CLS]; with [ENC] it is another model."""
    model = _folder(BlipForImageTextRetrieval, tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert found.config["match_token"] == "cls"
    assert "--match-token enc" in _notes(found, "Matched texts")[0]
    pixels, words = torch.randn(2, 3, 32, 32), torch.tensor([[CLS, 9, 7, 3], [CLS, 8, 6, 3]])
    with torch.no_grad():
        expected = model(words, pixels).itm_score
        torch.testing.assert_close(build(found)(pixels, words).logits, expected, rtol=0, atol=1e-4)
        told = formats.recognise(read(tmp_path), CheckpointOverrides(match_token="enc"))
        assert not torch.allclose(build(told)(pixels, words).logits, expected, atol=1e-3)


def test_a_transformers_folder_has_no_caption_prompt(tmp_path: Path) -> None:
    """It continues [DEC] alone, unless the user states the prompt of its training."""
    _folder(BlipForConditionalGeneration, tmp_path)
    found = formats.recognise(read(tmp_path), CheckpointOverrides())
    assert found.config["prompt"] == ""
    assert _notes(found, "no prompt")
    told = formats.recognise(read(tmp_path), CheckpointOverrides(prompt="a photo of"))
    assert told.config["prompt"] == "a photo of"
    assert _notes(told, "'a photo of', as the user states")
    assert not _notes(told, "no prompt")


def test_a_salesforce_file_has_the_values_of_its_class_and_a_note(inventory: Callable[[str], Source]) -> None:
    """The file cannot tell: BLIP's retrieval class writes [ENC], and its matching class keeps [CLS]."""
    found = formats.recognise(inventory("blip_retrieval_base"), CheckpointOverrides())
    assert found.config["match_token"] == "enc"
    assert "--match-token cls" in _notes(found, "[ENC]")[0]
    told = formats.recognise(inventory("blip_itm_base"), CheckpointOverrides(match_token="cls"))
    assert told.config["match_token"] == "cls"
    assert not _notes(told, "[ENC]")
    captions = formats.recognise(inventory("blip_caption_base"), CheckpointOverrides())
    assert captions.config["prompt"] == "a picture of"
    assert _notes(captions, '"a picture of"')
    assert formats.recognise(inventory("blip_caption_base"), CheckpointOverrides(prompt="")).config["prompt"] == ""


def test_a_result_of_madtp_is_told_once(inventory: Callable[[str], Source]) -> None:
    """The format of such a file asks another format, and the note must not be there twice."""
    source = inventory("blip_retrieval_base")
    weights = {**source.weights, "space_dict": torch.empty(8, 16, device="meta")}
    found = formats.recognise(Source(source.path, "pickle", weights), CheckpointOverrides(match_token="cls"))
    assert found.config["match_token"] == "cls"
    assert len(_notes(found, "as the user states")) == 1


def test_a_folder_of_madtp_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    """The fields are saved in config.json."""
    _folder(BlipForImageTextRetrieval, tmp_path / "transformers")
    build(formats.recognise(read(tmp_path / "transformers"), CheckpointOverrides())).save_pretrained(tmp_path / "ours")
    found = formats.recognise(read(tmp_path / "ours"), CheckpointOverrides())
    assert (found.format, found.config["match_token"]) == (madtp_folder.NAME, "cls")
    assert formats.recognise(read(tmp_path / "ours"), CheckpointOverrides(match_token="enc")).config[
        "match_token"
    ] == "enc"  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (CheckpointOverrides(match_token="cls"), "A clip for retrieval has no match token"),
        (CheckpointOverrides(prompt="a photo of"), "A clip for retrieval has no prompt"),
    ],
)
def test_a_model_without_such_texts_refuses_the_option(tmp_path: Path, overrides, message) -> None:
    """An option that does nothing hides a mistake."""
    CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=48)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        formats.recognise(read(tmp_path), overrides)


def test_a_wrong_value_in_config_json_is_refused() -> None:
    """A typing error must not choose the other token."""
    from madtp_cli.models.blip.retrieval import MadtpBlipForImageTextRetrieval
    from madtp_cli.models.blip.towers import MadtpBlipConfig

    with pytest.raises(ValueError, match="match_token is 'ecn'"):
        MadtpBlipForImageTextRetrieval(MadtpBlipConfig(task="retrieval", match_token="ecn"))
