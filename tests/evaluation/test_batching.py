"""The batches of a session."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from madtp_cli.config import RunSettings
from madtp_cli.errors import DataError
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from tests.paths import EXAMPLES


def test_full_batches_or_one_batch_of_all_rows() -> None:
    """They are in the order of the rows, at most as many as requested, and have no labels."""
    session = Session.open(EXAMPLES / "blip.pt", RunSettings(limit=25, device="cpu"), ProgressReporter(), ["val"])
    sizes = {
        size: [len(batch["pixel_values"]) for batch in batching.full_batches(session, "val", size, 9)]
        for size in (1, 8, 40)
    }
    assert sizes == {1: [1] * 9, 8: [8] * 3, 40: [25]}
    (whole,), parts = (batching.full_batches(session, "val", size, 9) for size in (25, 5))
    assert torch.equal(whole["pixel_values"], torch.cat([part["pixel_values"] for part in parts]))
    assert all("labels" not in part for part in parts)


def test_some_rows_of_sorted_data_represent_all() -> None:
    """A folder of classes begins with many images of one class, which would be all that a short run sees."""
    session = Session.open(EXAMPLES / "blip.pt", RunSettings(device="cpu"), ProgressReporter(), ["val"])
    drawn = sorted(session.data.split("val")[:300], key=lambda row: row.label or 0)
    session.data = replace(session.data, splits={"val": drawn}, random_order=False)
    chosen = batching.rows(session, "val", 40)
    assert 10 < sum(row.label or 0 for row in chosen) < 30
    assert list(chosen) == [row for row in drawn if row in list(chosen)]
    labels = torch.cat([batch["labels"] for batch in batching.batches(session, "val", 40)])
    assert labels.tolist() == [row.label for row in chosen]
    first = batching.one_batch(session, "val")["labels"]
    assert first.tolist() == [row.label for row in batching.rows(session, "val", len(first))]
    assert 0 < first.sum() < len(first)

    session.settings = session.settings.model_copy(update={"limit": 50})
    limited = list(batching.rows(session, "val"))
    assert len(limited) == 50
    assert all(row in limited for row in batching.rows(session, "val", 40)), "the limit holds for calibration too"
    assert list(batching.rows(session, "val", 60)) == limited


def test_an_empty_split_is_an_error() -> None:
    """The training repeats its epochs without end, and would wait for the first batch for ever."""
    session = Session.open(EXAMPLES / "blip.pt", RunSettings(limit=2, device="cpu"), ProgressReporter(), ["train"])
    session.data = replace(session.data, splits={"train": []})
    for read in (batching.training_batches, lambda opened: batching.one_batch(opened, "train")):
        with pytest.raises(DataError, match="The train split of .* is empty"):
            next(iter(read(session)))


def test_only_training_uses_another_caption_in_each_epoch() -> None:
    """Costs are those of the first caption of an image; the training uses all five."""
    settings = RunSettings(limit=2, batch_size=2, device="cpu", seed=5)
    session = Session.open(EXAMPLES / "blip-caption.pt", settings, ProgressReporter(), ["train"])
    words = session.processor.tokenizer.batch_decode

    def texts(batch) -> frozenset[str]:
        return frozenset(words(batch["input_ids"], skip_special_tokens=True))

    passes = [texts(batch) for batch in itertools.islice(batching.training_batches(session), 6)]
    assert len(set(passes[:5])) == 5
    assert passes[5] == passes[0]
    assert passes == [texts(batch) for batch in itertools.islice(batching.training_batches(session), 6)]
    later = itertools.islice(batching.training_batches(session, done=4), 2)
    assert [texts(batch) for batch in later] == passes[4:]
    kept = [texts(batch) for batch in itertools.islice(batching.training_batches(session, 2), 3)]
    assert kept == [passes[0]] * 3
    captions = [{f"a picture of {text}" for text in row.references} for row in batching.rows(session, "train")]
    assert set().union(*passes[:5]) == set().union(*captions)
    firsts = frozenset(f"a picture of {row.text}" for row in batching.rows(session, "train"))
    assert [texts(batch) for batch in batching.batches(session, "train")] == [firsts] * 1
    assert [texts(batch) for batch in batching.batches(session, "train")] == [firsts]


@torch.no_grad()
def test_a_training_batch_of_retrieval_has_groups_of_similar_texts() -> None:
    """Each epoch has every row once, and other groups; without the dense model the order is random."""
    settings = RunSettings(limit=64, batch_size=8, device="cpu", seed=5)
    session = Session.open(EXAMPLES / "clip.pt", settings, ProgressReporter(), ["train"])

    def epochs(embeddings: Tensor | None) -> tuple[list[frozenset[bytes]], float]:
        """Return the batches of two epochs as sets of images, and the similarity of a text to the nearest one."""
        batches, nearest = [], []
        for batch in itertools.islice(batching.training_batches(session, 64, embeddings=embeddings), 16):
            texts = session.model.embed_texts(batch["input_ids"], batch["attention_mask"])
            nearest.append((texts @ texts.T).fill_diagonal_(-1).amax(1).mean().item())
            batches.append(frozenset(image.numpy().tobytes() for image in batch["pixel_values"]))
        return batches, sum(nearest) / len(nearest)

    embeddings = batching.text_embeddings(session, session.model, 64)
    grouped, similarity = epochs(embeddings)
    assert len(frozenset().union(*grouped[:8])) == len(frozenset().union(*grouped[8:])) == 64
    assert set(grouped[:8]) != set(grouped[8:])
    assert similarity > epochs(None)[1] + 0.05
    assert grouped[3:] == [
        frozenset(image.numpy().tobytes() for image in batch["pixel_values"])
        for batch in itertools.islice(batching.training_batches(session, 64, 3, embeddings), 13)
    ]
