"""The batches of the retrieval task."""

from __future__ import annotations

import pytest
import torch
from transformers import BertTokenizer, BlipProcessor, CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

from madtp_cli import tasks
from madtp_cli.data.dataset import Row
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.models.blip.family import FAMILY
from madtp_cli.tasks.retrieval import CAPTION, Retrieval
from tests.tasks.noise import WORDS, noise_rows, small_processor


@pytest.fixture(scope="module")
def processor() -> BlipProcessor:
    """A processor for the small model."""
    return small_processor()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Four images of noise with two, one, three and two captions."""
    return noise_rows(tmp_path_factory.mktemp("images"))


def test_a_batch_has_the_inputs_of_the_model(rows, processor) -> None:
    """It has the first caption of each row with [CLS]; names with a dot have all captions and their rows."""
    batch = tasks.get("retrieval").collate(rows[:3], processor)
    red, ring = WORDS.index("red"), WORDS.index("ring")
    assert batch["pixel_values"].shape == (3, 3, 48, 48)
    assert batch["input_ids"].tolist() == [[4, 1, red, ring, 3], [4, 6, 3, 0, 0], [4, 7, red, 3, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [5, 3, 4]
    assert batch["captions.input_ids"].shape == (6, 5)
    assert batch["captions.input_ids"][1].tolist() == [4, ring, 3, 0, 0]
    assert batch["captions.attention_mask"].sum(1).tolist() == [5, 3, 3, 4, 3, 5]
    assert batch["captions.sample"].tolist() == [0, 0, 1, 2, 2, 2]
    assert inputs_of(batch).keys() == {"pixel_values", "input_ids", "attention_mask"}


def test_rows_with_the_same_image_have_the_same_label(rows, processor) -> None:
    """Otherwise the captions of an image would be negatives of each other."""
    again = Row("again", rows[1].images, "ring", references=("ring",))
    batch = Retrieval().collate([rows[0], rows[1], again, rows[2], again], processor)
    first, second, again, third, last = batch["labels"].tolist()
    assert second == again == last
    assert len({first, second, third}) == 3


def test_a_row_without_references_has_its_text_as_caption(rows, processor) -> None:
    """Data with one caption per image need no list."""
    batch = Retrieval().collate([Row("a", rows[0].images, "red")], processor)
    assert torch.equal(batch["captions.input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [('A "Red" ring; (two)!', "a red ring two"), ("left-hand, isn't it? 50%", "left-hand, isn't it? 50%"),
     ("  many\n blanks\t ", "many blanks"), ("word " * 40, "word " * 29 + "word")],
)  # fmt: skip
def test_captions_are_cleaned_as_blip_was_trained(caption, expected) -> None:
    """Texts that differ from those of the training would lower the recall."""
    assert CAPTION.prepared(caption, FAMILY.text_limits["retrieval"]) == expected


def test_captions_of_blip_have_at_most_35_tokens(rows, processor) -> None:
    """Also if the model has more positions; [SEP] stays last."""
    words = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=512)
    long = Row("long", rows[0].images, "red-ring " * 20)
    wide = BlipProcessor(image_processor=processor.image_processor, tokenizer=words)
    tokens = CAPTION.encode([long.text], wide)
    assert tokens["input_ids"].shape == (1, 35)
    assert tokens["input_ids"][0, -1] == WORDS.index("[SEP]")
    assert Retrieval().text_lengths([long, rows[0]], processor) == {"text": [16, 5]}


def test_captions_of_clip_have_at_most_77_tokens() -> None:
    """CLIP reads the last token, so it stays if a caption is cut. Padding is the same token and is masked."""
    letters = [*"abcdefghijklmnopqrstuvwxyz-", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz-")]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate([*letters, *ends])}, merges=[])
    processor = CLIPProcessor(image_processor=CLIPImageProcessorPil(), tokenizer=tokenizer)
    tokens = CAPTION.encode(["a-b " * 40, "A ab"], processor)
    start, end = tokenizer.convert_tokens_to_ids(ends)
    assert tokens["input_ids"].shape == (2, 77)
    assert tokens["input_ids"][:, 0].tolist() == [start, start]
    assert tokens["input_ids"][0, -1] == end
    assert tokens["attention_mask"].sum(1).tolist() == [77, 5]
    assert tokens["input_ids"][1, 4] == end
