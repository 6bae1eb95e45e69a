"""The tokenizers of SigLIP and SigLIP 2, prepared as the models were trained: clean texts, padding on the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import is_sentencepiece_available

#: What SigLIP removes from texts, which SigLIP 2 reads.
PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


def read(folder: Path) -> Any:
    """Read a tokenizer from a folder: tokenizer.json, or the spiece.model of the first SigLIP.

    Raises:
        ImportError: spiece.model is the only file, and sentencepiece is not installed.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        _clean_texts(tokenizer.backend_tokenizer, without_punctuation=tokenizer.pad_token == tokenizer.eos_token)
    elif is_sentencepiece_available():
        from transformers import SiglipTokenizer

        tokenizer = SiglipTokenizer.from_pretrained(folder, local_files_only=True)  # cleans texts itself
    else:
        raise ImportError("has only a spiece.model, which needs sentencepiece: pip install sentencepiece")
    tokenizer.padding_side = "right"
    return tokenizer


def _clean_texts(backend: Tokenizer, *, without_punctuation: bool) -> None:
    """Let a tokenizer write texts in lower case, for the first SigLIP also without punctuation.

    Some published files leave this to the program. Cleaning twice changes nothing.
    """
    steps: list[Any] = [normalizers.Lowercase()]
    if without_punctuation:
        steps += [
            normalizers.Replace(Regex(PUNCTUATION), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    own = backend.normalizer
    if not str(own).startswith(str(normalizers.Sequence(steps))[:-2]):
        backend.normalizer = normalizers.Sequence([*steps, *([own] if own is not None else [])])
