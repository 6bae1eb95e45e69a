"""The NLVR2 task: its batches, predictions and scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor

from madtp_cli import tasks
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.models.blip.family import FAMILY
from madtp_cli.tasks.nlvr2 import STATEMENT
from tests.paths import ROOT

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "ring", "is", "there", ","]


@pytest.fixture
def tokenizer() -> BertTokenizer:
    """A tokenizer with eleven words, [DEC] and [ENC]; [ENC] is number 12."""
    made = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    made.add_special_tokens({"bos_token": "[DEC]"})
    made.add_tokens(["[ENC]"], special_tokens=True)
    return made


@pytest.fixture
def processor(tokenizer) -> BlipProcessor:
    """A processor for images of 6 x 4 pixels."""
    images = BlipImageProcessorPil(size={"height": 4, "width": 6}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Two rows; the first channel of each image is its number x 50."""
    for number in range(4):
        Image.new("RGB", (9, 7), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    pictures = [ImageFile(tmp_path / f"{number}.png") for number in range(4)]
    return [
        Row("a", (pictures[1], pictures[0]), "There is a RED ring.", 1),
        Row("b", (pictures[2], pictures[3]), "a ring", 0),
    ]


def test_a_batch_has_the_inputs_of_the_model(rows, processor):
    """The left image is first, [ENC] is in place of [CLS], and padding is masked."""
    batch = tasks.get("nlvr2").collate(rows, processor)
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask", "labels"}
    assert batch["pixel_values"].shape == (2, 2, 3, 4, 6)
    reds = batch["pixel_values"][:, :, 0, 0, 0] * 255
    torch.testing.assert_close(reds, torch.tensor([[50.0, 0.0], [100.0, 150.0]]))
    assert batch["input_ids"].tolist() == [[12, 9, 8, 5, 6, 7, 3], [12, 5, 7, 3, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_a_batch_has_labels_only_if_all_rows_have_one(rows, processor):
    """Calibration and distillation need no labels."""
    unlabelled = Row("c", rows[0].images, "a ring")
    assert "labels" not in tasks.get("nlvr2").collate([rows[0], unlabelled], processor)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ('A "Red" ring; (two)!', "a red ring two"),
        ("  many\n\nblanks\t ", "many blanks"),
        ("left-hand, isn't it? 50%", "left-hand, isn't it? 50%"),
        ("a.b!c#d*e:f~g", "a b c d e f g"),
        ("word " * 60, "word " * 39 + "word"),
    ],
)
def test_sentences_are_cleaned_as_blip_was_trained(sentence, expected):
    """Texts that differ from those of the training would lower the accuracy."""
    assert STATEMENT.prepared(sentence, FAMILY.text_limits["nlvr2"]) == expected


def test_a_sentence_longer_than_the_positions_is_cut(rows, processor):
    """A small model has few text positions; [SEP] stays last."""
    processor.tokenizer.model_max_length = 5
    batch = tasks.get("nlvr2").collate(rows, processor)
    assert batch["input_ids"].tolist() == [[12, 9, 8, 5, 3], [12, 5, 7, 3, 0]]


def test_a_tokenizer_without_enc_is_refused(rows, processor):
    """[UNK] would be in the position that the model reads."""
    processor.tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    with pytest.raises(CheckpointError, match=r"no \[ENC\] token"):
        tasks.get("nlvr2").collate(rows, processor)


def test_a_correct_prediction_scores_one():
    """Column 1 of the logits is "true"."""
    task = tasks.get("nlvr2")
    output = SimpleNamespace(logits=torch.tensor([[0.1, 2.0], [3.0, -1.0], [0.0, 0.5], [1.0, 0.9]]))
    rows = [Row(str(label), (), "a ring", label) for label in (1, 0, 0, 1)]
    result = task.score(None, task.predict(None, output, {}), rows)
    assert (result.answers, result.scores, result.unlabelled) == ([1, 0, 1, 0], [1, 1, 0, 0], 0)
    assert task.quality(result.scores) == 50
    assert (task.metric, task.unit) == ("accuracy", "percent")


def test_worker_processes_make_the_same_batches(rows, processor):
    """The processor is sent to the processes."""
    alone = list(batches(rows, tasks.get("nlvr2"), processor, batch_size=1, workers=0))
    in_processes = list(batches(rows, tasks.get("nlvr2"), processor, batch_size=1, workers=2))
    for one, other in zip(alone, in_processes, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_worker_processes_print_nothing(rows, processor, capfd):
    """The tokenizers library warns on standard error if a process forks after it was used."""
    processor.tokenizer(["a red ring"] * 300, padding=True)
    assert len(list(batches(rows, tasks.get("nlvr2"), processor, batch_size=1, workers=2))) == 2
    assert capfd.readouterr() == ("", "")


def test_each_file_is_a_task():
    """Listing the tasks, as `--help` does, does not load torch."""
    assert "nlvr2" in tasks.names()
    assert all(tasks.get(name).name == name for name in tasks.names())
    code = "import sys; from madtp_cli import tasks; tasks.names(); print('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout == "False\n"


def test_an_unknown_task_is_refused():
    """The message lists the tasks."""
    with pytest.raises(UsageError, match=r"no task 'poetry'\.\nChoose one of: .*nlvr2"):
        tasks.get("poetry")
