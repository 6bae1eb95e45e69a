"""The family record of ViLT."""

from __future__ import annotations

from typing import Any

from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from madtp_cli.models.family import (
    Family,
    ImageSettings,
    TextLimit,
    TokenizerRecord,
    published_architectures,
    read_bert_tokenizer,
    require_vocabulary,
)

#: Longer side of an image, divided by its shorter side, at most: transformers' numbers for COCO.
MOST_ELONGATED = 1333 / 800
#: Both sides of a resized image are multiples of this number of pixels, which is the side of a patch.
DIVISOR = 32


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that a text configuration states."""
    return {"pad_token_id": tokenizer.pad_token_id}


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a ViltProcessor. It keeps the proportions of an image, and pads the images of a batch."""
    from transformers import ViltImageProcessorPil, ViltProcessor

    images = ViltImageProcessorPil(
        size={"shortest_edge": image_size},
        size_divisor=DIVISOR,
        **settings.arguments,
    )
    return ViltProcessor(image_processor=images, tokenizer=tokenizer)


def tokens_of_image(width: int, height: int, vision: Any) -> int:
    """Return the tokens of an image of this many pixels: its shorter side is resized, both are cut to whole patches.

    >>> from types import SimpleNamespace
    >>> tokens_of_image(640, 480, SimpleNamespace(image_size=384, patch_size=32)) - 1 == 16 * 12
    True
    """
    scale = vision.image_size / min(width, height)
    scale = min(scale, int(MOST_ELONGATED * vision.image_size) / max(width, height))
    rows, columns = (int(side * scale + 0.5) // DIVISOR * DIVISOR // vision.patch_size for side in (height, width))
    return rows * columns + 1


def architecture(task: str, answers: int = 0) -> Any:
    """Return the configuration of a published model.

    Args:
        task: Name of the task.
        answers: Number of answers of the classifier of a VQA model.

    Source: ViLT, arXiv:2102.03334; the sizes are the defaults of transformers' configuration.
    """
    from madtp_cli.models.vilt.towers import MadtpViltConfig

    text = {"modality_type_vocab_size": 3 if task == "nlvr2" else 2}
    names = [f"answer {number}" for number in range(answers)]
    return MadtpViltConfig(task=task, text_config=text, answers=names or None)


FAMILY = Family(
    name="vilt",
    tasks=("nlvr2", "vqa"),
    read_out={"vision": 0},
    position_key="vilt.embeddings.position_embeddings",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",), ("vocab.txt",)),
        repositories={30_522: ("dandelin/vilt-b32-mlm", "bert-base-uncased", "google-bert/bert-base-uncased")},
        read=read_bert_tokenizer,
        fit=require_vocabulary,
        special_ids=special_ids,
        ends=("cls_token", "sep_token"),
    ),
    processor_class="ViltProcessor",
    resize_modes=("shortest",),
    build_processor=build_processor,
    image_settings=ImageSettings(tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD)),
    image_lengths=tokens_of_image,
    text_limits={"nlvr2": TextLimit(tokens=40, plain=True), "vqa question": TextLimit(tokens=40, plain=True)},
    tower_defaults={"vision": {"layer_norm_eps": 1e-12, "hidden_act": "gelu"}},
    architectures=published_architectures(__file__, architecture),
)
