"""NLVR2: is this sentence true of these two images?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.pixels import pixel_values
from madtp_cli.data.rows import Row
from madtp_cli.errors import CheckpointError

#: BLIP reads at most so many words of a sentence.
MOST_WORDS = 40
#: Tokenizers without a limit of their own carry a huge number instead.
_NO_LIMIT = 1_000_000
_DROPPED = re.compile(r"[.!\"()*#:;~]")


def cleaned(sentence: str) -> str:
    """A sentence as BLIP was trained on it: lower case, without some marks, 40 words.

    >>> cleaned('Both images: a "Red" ring (two, or more)!')
    'both images a red ring two, or more'
    """
    return " ".join(_DROPPED.sub(" ", sentence.lower()).split()[:MOST_WORDS])


class Nlvr2:
    """A pair of images and a sentence, judged true or false."""

    name = "nlvr2"
    title = "Natural-language visual reasoning (NLVR2)"
    metric = "accuracy"
    unit = "percent"

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Make the arguments of the model's forward.

        Returns:
            pixel_values [batch, 2, 3, height, width], left image first; input_ids and
            attention_mask [batch, tokens], the first token [ENC]; labels [batch] if every
            row has one.
        """
        images = pixel_values([image for row in rows for image in row.images], processor.image_processor)
        tokens = _tokens([row.text for row in rows], processor.tokenizer)
        batch = {"pixel_values": images.unflatten(0, (len(rows), 2)), **tokens}
        labels = [row.label for row in rows if row.label is not None]
        if len(labels) == len(rows):
            batch["labels"] = torch.tensor(labels)
        return batch

    def text_lengths(self, texts: Sequence[str], processor: Any) -> list[int]:
        """Tokens of each sentence, [ENC] and [SEP] included."""
        lengths: list[int] = _tokens(texts, processor.tokenizer)["attention_mask"].sum(1).tolist()
        return lengths

    def answers(self, outputs: Any) -> list[Tensor]:
        """1 where the statement is judged true, else 0; one number per sample."""
        return list(outputs.logits.argmax(-1).cpu())

    def correct(self, outputs: Any, batch: dict[str, Tensor]) -> list[float]:
        """1 where the judgement equals the label, 0 elsewhere."""
        right: list[float] = (outputs.logits.argmax(-1) == batch["labels"]).float().tolist()
        return right

    def quality(self, scores: Sequence[float]) -> float:
        """Percent of the samples that are right."""
        return 100 * fsum(scores) / len(scores)


def _tokens(sentences: Sequence[str], tokenizer: Any) -> dict[str, Tensor]:
    start = tokenizer.convert_tokens_to_ids("[ENC]")
    if start is None or start == tokenizer.unk_token_id:
        raise CheckpointError(
            "The tokenizer has no [ENC] token, with which BLIP's sentences begin.\nGive BLIP's own one."
        )
    most = tokenizer.model_max_length
    limit = {"truncation": True, "max_length": most} if most < _NO_LIMIT else {}
    encoded = tokenizer([cleaned(sentence) for sentence in sentences], padding=True, return_tensors="pt", **limit)
    encoded["input_ids"][:, 0] = start
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


TASK = Nlvr2()
