"""The VQA task: its batches, answers and scores."""

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
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.models.blip.family import FAMILY
from madtp_cli.tasks.vqa import QUESTION, TASK, most_frequent
from tests.decoding import attached, vqa
from tests.tasks.words import processor, tokenizer

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
DATA = Dataset("vqa", "here", {})


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Three questions; the first channel of each image is its number x 50, and the last one has no answers."""
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


def test_a_batch_has_the_inputs_of_the_model(rows) -> None:
    """[ENC] is before the question, [DEC] before the most frequent answer, and padding is masked."""
    batch = TASK.collate(rows[:2], processor(4))
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    torch.testing.assert_close(batch["pixel_values"][:, 0, 0, 0] * 255, torch.tensor([0.0, 50.0]))
    assert batch["input_ids"].tolist() == [_ids("[ENC] what is the red ring ? [SEP]"),
                                           _ids("[ENC] is red a [SEP] [PAD] [PAD] [PAD]")]  # fmt: skip
    assert batch["attention_mask"].sum(1).tolist() == [8, 5]
    assert batch["decoder_input_ids"].tolist() == [_ids("[DEC] a box [SEP]"), _ids("[DEC] yes [SEP] [PAD]")]
    assert batch["decoder_attention_mask"].sum(1).tolist() == [4, 3]
    assert batch["labels"].tolist() == [_ids("[DEC] a box [SEP]"), [*_ids("[DEC] yes [SEP]"), -100]]


def test_a_question_without_answers_has_an_empty_answer(rows) -> None:
    """Calibration needs no answers: [DEC] is followed by [SEP], and there are no labels."""
    batch = TASK.collate(rows, processor(4))
    assert "labels" not in batch
    assert batch["decoder_input_ids"][2].tolist() == _ids("[DEC] [SEP] [PAD] [PAD]")


def test_text_lengths_equal_those_of_a_batch(rows) -> None:
    """Costs are computed before a batch is made."""
    batch, lengths = TASK.collate(rows, processor(4)), TASK.text_lengths(rows, processor(4))
    assert lengths == {"text": batch["attention_mask"].sum(1).tolist(),
                       "decoder": batch["decoder_attention_mask"].sum(1).tolist()}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Isn't it 50%?", "isn't it 50%?"),
        ('a.b!c "d" (e)', "abc d e"),
        ("word " * 60, "word " * 49 + "word"),
    ],
)
def test_questions_are_cleaned_as_blip_was_trained(question, expected) -> None:
    """A removed character leaves no space, in contrast to captions."""
    assert QUESTION.prepared(question, FAMILY.text_limits["vqa question"]) == expected


def test_a_long_question_is_cut(rows) -> None:
    """It has at most 35 tokens, or the positions of the model; [SEP] stays last."""
    long = [Row("d", rows[0].images, "red " * 49)]
    assert TASK.text_lengths(long, processor())["text"] == [24]
    wide = processor()
    wide.tokenizer.model_max_length = 512
    batch = TASK.collate(long, wide)
    assert batch["input_ids"].shape == (1, 35)
    assert batch["input_ids"][0, -1] == 2


def test_the_first_of_equally_frequent_answers_is_taken() -> None:
    """So the target is the same each time."""
    assert most_frequent(("no", "yes", "yes", "no", "red")) == "no"


def test_a_tokenizer_without_the_tokens_of_blip_is_refused(rows) -> None:
    """[UNK] would be in the position that the model reads."""
    bare = processor()
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a")
    bare.tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    with pytest.raises(CheckpointError, match=r"no \[ENC\] token"):
        TASK.collate(rows, bare)


@pytest.mark.parametrize("answers", [(), ("a box", "two", "blue ring", "yes")])
def test_answers_are_from_the_list_or_generated(rows, answers) -> None:
    """If the data list answers, one of them is chosen. Answers do not depend on the batch."""
    model, small = attached(vqa(), 0.4), processor()
    task = tasks.prepared("vqa", small, Dataset("vqa", "here", {}, answers=answers))
    measured = run.run(model, [task.collate(rows, small)], task, CPU, rows)
    alone = [run.run(model, [task.collate([row], small)], task, CPU).answers[0] for row in rows]
    assert measured.answers == alone
    assert measured.result.unlabelled == 1
    assert measured.gflops(model).shape == (3,)
    if answers:
        assert set(alone) <= set(answers)
    else:
        generated = model.generate(**{name: value for name, value in inputs_of(task.collate(rows, small)).items()
                                    if not name.startswith("decoder")})  # fmt: skip
        known = tokenizer()
        assert alone == [known.decode(row, skip_special_tokens=True).strip() for row in generated]
        assert not any("[" in answer for answer in alone)


def test_the_answer_with_the_best_score_is_chosen(rows) -> None:
    """The scores are those of the whole answers."""
    model, small, answers = vqa(), processor(), ("no", "a box on the box", "two")
    task = tasks.prepared("vqa", small, Dataset("vqa", "here", {}, answers=answers))
    batch = task.collate(rows, small)
    encoded = [small.tokenizer(answer, return_tensors="pt")["input_ids"] for answer in answers]
    with torch.no_grad():
        output = model(**inputs_of(batch))
        for number, answer in enumerate(task.predict(model, output, batch)):
            question = output.memory.part(slice(number, number + 1))
            for ids in encoded:
                ids[:, 0] = 68
            scores = [model.scores(question, ids).item() for ids in encoded]
            assert answer == answers[scores.index(max(scores))]


def test_answers_are_scored_by_the_references(rows) -> None:
    """The simple rule applies to fewer than ten references; a question without references is not scored."""
    result = TASK.score(None, ["A box.", "yes", "yes"], rows)
    assert result.answers == ["A box.", "yes", "yes"]
    assert result.scores == pytest.approx([2 / 3, 1 / 2])
    assert result.unlabelled == 1
    assert TASK.quality([1.0, 0.5]) == 75
    assert TASK.score(None, ["yes"], ()).scores == []
    assert (TASK.name, TASK.unit) == ("vqa", "percent")


def test_k_test_answers_are_scored_in_full(rows) -> None:
    """They are those with the most likely first tokens; the other answers are not scored further."""
    model, small = vqa(), processor()
    data = Dataset("vqa", "here", {}, answers=("no", "a box on the box", "two", "yes"))
    for k_test, ranked in ((None, 4), (3, 3)):
        task = tasks.prepared("vqa", small, data, k_test)
        batch = task.collate(rows, small)
        runs: list[TextRun] = []
        with torch.no_grad():
            task.predict(model, model(**inputs_of(batch)), batch, runs.append)
        assert [list(run.texts) for run in runs] == [[1, 1, 1], *[[ranked]] * 3]
        description = f"ranking 4 answers by their first tokens, the {ranked} most likely ones in full"
        assert description == task.generation_cost_description


def test_generated_answers_are_described_as_such(rows) -> None:
    """The report says what was run."""
    model, small = vqa(), processor()
    runs: list[TextRun] = []
    task = tasks.prepared("vqa", small, DATA)
    batch = task.collate(rows, small)
    with torch.no_grad():
        task.predict(model, model(**inputs_of(batch)), batch, runs.append)
    assert "generating" in task.generation_cost_description
    assert all(list(run.texts) == [3, 3, 3] for run in runs)
