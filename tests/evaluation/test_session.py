"""What a command works on."""

from __future__ import annotations

import itertools

import torch

from madtp_cli.config import RunSettings
from madtp_cli.evaluation import timing
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from tests.paths import EXAMPLES


def test_full_batches_are_timed_or_all_the_samples_there_are() -> None:
    """In the order of the rows; of many samples no more than timing takes."""
    session = Session.open(EXAMPLES / "blip.pt", RunSettings(limit=25, device="cpu"), ProgressReporter(), ["val"])
    sizes = {size: [len(batch["pixel_values"]) for batch in session.to_time("val", size)] for size in (1, 8, 40)}
    assert sizes == {1: [1] * timing.BATCHES, 8: [8] * 3, 40: [25]}
    (whole,), parts = session.to_time("val", 25), session.to_time("val", 5)
    assert torch.equal(whole["pixel_values"], torch.cat([part["pixel_values"] for part in parts]))
    assert all("labels" not in part for part in parts)


def test_only_training_takes_other_captions_from_pass_to_pass() -> None:
    """An image's first caption is what costs are told by; all five are there to learn from."""
    settings = RunSettings(limit=2, batch_size=2, device="cpu", seed=5)
    session = Session.open(EXAMPLES / "blip-caption.pt", settings, ProgressReporter(), ["train"])
    words = session.processor.tokenizer.batch_decode

    def told(batch) -> frozenset[str]:
        return frozenset(words(batch["input_ids"], skip_special_tokens=True))

    passes = [told(batch) for batch in itertools.islice(session.training_batches(), 6)]
    assert len(set(passes[:5])) == 5
    assert passes[5] == passes[0]
    assert passes == [told(batch) for batch in itertools.islice(session.training_batches(), 6)]
    kept = [told(batch) for batch in itertools.islice(session.training_batches(2), 3)]
    assert kept == [passes[0]] * 3
    captions = [{f"a picture of {text}" for text in row.references} for row in session.rows("train")]
    assert set().union(*passes[:5]) == set().union(*captions)
    firsts = frozenset(f"a picture of {row.text}" for row in session.rows("train"))
    assert [told(batch) for batch in session.batches("train")] == [firsts] * 1
    assert [told(batch) for batch in session.batches("train")] == [firsts]
