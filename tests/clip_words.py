"""A small CLIP tokenizer, since the published vocabulary is not available to the tests."""

from __future__ import annotations

import json
import string
from pathlib import Path

from transformers import CLIPTokenizer

MERGES = (("d", "o"), ("do", "g</w>"))


def clip_words(folder: Path, pieces: int, form: str = "tokenizer.json") -> Path:
    """Write a tokenizer with this number of word pieces and return its folder.

    The last two word pieces are a text's start and end; "dog" is one word piece. `form` is tokenizer.json, or
    vocab.json for that file and merges.txt, as OpenAI has them.
    """
    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase]
    known = [*letters, *("".join(pair) for pair in MERGES)]
    filling = [f"piece{number}" for number in range(pieces - len(known) - 2)]
    words = [*known, *filling, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(words)}
    folder.mkdir(parents=True, exist_ok=True)
    if form == "vocab.json":
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in MERGES))
    else:
        CLIPTokenizer(vocab=vocabulary, merges=list(MERGES)).save_pretrained(folder)
    return folder
