"""The tokenizers of the example checkpoints, with the words of the built-in scenes as vocabulary."""

from __future__ import annotations

import json
from collections.abc import Collection

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerFast

from madtp_cli.scenes import generator

LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")


def bert_tokenizer(size: int = 0, more: Collection[str] = ()) -> BertTokenizer:
    """Build a word-piece tokenizer with BERT's special tokens, and with [DEC] and [ENC] last.

    The vocabulary holds every word of the scenes, and single letters to spell all other words.

    Args:
        size: Size of the vocabulary; unused entries fill it up. 0 adds no unused entries.
        more: Words of another data set.
    """
    words = {*LETTERS, *generator.vocabulary(), *more}
    pieces = ["##" + letter for letter in LETTERS]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words), *pieces]
    vocabulary += [f"[unused{number}]" for number in range(size - len(vocabulary) - 2)]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    return tokenizer


def clip_tokenizer(positions: int, size: int = 0, more: Collection[str] = ()) -> CLIPTokenizer:
    """Build a byte-pair tokenizer like CLIP's, with the start and end token last.

    Args:
        positions: Largest number of tokens in a text.
        size: Size of the vocabulary; unused entries fill it up. 0 adds no unused entries.
        more: Words of another data set.
    """
    single = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    merges = _learn_merges(single, more)
    pieces = dict.fromkeys([*single, *("".join(merge) for merge in merges)])
    unused = [f"<|unused{number}|>" for number in range(size - len(pieces) - 2)]
    vocabulary = [*pieces, *unused, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(vocabulary)}, merges=merges, model_max_length=positions
    )


def siglip_tokenizer(positions: int) -> PreTrainedTokenizerFast:
    """Build a word-piece tokenizer with the special tokens of the first SigLIP, which pads with the end of a text.

    Args:
        positions: Number of tokens that every text is padded to.
    """
    words = {*LETTERS, *generator.vocabulary()}
    vocabulary = ["<unk>", "</s>", *sorted(words), *("##" + letter for letter in LETTERS)]
    backend = Tokenizer(models.WordPiece({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="right",
        model_max_length=positions,
    )


def _learn_merges(single: list[str], more: Collection[str]) -> list[tuple[str, ...]]:
    """Learn byte pairs that make one token of every word of the scenes, and of `more` words."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    # The trainer merges equally frequent pairs in the order of their token numbers. Special tokens are numbered first,
    # so this list makes the numbers the same in every run.
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", special_tokens=single)
    learner.train_from_iterator(sorted({*generator.vocabulary(), *LETTERS, *more}) * 4, trainer)
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
