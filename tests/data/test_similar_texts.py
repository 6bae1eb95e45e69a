"""The order of training rows that puts similar texts into one batch."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from madtp_cli.data import similar_texts
from madtp_cli.data.dataset import Row
from madtp_cli.data.similar_texts import GROUP, grouped_order


def rows_of(texts: list[str], images: list[str] | None = None) -> list[Row]:
    """Return rows whose images are only names."""
    names = images or [f"image {number}" for number in range(len(texts))]
    return [Row(str(number), (name,), text) for number, (name, text) in enumerate(zip(names, texts, strict=True))]  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", [similar_texts.POOL, 50])
def test_similar_texts_are_neighbours_and_each_row_occurs_once(monkeypatch, pool) -> None:
    """In one pool each group is one kind of text; in several pools a kind can be divided."""
    monkeypatch.setattr(similar_texts, "POOL", pool)
    kinds = torch.arange(120) % 30  # four texts of each kind
    generator = torch.Generator().manual_seed(0)
    embeddings = functional.normalize(torch.eye(30)[kinds] + 0.02 * torch.rand(120, 30, generator=generator), dim=1)
    rows = rows_of([f"text {number}" for number in range(120)])
    order = grouped_order(rows, embeddings, "0/0")
    assert sorted(order) == list(range(120))
    assert order == grouped_order(rows, embeddings, "0/0") != grouped_order(rows, embeddings, "0/1")
    same = sum(kinds[a] == kinds[b] for a, b in itertools.pairwise(order))
    assert same >= (90 if pool > 120 else 20)  # about 3 in a random order


def test_a_text_that_also_belongs_to_the_image_is_in_another_group() -> None:
    """It would be learned as wrong, although it is right."""
    texts = ["a dog", "a dog", "a cat", "a cow", "a pig", "a hen", "a fox", "a bat"]
    images = ["1", "2", "3", "3", "4", "5", "6", "7"]
    embeddings = functional.normalize(torch.ones(8, 4) + 0.01 * torch.arange(32).view(8, 4).sin(), dim=1)
    rows = rows_of(texts, images)
    for seed in range(20):
        groups = similar_texts._groups(rows, embeddings)
        assert {len(group) for group in groups} <= set(range(1, GROUP + 1))
        order = grouped_order(rows, embeddings, str(seed))
        assert sorted(order) == list(range(8))
        for group in groups:
            members = [rows[number] for number in group]
            assert len({row.text for row in members}) == len({row.images for row in members}) == len(group)
