"""The preparation of texts: cleaning, cutting to what the model reads, and the conversion to and from token ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from madtp_cli import models
from madtp_cli.errors import CheckpointError, UsageError
from madtp_cli.models.family import TextLimit

#: Characters that BLIP removes from every text.
DROPPED = re.compile(r"[.!\"()*#:;~]")
#: Special tokens around every text.
SPECIAL_TOKENS = 2
#: Texts that are tokenized at once to find those that are too long.
TEXTS_AT_ONCE = 1024


def with_spaces(text: str) -> str:
    """Return a sentence or caption as BLIP was trained on it: lower case, some characters replaced by spaces.

    >>> with_spaces('Both images: a "Red" ring (two, or a.b)!')
    'both images a red ring two, or a b'
    """
    return " ".join(DROPPED.sub(" ", text.lower()).split())


def without_spaces(text: str) -> str:
    """Return a question as BLIP was trained on it: lower case, some characters removed.

    >>> without_spaces('What is "this" (a.b)?')
    'what is this ab?'
    """
    return " ".join(DROPPED.sub("", text.lower()).split())


@dataclass(frozen=True)
class TextKind:
    """A kind of text that a task gives to a model.

    Attributes:
        name: Key of the family's `text_limits`.
        clean: Returns a text as the model was trained on it, before it is cut.
        first: The token in place of the tokenizer's first token, [ENC] or [DEC]; None to keep the tokenizer's.
        prompt: Begins every text. Its words do not count as words of the text; its tokens do.
    """

    name: str
    clean: Callable[[str], str] = str
    first: str | None = None
    prompt: str = ""

    def limit(self, processor: Any) -> TextLimit:
        """Return how much of a text the model reads: the family's limit, and at most the model's positions."""
        limit = models.family_of_processor(processor).text_limits[self.name]
        return replace(limit, tokens=min(limit.tokens, processor.tokenizer.model_max_length))

    def prepared(self, text: str, limit: TextLimit) -> str:
        """Return a text with its prompt, cleaned and cut after the last word that the model reads."""
        cleaned = text if limit.plain else self.clean(text)
        if limit.words is not None:
            cleaned = " ".join(cleaned.split()[: limit.words])
        return f"{self.prompt} {cleaned}" if self.prompt else cleaned

    def encode(self, texts: Sequence[str], processor: Any) -> dict[str, Tensor]:
        """Return padded input_ids and attention_mask, [texts, tokens]. A text that is cut keeps its last token.

        Where a model reads the padding as text, all texts have the length of the limit and the mask is one.

        Raises:
            CheckpointError: The tokenizer lacks the first token.
        """
        limit, tokenizer = self.limit(processor), processor.tokenizer
        whole = models.family_of_processor(processor).padded_texts
        encoded = tokenizer(
            [self.prepared(text, limit) for text in texts],
            padding="max_length" if whole else True,
            truncation=True,
            max_length=limit.tokens,
            return_tensors="pt",
            return_attention_mask=True,
        )
        if whole:
            encoded["attention_mask"] = torch.ones_like(encoded["input_ids"])
        if self.first is not None and not limit.plain:
            encoded["input_ids"][:, 0] = _first_token(tokenizer, self.first)
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def encode_prompt(self, processor: Any) -> Tensor:
        """Return the first token and the prompt, [1, tokens].

        Raises:
            UsageError: The prompt leaves no room for a text.
        """
        limit = self.limit(processor).tokens
        ids = self.encode([""], processor)["input_ids"][:, :-1]
        if ids.shape[1] + SPECIAL_TOKENS > limit:
            raise UsageError(
                f"The prompt has {ids.shape[1]} tokens with its first one, and the model reads {limit} tokens.\n"
                "Give a shorter --prompt."
            )
        return ids

    def cut(self, texts: Iterable[str], processor: Any) -> list[str]:
        """Return the texts that are longer than the model reads, in order."""
        limit, texts = self.limit(processor), list(texts)
        found = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[start : start + TEXTS_AT_ONCE]
            encoded = processor.tokenizer(
                [self.prepared(text, limit) for text in part], truncation=True, max_length=limit.tokens + 1
            )
            found += [
                text
                for text, ids in zip(part, encoded["input_ids"], strict=True)
                if len(ids) > limit.tokens or self.has_too_many_words(text, limit)
            ]
        return found

    def has_too_many_words(self, text: str, limit: TextLimit) -> bool:
        """Return whether the words alone are more than the model reads. A word has at least one token."""
        most = limit.tokens - SPECIAL_TOKENS - len(self.prompt.split())
        return len(self.clean(text).split()) > min(most, limit.words or most)


def certainly_cut(texts: Mapping[TextKind, Sequence[str]]) -> dict[str, list[str]]:
    """Return, by family, the texts of which a model reads only a part, as the number of their words shows.

    No tokenizer is needed. A model with fewer positions, or texts with rare words, are cut more often.
    """
    found = {}
    for family in models.families().values():
        kinds = [kind for kind in texts if kind.name in family.text_limits]
        limits = {kind: family.text_limits[kind.name] for kind in kinds}
        cut = [text for kind in kinds for text in texts[kind] if kind.has_too_many_words(text, limits[kind])]
        if kinds:
            found[family.name] = cut
    return found


def _first_token(tokenizer: Any, name: str) -> int:
    start = tokenizer.convert_tokens_to_ids(name)
    if start is None or start == tokenizer.unk_token_id:
        raise CheckpointError(
            f"The tokenizer has no {name} token, with which BLIP's texts begin.\n"
            "Give BLIP's own tokenizer with --tokenizer DIR."
        )
    return int(start)


def texts(ids: Tensor, tokenizer: Any) -> list[str]:
    """Return the texts of token ids [texts, tokens], without special tokens."""
    decoded: list[str] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in decoded]
