"""The family record of BLIP-2."""

from __future__ import annotations

from typing import Any

from madtp_cli.models.family import (
    Family,
    ImageSettings,
    TextLimit,
    TokenizerRecord,
    published_architectures,
    read_bert_tokenizer,
)

#: Word pieces that a tokenizer may have besides BERT's: [DEC], with which captions begin, and the image token that
#: transformers' processor adds. No text contains them.
IMAGE = "<image>"
ADDED = ("[DEC]", IMAGE)


def fit_tokenizer(tokenizer: Any, text_config: Any) -> None:
    """Check that a text has only word pieces that the checkpoint has.

    Raises:
        ValueError: The tokenizer has other word pieces.
    """
    own = len(tokenizer) - sum(token in tokenizer.get_added_vocab() for token in ADDED)
    if own not in range(text_config.vocab_size - len(ADDED), text_config.vocab_size + 1):
        raise ValueError(f"has {own:,} word pieces, but the checkpoint has {text_config.vocab_size:,}")
    if ADDED[0] not in tokenizer.get_added_vocab() and own < text_config.vocab_size:
        tokenizer.add_special_tokens({"bos_token": ADDED[0]})


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that a text configuration states."""
    return {"pad_token_id": tokenizer.pad_token_id}


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a Blip2Processor, which resizes an image to a square without keeping its proportions."""
    from transformers import Blip2Processor, BlipImageProcessorPil

    images = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        **settings.arguments,
    )
    return Blip2Processor(image_processor=images, tokenizer=tokenizer)


def architecture(image_size: int) -> Any:
    """Return the configuration of a published model for retrieval.

    Args:
        image_size: Image side in pixels.

    Source: BLIP-2, arXiv:2301.12597; ViT-g of EVA-CLIP without its last layer, and a Q-Former of BERT-base's size.
    """
    from madtp_cli.models.blip2.towers import MadtpBlip2Config

    # The sizes are the defaults of transformers' configurations.
    return MadtpBlip2Config(vision_config={"image_size": image_size}, text_config={"vocab_size": VOCABULARY})


#: bert-base-uncased and [DEC].
VOCABULARY = 30_523

FAMILY = Family(
    name="blip2",
    tasks=("retrieval",),
    read_out={"vision": 0, "text": 0},
    position_key="vision_model.embeddings.position_embedding",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",), ("vocab.txt",)),
        repositories={
            VOCABULARY: ("Salesforce/blip2-itm-vit-g", "bert-base-uncased", "google-bert/bert-base-uncased"),
        },
        read=read_bert_tokenizer,
        fit=fit_tokenizer,
        special_ids=special_ids,
        ends=("cls_token", "sep_token"),
        unused=(IMAGE,),
    ),
    processor_class="Blip2Processor",
    resize_modes=("squash",),
    build_processor=build_processor,
    # Source: the captions of the released BLIP-2 code for retrieval.
    text_limits={"retrieval": TextLimit(words=50, tokens=35)},
    tower_defaults={
        "vision": {"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
        "text": {"layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    },
    head_widths=(64, 88),
    architectures=published_architectures(__file__, architecture),
    transformers_type="blip-2",
)
