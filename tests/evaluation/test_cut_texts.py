"""Texts that are longer than the model reads: found before the work starts, counted and named."""

from __future__ import annotations

import pytest
from transformers import CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

from madtp_cli import models, tasks
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import cut_texts
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CutTextsPart
from madtp_cli.tasks.caption import Caption
from tests.tasks.words import processor

#: The tokenizer of `words` reads 24 tokens, so 22 words between the first and the last token.
FITS, LONG = "red " * 21 + "ring", "red " * 22 + "ring"


def _found(task: str, rows: list[Row], *, limit: int | None = None, answers: tuple[str, ...] = ()) -> CutTextsPart:
    data = Dataset("any", "here", {"val": rows[:1], "test": rows[1:]}, answers=answers)
    small = processor()
    prepared = tasks.prepared(task, small, data)
    return cut_texts.find(prepared, data, small, limit, ProgressReporter())


def _row(text: str, *references: str) -> Row:
    return Row(text, (), text, references=references)


@pytest.mark.parametrize(
    ("task", "rows", "answers", "expected"),
    [
        ("nlvr2", [_row(FITS), _row(LONG), _row(LONG)], (), (2, 3)),
        # The prompt and its words take four positions of a caption.
        ("caption", [_row(FITS, FITS, "red"), _row("red", "red", LONG)], (), (2, 4)),
        ("retrieval", [_row(FITS, FITS, LONG), _row("red")], (), (1, 3)),
        ("vqa", [_row(FITS, LONG), _row(LONG, "red")], ("red", LONG), (3, 6)),
    ],
)
def test_every_text_of_every_task_is_counted(task, rows, answers, expected) -> None:
    """Also references, teacher-forced answers and the answer list: each of them would have crashed a small model."""
    found = _found(task, rows, answers=answers)
    assert (found.count, found.texts) == expected
    assert set(found.first) <= {FITS, LONG}


def test_the_number_of_words_counts_too() -> None:
    """BLIP reads 30 words of a caption, however many positions there are."""
    small, task = processor(), tasks.get("retrieval")
    small.tokenizer.model_max_length = 512
    data = Dataset("captions", "here", {"test": [_row("a " * 31), _row("a " * 30)]})
    assert cut_texts.find(task, data, small, None, ProgressReporter()).first == ["a " * 31]


def test_a_limit_holds_for_each_split() -> None:
    """A run of 32 samples must not tokenize a million captions."""
    rows = [_row(LONG + f" {number}") for number in range(5)]
    assert _found("nlvr2", rows, limit=2).texts == 3
    found = _found("nlvr2", rows)
    assert (found.count, found.first) == (5, [row.text for row in rows[:3]])


def test_the_note_tells_number_limit_and_first_texts() -> None:
    """It is printed before the work starts, and stands in the report."""
    small = processor()
    task = tasks.prepared("vqa", small, Dataset("questions", "here", {}))
    limits = cut_texts.limits(task, small)
    assert limits == "50 words and 24 tokens per question, 24 tokens per answer"
    found = CutTextsPart(count=2, texts=9, first=["a", "long " * 40])
    (note,) = cut_texts.note(found, limits)
    assert note.startswith(f'2 of 9 texts are cut: the model reads {limits}. The first are: "a", "long long')
    assert note.endswith('...".')
    assert cut_texts.note(CutTextsPart(), limits) == []


def test_clip_reads_a_caption_up_to_its_positions() -> None:
    """BLIP's limit of 30 words belongs to BLIP; two captions that differ in their 40th word stay different."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate([*letters, *ends])}, merges=[])
    tokenizer.model_max_length = 48
    clip = CLIPProcessor(image_processor=CLIPImageProcessorPil(), tokenizer=tokenizer)
    texts = ["a " * 40 + "b", "a " * 40 + "c", "a " * 47]
    (kind,) = tasks.get("retrieval").texts(())
    encoded = kind.encode(texts, clip)["input_ids"]
    assert encoded.shape == (3, 48)
    assert encoded[0].tolist() != encoded[1].tolist()
    assert encoded[2, -1] == tokenizer.eos_token_id
    assert kind.cut(texts, clip) == texts[2:]


def test_a_prompt_that_fills_the_model_is_refused() -> None:
    """There would be no room for a caption."""
    with pytest.raises(UsageError, match="Give a shorter --prompt"):
        Caption(prompt="red " * 22).kind.encode_prompt(processor())


def test_word_limits_need_no_tokenizer() -> None:
    """`madtp data` has no checkpoint, and still tells what each family certainly cuts."""
    rows = [_row("red " * words) for words in (30, 31, 76)]
    found = tasks.certainly_cut("retrieval", rows)
    assert [len(text.split()) for text in found["blip"]] == [31, 76]
    assert [len(text.split()) for text in found["clip"]] == [76]
    assert found.keys() <= {*models.families()}
    assert {"blip", "clip"} <= found.keys()
