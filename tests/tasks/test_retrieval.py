"""What retrieval makes of rows, and how it ranks and scores."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor, CLIPTokenizer

from madtp_cli import tasks
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.metrics.retrieval import rank
from madtp_cli.models.clip.retrieval import ClipOutput
from madtp_cli.tasks import retrieval
from madtp_cli.tasks.retrieval import BLIP_TOKENS, CLIP_TOKENS, MOST_WORDS, Found, Retrieval, cleaned
from tests.retrieving import attached, dense

SPECIAL = ["[PAD]", "[UNK]", "[MASK]", "[SEP]", "[CLS]"]
WORDS = [*SPECIAL, *(f"word{number}" for number in range(61)), "red", "ring"]
CAPTIONS = (("A red RING.", "ring"), ("word1",), ("word2 red", "word3", "word4 word5 word6"), ("word7", "word8 ring"))
PLACE = run.ComputeConfig.of("cpu", "float32")
DATA = Dataset("retrieval", "here", {})


@pytest.fixture(scope="module")
def processor() -> BlipProcessor:
    """For the small model: 48 pixels, 70 word pieces of which [DEC] and [ENC] are the last."""
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=16)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    images = BlipImageProcessorPil(size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.2] * 3)
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Four noisy pictures with two, one, three and two captions."""
    folder, generator = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for number in range(len(CAPTIONS)):
        noise = torch.randint(0, 255, (48, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.png")
    return [Row(str(number), (ImageFile(folder / f"{number}.png"),), captions[0], references=captions)
            for number, captions in enumerate(CAPTIONS)]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    """A pruned BLIP that knows nothing, and so ranks in no order one could guess."""
    return attached(dense(), 0.5)


def predictions(model: Any, rows: list[Row], processor: BlipProcessor, batch_size: int = 3) -> list[Found]:
    """As an evaluation gathers it."""
    made = batches(rows, Retrieval(), processor, batch_size=batch_size, workers=0)
    with torch.no_grad():
        return [one for batch in made for one in Retrieval().predictions(model, model(**run.inputs_of(batch)), batch)]


def candidates(model: Any, found: list[Found], k_test: int) -> tuple[Tensor, Tensor]:
    """Scores for each image, and for each text."""
    with torch.no_grad():
        return Retrieval(k_test).candidates(model, found)


def test_a_batch_holds_what_the_model_takes(rows, processor) -> None:
    """Each row's own caption with [CLS], and under dotted names every caption and whose it is."""
    batch = tasks.get("retrieval").collate(rows[:3], processor)
    red, ring = WORDS.index("red"), WORDS.index("ring")
    assert batch["pixel_values"].shape == (3, 3, 48, 48)
    assert batch["input_ids"].tolist() == [[4, 1, red, ring, 3], [4, 6, 3, 0, 0], [4, 7, red, 3, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [5, 3, 4]
    assert batch["judge.input_ids"].shape == (6, 5)
    assert batch["judge.input_ids"][1].tolist() == [4, ring, 3, 0, 0]
    assert batch["judge.attention_mask"].sum(1).tolist() == [5, 3, 3, 4, 3, 5]
    assert batch["judge.samples"].tolist() == [0, 0, 1, 2, 2, 2]
    assert run.inputs_of(batch).keys() == {"pixel_values", "input_ids", "attention_mask"}


def test_rows_about_one_image_have_one_label(rows, processor) -> None:
    """Or its captions would be learned as each other's negatives."""
    again = Row("again", rows[1].images, "ring", references=("ring",))
    batch = Retrieval().collate([rows[0], rows[1], again, rows[2], again], processor)
    assert batch["labels"].tolist() == [0, 1, 1, 3, 1]


def test_a_row_without_references_is_judged_by_its_text(rows, processor) -> None:
    """One caption per image needs no list."""
    batch = Retrieval().collate([Row("a", rows[0].images, "red")], processor)
    assert torch.equal(batch["judge.input_ids"], batch["input_ids"])


@pytest.mark.parametrize(
    ("caption", "expected"),
    [('A "Red" ring; (two)!', "a red ring two"), ("left-hand, isn't it? 50%", "left-hand, isn't it? 50%"),
     ("  many\n blanks\t ", "many blanks"), ("word " * 40, "word " * (MOST_WORDS - 1) + "word")],
)  # fmt: skip
def test_captions_are_cleaned_as_blip_was_trained(caption, expected) -> None:
    """Other words than in training would cost recall without a word of warning."""
    assert cleaned(caption) == expected


def test_blip_reads_35_tokens(rows, processor) -> None:
    """Also where there are more positions; [SEP] stays last."""
    words = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=512)
    long = Row("long", rows[0].images, "red-ring " * 20)
    tokens = retrieval._tokens([long.text], words)
    assert tokens["input_ids"].shape == (1, BLIP_TOKENS)
    assert tokens["input_ids"][0, -1] == WORDS.index("[SEP]")
    assert Retrieval().text_lengths([long, rows[0]], processor) == {"text": [16, 5]}


def test_clip_reads_77_tokens_up_to_its_end_of_text() -> None:
    """The end stays when a caption is cut, for CLIP reads it there; padding, which is the same token, is masked."""
    letters = [*"abcdefghijklmnopqrstuvwxyz-", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz-")]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate([*letters, *ends])}, merges=[])
    tokens = retrieval._tokens(["a-b " * 40, "A ab"], tokenizer)
    start, end = tokenizer.convert_tokens_to_ids(ends)
    assert tokens["input_ids"].shape == (2, CLIP_TOKENS)
    assert tokens["input_ids"][:, 0].tolist() == [start, start]
    assert tokens["input_ids"][0, -1] == end
    assert tokens["attention_mask"].sum(1).tolist() == [CLIP_TOKENS, 5]
    assert tokens["input_ids"][1, 4] == end


def test_evidence_is_each_images_own(model, rows, processor) -> None:
    """Whatever the batches; tokens wait as half as large numbers, with what each stands for."""
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
def test_a_pairs_score_is_its_similarity_and_its_match(rows, processor, threshold_scale) -> None:
    """Worked out pair by pair from the model alone; tokens have waited in eleven bits."""
    model = attached(dense(), threshold_scale)
    scores, back = candidates(model, predictions(model, rows, processor), k_test=99)
    assert torch.equal(scores, back.T)
    batch = Retrieval().collate(rows, processor)
    with torch.no_grad():
        images, tokens = model.embed_images(batch["pixel_values"])
        texts = model.embed_texts(batch["judge.input_ids"], batch["judge.attention_mask"])
        for image, text in itertools.product(range(4), range(8)):
            of = slice(text, text + 1)
            match = model.match(tokens.part(slice(image, image + 1)), batch["judge.input_ids"][of],
                                batch["judge.attention_mask"][of])  # fmt: skip
            torch.testing.assert_close(scores[image, text], images[image] @ texts[text] + match[0], rtol=0, atol=0.01)


def test_a_pairs_score_does_not_depend_on_the_other_candidates(model, rows, processor, monkeypatch) -> None:
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
    """From both sides, as many as asked for, those whose embeddings are nearest; the rest come after them all."""
    found = predictions(model, rows, processor)
    texts_of, images_of = candidates(model, found, k_test=2)
    assert texts_of.isfinite().sum(1).tolist() == [2] * 4
    assert images_of.isfinite().sum(1).tolist() == [2] * 8
    similar = torch.stack([one.image for one in found]) @ torch.cat([one.texts for one in found]).T
    assert all(set(best.tolist()) == set(kept.nonzero()[:, 0].tolist())
               for best, kept in zip(similar.topk(2).indices, texts_of.isfinite(), strict=True))  # fmt: skip


class _Embeds:
    """Embeddings and nothing more, as CLIP; it must never be asked to match."""

    reranks = False

    def __call__(self, **inputs: Tensor) -> ClipOutput:
        return ClipOutput(image_embedding=torch.eye(4), memory=Packed(torch.zeros(4, 1), [1] * 4))

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Texts of images 0 to 3; the last of image 2 is taken for image 0's, that of 1 for 3's."""
        return torch.eye(4)[[0, 0, 3, 2, 2, 0, 3, 3]]


def test_similarities_alone_rank_where_nothing_reranks(rows, processor) -> None:
    """Images 0 and 3 each share their first place with a wrong text, image 1 has its own behind all others;
    of the texts the two that are taken for another image's miss theirs."""
    task, found = Retrieval(), predictions(_Embeds(), rows, processor, batch_size=4)
    assert all(one.tokens is None for one in found)
    result = task.score(_Embeds(), found, rows)
    assert result.answers[4:] == [0, 0, 3, 2, 2, 0, 3, 3]
    recalls = retrieval.ranked(found, *task.candidates(_Embeds(), found)).recalls()
    assert (recalls["TR@1"], recalls["TR@5"], recalls["IR@1"]) == (0.25, 0.75, 0.75)
    by_name = [recalls[f"{way}@{depth}"] for way in ("TR", "IR") for depth in (1, 5, 10)]
    assert task.quality(result.scores) == pytest.approx(100 * sum(by_name) / 6)
    assert (len(result.scores), result.unlabelled) == (4, 0)


def test_the_score_of_a_reranking_is_the_metrics_own(model, rows, processor) -> None:
    """Queries rank their own candidates: the two directions are not one matrix turned."""
    found = predictions(model, rows, processor)
    texts_of, images_of = candidates(model, found, k_test=2)
    with torch.no_grad():
        result = Retrieval(k_test=2).score(model, found, rows)
    owner = [0, 0, 1, 2, 2, 2, 3, 3]
    whole = rank(texts_of.numpy(), owner, images_of.numpy()).recalls()["R"]
    assert Retrieval().quality(result.scores) == pytest.approx(100 * whole)
    assert result.answers == [*texts_of.argmax(1).tolist(), *images_of.argmax(1).tolist()]


def test_an_evaluation_looks_at_each_image_once(model, rows, processor, monkeypatch) -> None:
    """The image tower is nearly all of the cost; the forward's own embeddings are what ranks."""
    seen: list[int] = []
    encode = model.encode_images

    def watched(pixels: Tensor, pruner: Any) -> Packed:
        seen.append(len(pixels))
        return encode(pixels, pruner)

    monkeypatch.setattr(model, "encode_images", watched)
    run.run(model, batches(rows, Retrieval(), processor, batch_size=3, workers=0), Retrieval(), PLACE)
    assert seen == [3, 1]


def test_an_evaluation_without_labels_answers_only(model, rows, processor) -> None:
    """Whoever looks for agreement with the dense model compares the best of each query."""
    made = list(batches(rows, Retrieval(), processor, batch_size=3, workers=0))
    blind = run.run(model, made, Retrieval(), PLACE)
    seeing = run.run(model, made, Retrieval(), PLACE, rows)
    assert (blind.scores, blind.result.unlabelled) == ([], 4)
    assert blind.answers == seeing.answers
    assert len(blind.answers) == 4 + 8
    assert len(seeing.scores) == 4
    assert seeing.gflops(model).shape == (4,)


def test_half_precision_ranks_in_single(model, rows, processor) -> None:
    """Similarities of neighbours differ by less than bfloat16 can tell."""
    found = predictions(_Embeds(), rows, processor, batch_size=4)
    near = [Found(one.image * 0 + 0.5 + 0.0001 * number, one.texts, one.words) for number, one in enumerate(found)]
    with torch.autocast("cpu", torch.bfloat16):
        texts_of, _ = Retrieval().candidates(_Embeds(), near)
    assert texts_of.dtype == torch.float32
    assert len(texts_of[:, 0].unique()) == 4


def test_the_task_says_what_it_is() -> None:
    """The words that reports print."""
    task = tasks.get("retrieval")
    assert (task.name, task.metric, task.unit) == ("retrieval", "mean recall", "percent")


def test_matched_pairs_are_told_by_their_images(model, rows, processor, monkeypatch) -> None:
    """Each pair once though two queries ask for it, in however many runs; images by their number in the split."""
    monkeypatch.setattr(retrieval, "PAIRS_AT_ONCE", 3)
    found = predictions(model, rows, processor)
    runs: list[TextRun] = []
    with torch.no_grad():
        texts_of, images_of = Retrieval(2).candidates(model, found, runs.append)
    asked = texts_of.isfinite() | images_of.T.isfinite()
    told = torch.zeros(len(rows), dtype=torch.long)
    for text_run in runs:
        told[list(text_run.samples)] += torch.tensor(text_run.texts)
    assert told.tolist() == asked.sum(1).tolist()
    assert len(runs) == -(-int(asked.sum()) // 3)


def test_a_model_that_does_not_rerank_is_not_heard(rows, processor) -> None:
    """CLIP's figure is its forward's."""
    found = predictions(_Embeds(), rows, processor, batch_size=4)
    runs: list[TextRun] = []
    Retrieval().score(_Embeds(), found, rows, runs.append)
    assert runs == []


def test_tasks_without_candidates_refuse_to_number_them(processor) -> None:
    """A setting that does nothing would be believed to do something."""
    assert "2 most similar" in tasks.prepared("retrieval", processor, DATA, 2).answering
    for name in ("nlvr2", "caption"):
        with pytest.raises(UsageError, match="no candidates"):
            tasks.prepared(name, processor, DATA, 2)
