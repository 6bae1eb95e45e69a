"""The retrieval task: its batches, rankings and scores."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTokenizer,
)

from madtp_cli import tasks
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.metrics.retrieval import rank
from madtp_cli.models.clip.retrieval import ClipOutput
from madtp_cli.tasks import retrieval
from madtp_cli.tasks.retrieval import MOST_TOKENS, MOST_WORDS, EmbeddedSample, Retrieval, cleaned
from tests.retrieving import attached, dense

SPECIAL = ["[PAD]", "[UNK]", "[MASK]", "[SEP]", "[CLS]"]
WORDS = [*SPECIAL, *(f"word{number}" for number in range(61)), "red", "ring"]
CAPTIONS = (("A red RING.", "ring"), ("word1",), ("word2 red", "word3", "word4 word5 word6"), ("word7", "word8 ring"))
CPU = ComputeConfig.of("cpu", "float32")
DATA = Dataset("retrieval", "here", {})


@pytest.fixture(scope="module")
def processor() -> BlipProcessor:
    """A processor for the small model: 48 pixels, 70 word pieces; [DEC] and [ENC] are the last."""
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=16)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    images = BlipImageProcessorPil(size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.2] * 3)
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Four images of noise with two, one, three and two captions."""
    folder, generator = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for number in range(len(CAPTIONS)):
        noise = torch.randint(0, 255, (48, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.png")
    return [Row(str(number), (folder / f"{number}.png",), captions[0], references=captions)
            for number, captions in enumerate(CAPTIONS)]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    """A pruned BLIP with random weights, whose ranking is arbitrary."""
    return attached(dense(), 0.5)


def predictions(model: Any, rows: list[Row], processor: BlipProcessor, batch_size: int = 3) -> list[EmbeddedSample]:
    """Return the predictions for all rows."""
    made = batches(rows, Retrieval(), processor, batch_size=batch_size, workers=0)
    with torch.no_grad():
        return [sample for batch in made for sample in Retrieval().predict(model, model(**inputs_of(batch)), batch)]


def candidates(model: Any, found: list[EmbeddedSample], k_test: int) -> tuple[Tensor, Tensor]:
    """Return the scores by image and by text."""
    with torch.no_grad():
        return Retrieval(k_test).candidates(model, found)


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
    assert batch["labels"].tolist() == [0, 1, 1, 3, 1]


def test_a_row_without_references_has_its_text_as_caption(rows, processor) -> None:
    """Data with one caption per image need no list."""
    batch = Retrieval().collate([Row("a", rows[0].images, "red")], processor)
    assert torch.equal(batch["captions.input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [('A "Red" ring; (two)!', "a red ring two"), ("left-hand, isn't it? 50%", "left-hand, isn't it? 50%"),
     ("  many\n blanks\t ", "many blanks"), ("word " * 40, "word " * (MOST_WORDS - 1) + "word")],
)  # fmt: skip
def test_captions_are_cleaned_as_blip_was_trained(caption, expected) -> None:
    """Texts that differ from those of the training would lower the recall."""
    assert cleaned(caption) == expected


def test_captions_of_blip_have_at_most_35_tokens(rows, processor) -> None:
    """Also if the model has more positions; [SEP] stays last."""
    words = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=512)
    long = Row("long", rows[0].images, "red-ring " * 20)
    wide = BlipProcessor(image_processor=processor.image_processor, tokenizer=words)
    tokens = retrieval._encode([long.text], wide)
    assert tokens["input_ids"].shape == (1, MOST_TOKENS["BlipProcessor"])
    assert tokens["input_ids"][0, -1] == WORDS.index("[SEP]")
    assert Retrieval().text_lengths([long, rows[0]], processor) == {"text": [16, 5]}


def test_captions_of_clip_have_at_most_77_tokens() -> None:
    """CLIP reads the last token, so it stays if a caption is cut. Padding is the same token and is masked."""
    letters = [*"abcdefghijklmnopqrstuvwxyz-", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz-")]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate([*letters, *ends])}, merges=[])
    processor = CLIPProcessor(image_processor=CLIPImageProcessorPil(), tokenizer=tokenizer)
    tokens = retrieval._encode(["a-b " * 40, "A ab"], processor)
    start, end = tokenizer.convert_tokens_to_ids(ends)
    assert tokens["input_ids"].shape == (2, MOST_TOKENS["CLIPProcessor"])
    assert tokens["input_ids"][:, 0].tolist() == [start, start]
    assert tokens["input_ids"][0, -1] == end
    assert tokens["attention_mask"].sum(1).tolist() == [MOST_TOKENS["CLIPProcessor"], 5]
    assert tokens["input_ids"][1, 4] == end


def test_predictions_do_not_depend_on_the_batch(model, rows, processor) -> None:
    """Tokens are kept in float16 with the number of patches that each stands for."""
    found = predictions(model, rows, processor)
    assert [len(one.words) for one in found] == [len(one.texts) for one in found] == [2, 1, 3, 2]
    for one, row in zip(found, rows, strict=True):
        alone = predictions(model, [row], processor)[0]
        torch.testing.assert_close(one.image, alone.image, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.texts, alone.texts, rtol=0, atol=1e-5)
        assert [word.tolist() for word in one.words] == [word.tolist() for word in alone.words]
        assert one.tokens is not None
        assert one.sizes is not None
        assert one.tokens.dtype == torch.float16
        assert one.sizes.sum() == 37


@pytest.mark.parametrize("threshold_scale", [0.0, 0.5])
def test_the_score_of_a_pair_is_its_similarity_plus_its_match(rows, processor, threshold_scale) -> None:
    """Computed for each pair with the model alone; the tolerance is that of float16 tokens."""
    model = attached(dense(), threshold_scale)
    scores, back = candidates(model, predictions(model, rows, processor), k_test=99)
    assert torch.equal(scores, back.T)
    batch = Retrieval().collate(rows, processor)
    with torch.no_grad():
        images, tokens = model.embed_images(batch["pixel_values"])
        texts = model.embed_texts(batch["captions.input_ids"], batch["captions.attention_mask"])
        for image, text in itertools.product(range(4), range(8)):
            of = slice(text, text + 1)
            match = model.match(tokens.part(slice(image, image + 1)), batch["captions.input_ids"][of],
                                batch["captions.attention_mask"][of])  # fmt: skip
            torch.testing.assert_close(scores[image, text], images[image] @ texts[text] + match[0], rtol=0, atol=0.01)


def test_the_score_of_a_pair_does_not_depend_on_other_candidates(model, rows, processor, monkeypatch) -> None:
    """In the released code candidates share token counts and padding."""
    found = predictions(model, rows, processor)
    among, _ = candidates(model, found, k_test=99)
    owner = [number for number, one in enumerate(found) for _ in one.words]
    for image, one in enumerate(found):
        alone, _ = candidates(model, [one], k_test=99)
        own = [text for text, whose in enumerate(owner) if whose == image]
        torch.testing.assert_close(among[image, own], alone[0], rtol=0, atol=1e-5)
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 3)
    torch.testing.assert_close(candidates(model, found, k_test=99)[0], among, rtol=0, atol=1e-5)
    few, fewer = candidates(model, found, k_test=2)
    for some, whole in ((few, among), (fewer, among.T)):
        torch.testing.assert_close(some[some.isfinite()], whole[some.isfinite()], rtol=0, atol=1e-5)


def test_only_the_best_candidates_are_matched(model, rows, processor) -> None:
    """In both directions, the `k_test` pairs with the most similar embeddings; all others rank after them."""
    found = predictions(model, rows, processor)
    texts_of, images_of = candidates(model, found, k_test=2)
    assert texts_of.isfinite().sum(1).tolist() == [2] * 4
    assert images_of.isfinite().sum(1).tolist() == [2] * 8
    similar = torch.stack([one.image for one in found]) @ torch.cat([one.texts for one in found]).T
    assert all(set(best.tolist()) == set(kept.nonzero()[:, 0].tolist())
               for best, kept in zip(similar.topk(2).indices, texts_of.isfinite(), strict=True))  # fmt: skip


class _Embeds:
    """A model without re-ranking, such as CLIP. It has no `match`."""

    reranks = False

    def __call__(self, **inputs: Tensor) -> ClipOutput:
        return ClipOutput(image_embedding=torch.eye(4), memory=Packed(torch.zeros(4, 1), [1] * 4))

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts of images 0 to 3; one of image 2 is closest to image 0, that of image 1 to image 3."""
        return torch.eye(4)[[0, 0, 3, 2, 2, 0, 3, 3]]


def test_without_re_ranking_similarities_rank(rows, processor) -> None:
    """Images 0 and 3 have a wrong text with the same score as the best, and image 1 ranks its text last. Two texts are
    closest to another image."""
    task, found = Retrieval(), predictions(_Embeds(), rows, processor, batch_size=4)
    assert all(one.tokens is None for one in found)
    result = task.score(_Embeds(), found, rows)
    assert result.answers[4:] == [0, 0, 3, 2, 2, 0, 3, 3]
    recalls = retrieval.ranked(found, *task.candidates(_Embeds(), found)).recalls()
    assert (recalls["TR@1"], recalls["TR@5"], recalls["IR@1"]) == (0.25, 0.75, 0.75)
    by_name = [recalls[f"{way}@{depth}"] for way in ("TR", "IR") for depth in (1, 5, 10)]
    assert task.quality(result.scores) == pytest.approx(100 * sum(by_name) / 6)
    assert (len(result.scores), result.unlabelled) == (4, 0)


def test_the_quality_after_re_ranking_is_that_of_the_metric(model, rows, processor) -> None:
    """Each query has its own candidates, so the scores of the two directions are not transposed."""
    found = predictions(model, rows, processor)
    texts_of, images_of = candidates(model, found, k_test=2)
    with torch.no_grad():
        result = Retrieval(k_test=2).score(model, found, rows)
    image_of_text = [0, 0, 1, 2, 2, 2, 3, 3]
    whole = rank(texts_of.numpy(), image_of_text, images_of.numpy()).recalls()["R"]
    assert Retrieval().quality(result.scores) == pytest.approx(100 * whole)
    assert result.answers == [*texts_of.argmax(1).tolist(), *images_of.argmax(1).tolist()]
    assert result.answer_samples == [*range(4), *image_of_text]


def test_an_evaluation_encodes_each_image_once(model, rows, processor, monkeypatch) -> None:
    """The image tower is most of the cost; the ranking uses the embeddings of the forward pass."""
    encoded: list[int] = []
    encode = model.encode_images

    def recorded(pixels: Tensor, pruner: Any) -> Packed:
        encoded.append(len(pixels))
        return encode(pixels, pruner)

    monkeypatch.setattr(model, "encode_images", recorded)
    run.run(model, batches(rows, Retrieval(), processor, batch_size=3, workers=0), Retrieval(), CPU)
    assert encoded == [3, 1]


def test_an_evaluation_without_labels_has_answers_but_no_scores(model, rows, processor) -> None:
    """The agreement with the dense model compares the best candidate of each query."""
    made = list(batches(rows, Retrieval(), processor, batch_size=3, workers=0))
    unlabelled = run.run(model, made, Retrieval(), CPU)
    labelled = run.run(model, made, Retrieval(), CPU, rows)
    assert (unlabelled.scores, unlabelled.result.unlabelled) == ([], 4)
    assert unlabelled.answers == labelled.answers
    assert len(unlabelled.answers) == 4 + 8
    assert len(labelled.scores) == 4
    assert labelled.gflops(model).shape == (4,)


def test_rankings_are_computed_in_float32(model, rows, processor) -> None:
    """The differences between similarities are smaller than the precision of bfloat16."""
    found = predictions(_Embeds(), rows, processor, batch_size=4)
    near = [
        EmbeddedSample(one.image * 0 + 0.5 + 0.0001 * number, one.texts, one.words) for number, one in enumerate(found)
    ]
    with torch.autocast("cpu", torch.bfloat16):
        texts_of, _ = Retrieval().candidates(_Embeds(), near)
    assert texts_of.dtype == torch.float32
    assert len(texts_of[:, 0].unique()) == 4


def test_the_task_has_its_name_metric_and_unit() -> None:
    """Reports print them."""
    task = tasks.get("retrieval")
    assert (task.name, task.metric, task.unit) == ("retrieval", "mean recall", "percent")


def test_text_runs_have_the_numbers_of_the_images(model, rows, processor, monkeypatch) -> None:
    """Each pair is matched once, also if it is a candidate of both queries."""
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 3)
    found = predictions(model, rows, processor)
    runs: list[TextRun] = []
    with torch.no_grad():
        texts_of, images_of = Retrieval(2).candidates(model, found, runs.append)
    pairs = texts_of.isfinite() | images_of.T.isfinite()
    matched = torch.zeros(len(rows), dtype=torch.long)
    for text_run in runs:
        matched[list(text_run.samples)] += torch.tensor(text_run.texts)
    assert matched.tolist() == pairs.sum(1).tolist()
    assert len(runs) == -(-int(pairs.sum()) // 3)


def test_a_model_without_re_ranking_has_no_text_runs(rows, processor) -> None:
    """The cost of CLIP is that of its forward pass."""
    found = predictions(_Embeds(), rows, processor, batch_size=4)
    runs: list[TextRun] = []
    Retrieval().score(_Embeds(), found, rows, runs.append)
    assert runs == []


def test_tasks_without_candidates_refuse_k_test(processor) -> None:
    """A setting without effect would mislead the user."""
    assert "2 most similar" in tasks.prepared("retrieval", processor, DATA, 2).generation_cost_description
    for name in ("nlvr2", "caption"):
        with pytest.raises(UsageError, match="no candidates"):
            tasks.prepared(name, processor, DATA, 2)
