"""The family record of BLIP."""

from __future__ import annotations

from typing import Any

from madtp_cli.models.family import (
    Family,
    ImageSettings,
    TextLimit,
    TokenizerRecord,
    published_architectures,
    read_bert_tokenizer,
    require_vocabulary,
)

#: The last two word pieces of every BLIP: [DEC] begins a text of the decoder, [ENC] a text that attends to an image.
DECODER, ENCODER = "[DEC]", "[ENC]"


def fit_tokenizer(tokenizer: Any, text_config: Any) -> None:
    """Add [DEC] and [ENC] to a plain BERT vocabulary.

    Raises:
        ValueError: The vocabulary has another size, or does not end with [DEC] and [ENC].
    """
    vocabulary = text_config.vocab_size
    if len(tokenizer) == vocabulary - 2:
        tokenizer.add_special_tokens({"bos_token": DECODER})
        tokenizer.add_tokens([ENCODER], special_tokens=True)
    require_vocabulary(tokenizer, text_config)
    if tokenizer.convert_tokens_to_ids([DECODER, ENCODER]) != [vocabulary - 2, vocabulary - 1]:
        raise ValueError(f"does not end with {DECODER} and {ENCODER}, as every BLIP tokenizer does")


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that a text configuration states. BLIP ends a text with [SEP]."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a BlipProcessor, which resizes an image to a square without keeping its proportions."""
    from transformers import BlipImageProcessorPil, BlipProcessor

    images = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        **settings.arguments,
    )
    return BlipProcessor(image_processor=images, tokenizer=tokenizer)


def task_processor(processor: Any, task: str) -> Any:
    """Return the processor of a task: NLVR2 and VQA begin a text with [ENC], and NLVR2 has two images per text."""
    from madtp_cli.models.blip.processing import MadtpBlipProcessor

    images = {"nlvr2": 2, "vqa": 1}.get(task)
    return MadtpBlipProcessor(processor.image_processor, processor.tokenizer, images) if images else processor


def architecture(task: str, image_size: int, *, large: bool = False, **vision: Any) -> Any:
    """Return the configuration of a published model. Base and large differ only in the image tower.

    Args:
        task: Name of the task.
        image_size: Image side in pixels.
        large: Whether the image tower is that of BLIP-large.
        vision: Fields of the image tower's configuration that differ from the published model's.

    Source: Salesforce BLIP, arXiv:2201.12086 (configuration files of the released code).
    """
    from madtp_cli.models.blip.towers import MadtpBlipConfig

    width, layers, heads = (1024, 24, 16) if large else (768, 12, 12)
    published = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": 16,
        "layer_norm_eps": FAMILY.tower_defaults["vision"]["layer_norm_eps"],
    }
    return MadtpBlipConfig(task=task, vision_config=published | vision, text_config={"num_attention_heads": 12})


FAMILY = Family(
    name="blip",
    tasks=("caption", "nlvr2", "retrieval", "vqa"),
    read_out={"vision": 0, "text": 0},
    position_key="vision_model.embeddings.position_embedding",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",), ("vocab.txt",)),
        # The vocabulary is that of bert-base-uncased, [DEC] and [ENC].
        repositories={30_524: ("bert-base-uncased", "google-bert/bert-base-uncased")},
        read=read_bert_tokenizer,
        fit=fit_tokenizer,
        special_ids=special_ids,
        ends=("cls_token", "sep_token"),
    ),
    processor_class="BlipProcessor",
    resize_modes=("squash",),
    text_conventions={"retrieval": "match_token", "caption": "prompt"},
    build_processor=build_processor,
    own_processor="MadtpBlipProcessor",
    task_processor=task_processor,
    # Source: the data sets and models of the released BLIP code. 512 is the number of text positions.
    text_limits={
        "nlvr2": TextLimit(words=40, tokens=512),
        "caption": TextLimit(words=30, tokens=40),
        "retrieval": TextLimit(words=30, tokens=35),
        "vqa question": TextLimit(words=50, tokens=35),
        "vqa answer": TextLimit(tokens=512),
    },
    tower_defaults={
        "vision": {"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
        "text": {"layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    },
    tied={
        "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
        "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
    },
    architectures=published_architectures(__file__, architecture),
)
