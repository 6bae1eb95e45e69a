"""Images with captions, and a processor for the small BLIP for retrieval."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from transformers import BertTokenizer, BlipImageProcessorPil, BlipProcessor

from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile

SPECIAL = ["[PAD]", "[UNK]", "[MASK]", "[SEP]", "[CLS]"]
WORDS = [*SPECIAL, *(f"word{number}" for number in range(61)), "red", "ring"]
CAPTIONS = (("A red RING.", "ring"), ("word1",), ("word2 red", "word3", "word4 word5 word6"), ("word7", "word8 ring"))


def small_processor() -> BlipProcessor:
    """Return a processor for 48 pixels and 70 word pieces; [DEC] and [ENC] are the last."""
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=16)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    images = BlipImageProcessorPil(size={"height": 48, "width": 48}, image_mean=[0.5] * 3, image_std=[0.2] * 3)
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


def noise_rows(folder: Path) -> list[Row]:
    """Write four images of noise to a folder; return their rows with two, one, three and two captions."""
    generator = torch.Generator().manual_seed(0)
    for number in range(len(CAPTIONS)):
        noise = torch.randint(0, 255, (48, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.png")
    return [Row(str(number), (ImageFile(folder / f"{number}.png"),), captions[0], references=captions)
            for number, captions in enumerate(CAPTIONS)]  # fmt: skip
