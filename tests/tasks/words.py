"""A tokenizer with the 70 word pieces of the small models, and a processor."""

from __future__ import annotations

from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor

SPECIAL = ["[PAD]", "[UNK]", "[SEP]", "[CLS]", "[MASK]"]
WORDS = [
    "a",
    "picture",
    "of",
    "what",
    "is",
    "the",
    "red",
    "ring",
    "blue",
    "box",
    "two",
    "yes",
    "no",
    "?",
    "on",
    "in",
    "dark",
]


def tokenizer() -> BertTokenizer:
    """Return a tokenizer; [DEC] is number 68 and [ENC] 69. After the words come w0, w1 ..."""
    words = [*SPECIAL, *WORDS]
    words += [f"w{number}" for number in range(68 - len(words))]
    made = BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=24)
    made.add_special_tokens({"bos_token": "[DEC]"})
    made.add_tokens(["[ENC]"], special_tokens=True)
    return made


def processor(side: int = 48) -> BlipProcessor:
    """Return a processor for square images with this side."""
    images = BlipImageProcessorPil(size={"height": side, "width": side}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    return BlipProcessor(image_processor=images, tokenizer=tokenizer())
