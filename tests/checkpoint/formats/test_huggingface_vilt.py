"""Folders of transformers' ViLT: NLVR2 and VQA are read, the other classes are refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViltForImageAndTextRetrieval

from madtp_cli.checkpoint import formats, inspection, loading
from madtp_cli.checkpoint.formats import CheckpointOverrides
from madtp_cli.checkpoint.reading import read
from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import CheckpointError
from madtp_cli.tasks import prepared
from tests import vilts
from tests.tasks import words


def written(task: str, folder: Path) -> Path:
    """Write a folder with transformers, and a tokenizer."""
    vilts.original(vilts.dense(task)).save_pretrained(folder)
    words.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", ["nlvr2", "vqa"])
def test_a_folder_of_transformers_gives_the_same_numbers(task: str, tmp_path: Path) -> None:
    """No tensor is missing or left over, and the answers are read."""
    folder = written(task, tmp_path / "folder")
    found = inspection.inspect(folder)
    assert (found.task, found.missing, found.unexpected, found.reshaped) == (task, [], [], {})
    loaded, batch = loading.load(folder), vilts.collate(vilts.samples(task))
    with torch.no_grad():
        ours: Any = loaded.model(**batch)
        theirs = vilts.original(vilts.dense(task))(**batch)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-5)
    assert loaded.model.config.answers == (vilts.ANSWERS if task == "vqa" else None)
    assert type(loaded.processor).__name__ == "ViltProcessor"


def test_another_class_is_refused_by_name(tmp_path: Path) -> None:
    """The refusal says what would work."""
    ViltForImageAndTextRetrieval(vilts.config("vqa").flat()).save_pretrained(tmp_path / "folder")
    refusal = str(formats.recognise(read(tmp_path / "folder"), CheckpointOverrides()).refusal)
    assert "ViltForImageAndTextRetrieval" in refusal
    assert "ViltForQuestionAnswering" in refusal.splitlines()[1]


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    """The message says what is missing."""
    folder = written("vqa", tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        formats.recognise(read(folder), CheckpointOverrides())


def changed(
    *, config: dict[str, Any] | None = None, weights: dict[str, Any] | None = None, **overrides: Any
) -> formats.Recognised:
    """Return what is recognised in a folder for VQA with other settings or tensors."""
    theirs = vilts.original(vilts.dense("vqa"))
    source = formats.Source(
        Path("folder"),
        "folder",
        {**theirs.state_dict(), **(weights or {})},
        config={**theirs.config.to_dict(), **(config or {})},
    )
    return formats.recognise(source, CheckpointOverrides(**overrides))


def test_position_numbers_of_older_folders_are_left_out() -> None:
    """Published files have them; they are whole numbers, which no model has as weights."""
    key = "vilt.embeddings.text_embeddings.position_ids"
    found = changed(weights={key: torch.arange(16)[None]})
    assert (found.refusal, found.dropped) == (None, {"position numbers": [key]})
    assert key not in found.weights


def test_given_heads_and_activation_are_used_for_the_only_tower() -> None:
    """48 / 12 = 4 heads in place of 3, for the words too."""
    found = changed(head_width=12, activation="quick_gelu")
    for part in (found.config["vision_config"], found.config["text_config"]):
        assert (part["num_attention_heads"], part["hidden_act"]) == (4, "quick_gelu")
    assert "48 is not a multiple of 7" in str(changed(head_width=7).refusal)
    assert "the same blocks" in str(changed(head_width={"text": 12}).refusal)
    assert changed(head_width={"vision": 12}).config["text_config"]["num_attention_heads"] == 4


def test_warnings_of_transformers_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """It warns about a padding token outside the vocabulary, which changes nothing here."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert changed(config={"pad_token_id": 100}).refusal is None
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []


def test_a_limit_of_patches_is_refused() -> None:
    """transformers draws the patches at random then, so its numbers cannot be kept."""
    refusal = str(changed(config={"max_image_length": 200}).refusal)
    assert "only 200 patches" in refusal
    assert "max_image_length to -1" in refusal.splitlines()[1]


def test_a_classifier_of_another_rank_is_a_damaged_file() -> None:
    """config.json is not to blame."""
    with pytest.raises(CheckpointError, match=r"classifier\.0\.weight has shape"):
        changed(weights={"classifier.0.weight": torch.zeros(96)})


def test_the_vqa_task_scores_the_answers_of_the_list(tmp_path: Path) -> None:
    """By hand: 2 of 3 people say red and one says blue. The official rule compares with each two of them."""
    from PIL import Image

    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    loaded = loading.load(written("vqa", tmp_path / "folder"))
    image, answers = ImageFile(tmp_path / "a.png"), ("red", "red", "blue")
    row = Row("a", images=(image,), text="what is the red ?", references=answers)
    task = prepared("vqa", loaded.processor, _no_answers(), config=loaded.model.config)
    batch = task.collate([row], loaded.processor)
    scores = dict(zip(vilts.ANSWERS, batch["labels"][0].tolist(), strict=True))
    assert scores["red"] > scores["blue"] > 0
    assert scores["yes"] == 0
    with torch.no_grad():
        output: Any = loaded.model(**{name: value for name, value in batch.items() if name != "labels"})
    assert task.predict(loaded.model, output, batch) == [vilts.ANSWERS[int(output.logits.argmax())]]
    assert task.score(loaded.model, ["red"], [row]).scores == [pytest.approx(scores["red"])]
    # The official rule takes "2" and "The Red" for these answers, so training teaches them.
    other = Row("b", images=(image,), text="how many ?", references=("2", "The Red"))
    batch = task.collate([other], loaded.processor)
    assert dict(zip(vilts.ANSWERS, batch["labels"][0].tolist(), strict=True))["two"] == 0.5
    assert task.score(loaded.model, ["two"], [other]).scores == [0.5]


def _no_answers() -> Any:
    """Return a data set without a list of answers."""

    class Data:
        answers = ()

    return Data()
