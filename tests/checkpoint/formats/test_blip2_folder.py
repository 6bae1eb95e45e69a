"""Folders of transformers' BLIP-2: the one for retrieval is read, the others are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from madtp_cli.checkpoint import formats, inspection, loading
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError
from tests import querying
from tests.retrieving import collate, samples
from tests.tasks import words


def original() -> Any:
    """Return transformers' model with the weights of the small model."""
    model = querying.dense()
    config = Blip2Config(
        vision_config=model.config.vision_config.to_dict(),
        qformer_config=model.config.text_config.to_dict(),
        num_query_tokens=5,
        image_text_hidden_size=20,
    )
    theirs = Blip2ForImageTextRetrieval(config).eval()
    theirs.load_state_dict(model.state_dict())
    return theirs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers wrote, with a tokenizer."""
    path: Path = tmp_path_factory.mktemp("blip2") / "folder"
    original().save_pretrained(path)
    words.tokenizer().save_pretrained(path)
    return path


def test_a_folder_of_transformers_gives_the_same_numbers(folder: Path) -> None:
    """No tensor is missing or left over, and the tokenizer is found."""
    found = inspection.inspect(folder)
    assert (found.missing, found.unexpected, found.reshaped, found.refusal) == ([], [], {}, None)
    loaded, batch = loading.load(folder), collate(samples())
    with torch.no_grad():
        ours: Any = loaded.model(**batch)
        theirs = original()(**batch, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(ours.logits, theirs, rtol=0, atol=1e-5)
    assert type(loaded.processor).__name__ == "Blip2Processor"


def test_another_image_size_resizes_the_positions(folder: Path) -> None:
    """6 by 6 patches at 48 pixels are 8 by 8 at 64."""
    found = formats.recognise(read(folder), CheckpointOverrides(image_size=64))
    assert found.weights["vision_model.embeddings.position_embedding"].shape == (1, 65, 48)


@pytest.mark.parametrize(
    ("architecture", "change", "reason"),
    [("Blip2ForConditionalGeneration", dict, "with a language model behind its Q-Former"),
     ("Blip2ForImageTextRetrieval", lambda weights: weights | {"language_projection.bias": torch.ones(1)},
      "language model"),
     ("Blip2Model", lambda weights: {key: value for key, value in weights.items() if "itm_head" not in key},
      "without itm_head")],
)  # fmt: skip
def test_other_models_are_refused_by_name(
    folder: Path, architecture: str, change: Callable[[dict[str, Any]], dict[str, Any]], reason: str
) -> None:
    """The refusal says what would work."""
    source = read(folder)
    config = {**(source.config or {}), "architectures": [architecture]}
    changed = formats.Source(source.path, "folder", change(dict(source.weights)), config=config)
    refusal = str(formats.recognise(changed, CheckpointOverrides()).refusal)
    assert architecture in refusal
    assert reason in refusal
    assert "Blip2ForImageTextRetrieval" in refusal.splitlines()[1]


def test_a_folder_without_weights_or_with_invalid_settings_is_an_error(folder: Path, tmp_path: Path) -> None:
    """The message says what is wrong."""
    settings = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="no weights"):
        formats.recognise(read(tmp_path), CheckpointOverrides())
    settings["qformer_config"]["hidden_size"] = "wide"
    source = formats.Source(tmp_path, "folder", read(folder).weights, config=settings)
    with pytest.raises(CheckpointError, match="invalid settings"):
        formats.recognise(source, CheckpointOverrides())


def test_position_numbers_of_older_folders_are_left_out(folder: Path) -> None:
    """They are whole numbers, which no model has as weights."""
    source, key = read(folder), "embeddings.position_ids"
    older = formats.Source(source.path, "folder", {**source.weights, key: torch.arange(16)[None]}, config=source.config)
    found = formats.recognise(older, CheckpointOverrides())
    assert found.dropped == {"position numbers": [key]}
    assert key not in found.weights


def test_given_heads_and_activation_are_used(folder: Path) -> None:
    """48 / 12 = 4 heads of the image tower, 32 / 16 = 2 of the Q-Former."""
    given = CheckpointOverrides(head_width={"vision": 12, "text": 16}, activation="quick_gelu")
    config = formats.recognise(read(folder), given).config
    assert [config[f"{tower}_config"]["num_attention_heads"] for tower in ("vision", "text")] == [4, 2]
    assert [config[f"{tower}_config"]["hidden_act"] for tower in ("vision", "text")] == ["quick_gelu"] * 2
    assert "not a multiple of 12" in str(formats.recognise(read(folder), CheckpointOverrides(head_width=12)).refusal)


def test_impossible_architectures_do_not_stop_the_reading(folder: Path) -> None:
    """A number stands where a list of names belongs; nothing of the model depends on it."""
    source = read(folder)
    config = {**(source.config or {}), "architectures": 5}
    changed = formats.Source(source.path, "folder", source.weights, config=config)
    assert formats.recognise(changed, CheckpointOverrides()).refusal is None
