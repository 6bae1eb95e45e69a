"""The retrieval task: its predictions, rankings and scores."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipProcessor

from madtp_cli import tasks
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.metrics.retrieval import rank
from madtp_cli.models.dual_encoder import DualOutput
from madtp_cli.tasks import retrieval
from madtp_cli.tasks.retrieval import EmbeddedSample, Retrieval
from tests.retrieving import attached, dense
from tests.tasks.noise import noise_rows, small_processor

CPU = ComputeConfig.of("cpu", "float32")
DATA = Dataset("retrieval", "here", {})


@pytest.fixture(scope="module")
def processor() -> BlipProcessor:
    """A processor for the small model."""
    return small_processor()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Four images of noise with two, one, three and two captions."""
    return noise_rows(tmp_path_factory.mktemp("images"))


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


def test_predictions_do_not_depend_on_the_batch(model, rows, processor) -> None:
    """Tokens are kept as the model computed them, with the number of patches that each stands for."""
    found = predictions(model, rows, processor)
    assert [len(one.words) for one in found] == [len(one.texts) for one in found] == [2, 1, 3, 2]
    for one, row in zip(found, rows, strict=True):
        alone = predictions(model, [row], processor)[0]
        torch.testing.assert_close(one.image, alone.image, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.texts, alone.texts, rtol=0, atol=1e-5)
        assert [word.tolist() for word in one.words] == [word.tolist() for word in alone.words]
        assert one.tokens is not None
        assert one.sizes is not None
        assert one.tokens.dtype == torch.float32
        assert one.sizes.sum() == 37


@pytest.mark.parametrize("threshold_scale", [0.0, 0.5])
def test_the_score_of_a_pair_is_its_similarity_plus_its_match(rows, processor, threshold_scale) -> None:
    """Computed for each pair with the model alone."""
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
            torch.testing.assert_close(scores[image, text], images[image] @ texts[text] + match[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("score", "column"), [("logit", (0.0, 1.0)), ("log-odds", (-1.0, 1.0))])
def test_the_match_is_the_logit_as_in_blip_or_the_log_odds(rows, processor, score, column) -> None:
    """Published recalls were measured with the logit of a match; the matching head's two logits are known here."""
    model = dense()
    found = predictions(model, rows, processor)
    with torch.inference_mode():
        scores, _ = Retrieval(99, score).candidates(model, found)
        similar = torch.stack([one.image for one in found]) @ torch.cat([one.texts for one in found]).T
        model.itm_head.weight.zero_()
        model.itm_head.bias.copy_(torch.tensor([3.0, 5.0]))
        constant, _ = Retrieval(99, score).candidates(model, found)
    torch.testing.assert_close(constant, similar + column[0] * 3 + column[1] * 5, rtol=0, atol=1e-5)
    assert not torch.allclose(scores, constant, atol=0.1)
    task = tasks.prepared("retrieval", processor, DATA, match_score=score)
    assert f"plus the {score} of a match" in task.generation_cost_description


def test_a_task_without_matches_refuses_a_match_score(processor) -> None:
    """An option that does nothing hides a mistake."""
    with pytest.raises(UsageError, match="--match-score"):
        tasks.prepared("nlvr2", processor, DATA, match_score="logit")


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

    def __call__(self, **inputs: Tensor) -> DualOutput:
        return DualOutput(image_embedding=torch.eye(4), memory=Packed(torch.zeros(4, 1), [1] * 4))

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
