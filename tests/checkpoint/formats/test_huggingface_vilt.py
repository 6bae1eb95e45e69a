"""Folders of transformers' ViLT: NLVR2 and VQA are read, the other classes are refused by name."""

from __future__ import annotations

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


def _no_answers() -> Any:
    """Return a data set without a list of answers."""

    class Data:
        answers = ()

    return Data()
