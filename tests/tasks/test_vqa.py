"""What VQA makes of rows, and how it answers and scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertTokenizer

from madtp_cli import tasks
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import CheckpointError
from madtp_cli.evaluation import run
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.tasks.vqa import MOST_WORDS, QUESTION_TOKENS, TASK, cleaned, commonest
from tests.decoding import attached, vqa
from tests.tasks.words import processor, tokenizer

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
DATA = Dataset("vqa", "here", {})


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Three questions, the first channel of each picture its number x 50; nobody answered the last."""
    for number in range(3):
        Image.new("RGB", (9, 7), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return [
        Row("a", (ImageFile(tmp_path / "0.png"),), "What is (the) RED ring?", references=("two", "a box", "a box")),
        Row("b", (ImageFile(tmp_path / "1.png"),), "is red a", references=("yes", "No")),
        Row("c", (ImageFile(tmp_path / "2.png"),), "what"),
    ]


def _ids(words: str) -> list[int]:
    made: list[int] = tokenizer().convert_tokens_to_ids(words.split())
    return made


def test_a_batch_holds_what_the_model_takes(rows) -> None:
    """[ENC] before the question, [DEC] before the commonest answer, padding masked."""
    batch = TASK.collate(rows[:2], processor(4))
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    torch.testing.assert_close(batch["pixel_values"][:, 0, 0, 0] * 255, torch.tensor([0.0, 50.0]))
    assert batch["input_ids"].tolist() == [_ids("[ENC] what is the red ring ? [SEP]"),
                                           _ids("[ENC] is red a [SEP] [PAD] [PAD] [PAD]")]  # fmt: skip
    assert batch["attention_mask"].sum(1).tolist() == [8, 5]
    assert batch["decoder_input_ids"].tolist() == [_ids("[DEC] a box [SEP]"), _ids("[DEC] yes [SEP] [PAD]")]
    assert batch["decoder_attention_mask"].sum(1).tolist() == [4, 3]
    assert batch["labels"].tolist() == [_ids("[DEC] a box [SEP]"), [*_ids("[DEC] yes [SEP]"), -100]]


def test_a_question_that_nobody_answered_is_read_without(rows) -> None:
    """Calibration needs no answers: nothing stands between [DEC] and [SEP], and there is no loss."""
    batch = TASK.collate(rows, processor(4))
    assert "labels" not in batch
    assert batch["decoder_input_ids"][2].tolist() == _ids("[DEC] [SEP] [PAD] [PAD]")


def test_lengths_are_those_of_a_batch(rows) -> None:
    """Costs are told before a batch is made."""
    batch, lengths = TASK.collate(rows, processor(4)), TASK.text_lengths(rows, processor(4))
    assert lengths == {"text": batch["attention_mask"].sum(1).tolist(),
                       "decoder": batch["decoder_attention_mask"].sum(1).tolist()}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Isn't it 50%?", "isn't it 50%?"),
        ('a.b!c "d" (e)', "abc d e"),
        ("word " * 60, "word " * (MOST_WORDS - 1) + "word"),
    ],
)
def test_questions_are_cleaned_as_blip_was_trained(question, expected) -> None:
    """Unlike in captions, what is left out leaves no space."""
    assert cleaned(question) == expected


def test_a_long_question_is_cut(rows) -> None:
    """At 35 tokens, or at the model's fewer positions; [SEP] stays last."""
    long = [Row("d", rows[0].images, "red " * 49)]
    assert TASK.text_lengths(long, processor())["text"] == [24]
    wide = processor()
    wide.tokenizer.model_max_length = 512
    batch = TASK.collate(long, wide)
    assert batch["input_ids"].shape == (1, QUESTION_TOKENS)
    assert batch["input_ids"][0, -1] == 2


def test_the_first_of_equally_common_answers_is_taught() -> None:
    """The same one every time."""
    assert commonest(("no", "yes", "yes", "no", "red")) == "no"


def test_a_tokenizer_without_blips_tokens_is_refused(rows) -> None:
    """It would put [UNK] where the model reads."""
    bare = processor()
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
    bare.tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    with pytest.raises(CheckpointError, match=r"no \[ENC\] token"):
        TASK.collate(rows, bare)


@pytest.mark.parametrize("answers", [(), ("a box", "two", "blue ring", "yes")])
def test_answers_are_the_models_words(rows, answers) -> None:
    """One of the list where the data have one, else what three beams write; alone as in a batch."""
    model, own = attached(vqa(), 0.4), processor()
    task = tasks.prepared("vqa", own, Dataset("vqa", "here", {}, answers=answers))
    measured = run.run(model, [task.collate(rows, own)], task, CPU, rows)
    alone = [run.run(model, [task.collate([row], own)], task, CPU).answers[0] for row in rows]
    assert measured.answers == alone
    assert measured.result.unlabelled == 1
    assert measured.gflops(model).shape == (3,)
    if answers:
        assert set(alone) <= set(answers)
    else:
        written = model.generate(**{name: value for name, value in run.inputs_of(task.collate(rows, own)).items()
                                    if not name.startswith("decoder")})  # fmt: skip
        known = tokenizer()
        assert alone == [known.decode(row, skip_special_tokens=True).strip() for row in written]
        assert not any("[" in answer for answer in alone)


def test_the_best_of_the_list_is_chosen(rows) -> None:
    """By the scores of the whole answers."""
    model, own, answers = vqa(), processor(), ("no", "a box on the box", "two")
    task = tasks.prepared("vqa", own, Dataset("vqa", "here", {}, answers=answers))
    batch = task.collate(rows, own)
    encoded = [own.tokenizer(answer, return_tensors="pt")["input_ids"] for answer in answers]
    with torch.no_grad():
        output = model(**run.inputs_of(batch))
        for number, answer in enumerate(task.predictions(model, output, batch)):
            question = output.memory.part(slice(number, number + 1))
            for ids in encoded:
                ids[:, 0] = 68
            scores = [model.scores(question, ids).item() for ids in encoded]
            assert answer == answers[scores.index(max(scores))]


def test_an_answer_is_as_right_as_people_agree(rows) -> None:
    """Of fewer than ten people by the simple rule; a question without answers is not scored."""
    result = TASK.score(None, ["A box.", "yes", "yes"], rows)
    assert result.answers == ["A box.", "yes", "yes"]
    assert result.scores == pytest.approx([2 / 3, 1 / 2])
    assert result.unlabelled == 1
    assert TASK.quality([1.0, 0.5]) == 75
    assert TASK.score(None, ["yes"], ()).scores == []
    assert (TASK.name, TASK.unit) == ("vqa", "percent")


def test_k_test_answers_are_ranked_in_full(rows) -> None:
    """Those with the likeliest first words, one run for each question; the others' last words are not looked at."""
    model, own = vqa(), processor()
    data = Dataset("vqa", "here", {}, answers=("no", "a box on the box", "two", "yes"))
    for k_test, ranked in ((None, 4), (3, 3)):
        task = tasks.prepared("vqa", own, data, k_test)
        batch = task.collate(rows, own)
        runs: list[TextRun] = []
        with torch.no_grad():
            task.predictions(model, model(**run.inputs_of(batch)), batch, runs.append)
        assert [list(run.texts) for run in runs] == [[1, 1, 1], *[[ranked]] * 3]
        assert f"ranking 4 answers by their first words, the likeliest {ranked} in full" == task.answering


def test_answers_that_are_written_are_told_as_such(rows) -> None:
    """The line of figures says what was run."""
    model, own = vqa(), processor()
    runs: list[TextRun] = []
    task = tasks.prepared("vqa", own, DATA)
    batch = task.collate(rows, own)
    with torch.no_grad():
        task.predictions(model, model(**run.inputs_of(batch)), batch, runs.append)
    assert "writing" in task.answering
    assert all(list(run.texts) == [3, 3, 3] for run in runs)
