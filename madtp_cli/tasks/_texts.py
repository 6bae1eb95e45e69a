"""The preparation of BLIP's texts, and the conversion between texts and token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from madtp_cli.errors import CheckpointError

#: Characters that BLIP removes from every text.
DROPPED = re.compile(r"[.!\"()*#:;~]")


def cleaned(text: str, most_words: int) -> str:
    """Return a sentence or caption as BLIP was trained on it: lower case, without some characters, cut after words."""
    return " ".join(DROPPED.sub(" ", text.lower()).split()[:most_words])


def tokens(texts: Sequence[str], tokenizer: Any, first: str, most_tokens: int) -> dict[str, Tensor]:
    """Encode texts as BLIP does.

    Args:
        texts: The texts.
        tokenizer: BLIP's tokenizer.
        first: The token in place of [CLS], [ENC] or [DEC].
        most_tokens: Longer texts are cut.

    Returns:
        Padded input_ids and attention_mask, [texts, tokens].

    Raises:
        CheckpointError: The tokenizer has no such first token.
    """
    start = tokenizer.convert_tokens_to_ids(first)
    if start is None or start == tokenizer.unk_token_id:
        raise CheckpointError(
            f"The tokenizer has no {first} token, with which BLIP's texts begin.\n"
            "Give BLIP's own tokenizer with --tokenizer DIR."
        )
    limit = min(most_tokens, tokenizer.model_max_length)
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
    encoded["input_ids"][:, 0] = start
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def texts(ids: Tensor, tokenizer: Any) -> list[str]:
    """Return the texts of token ids [texts, tokens], without special tokens."""
    decoded: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in decoded]
