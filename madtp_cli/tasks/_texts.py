"""Words as BLIP was trained on them, and as its tokenizer gives and takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from madtp_cli.errors import CheckpointError

#: What BLIP leaves out of every text.
DROPPED = re.compile(r"[.!\"()*#:;~]")


def cleaned(text: str, most: int) -> str:
    """A sentence or caption as BLIP was trained on it: lower case, without some marks, at most so many words."""
    return " ".join(DROPPED.sub(" ", text.lower()).split()[:most])


def tokens(texts: Sequence[str], tokenizer: Any, first: str, most: int) -> dict[str, Tensor]:
    """Padded input_ids and attention_mask, [texts, tokens]; `first` in place of [CLS], at most so many tokens.

    Raises:
        CheckpointError: The tokenizer has no such first token.
    """
    start = tokenizer.convert_tokens_to_ids(first)
    if start is None or start == tokenizer.unk_token_id:
        raise CheckpointError(
            f"The tokenizer has no {first} token, with which BLIP's texts begin.\nGive BLIP's own one."
        )
    limit = min(most, tokenizer.model_max_length)
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
    encoded["input_ids"][:, 0] = start
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def texts(ids: Tensor, tokenizer: Any) -> list[str]:
    """Words of [texts, tokens], without special tokens."""
    written: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in written]
