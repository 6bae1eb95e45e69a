"""The family record of the toy family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from madtp_cli.models.family import Family, ImageSettings, TextLimit, TokenizerRecord, require_vocabulary


def read_tokenizer(folder: Path) -> Any:
    """Read a CLIP tokenizer from a folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def fit_tokenizer(tokenizer: Any, text_config: Any) -> None:
    """Check the size of the vocabulary, and limit texts to the number of positions."""
    require_vocabulary(tokenizer, text_config)
    tokenizer.model_max_length = text_config.max_position_embeddings


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that the text configuration states."""
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a processor that resizes an image to a square without keeping its proportions."""
    from transformers import BlipImageProcessorPil, CLIPProcessor

    class ToyProcessor(CLIPProcessor):
        """Has a name of its own, by which its family is found."""

    images = BlipImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_mean=settings.mean, image_std=settings.std
    )
    return ToyProcessor(image_processor=images, tokenizer=tokenizer)


def smallest() -> Any:
    """Return the configuration of the only architecture."""
    from madtp_cli.models.toy.retrieval import ToyConfig  # type: ignore[import-not-found]

    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3}
    text = {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ToyConfig(vision_config=sizes | {"image_size": 48, "patch_size": 8}, text_config=text | {"vocab_size": 70})


FAMILY = Family(
    name="toy",
    tasks=("retrieval",),
    read_out={"vision": 0, "text": 0},
    position_key="vision_model.embeddings.position_embeddings",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",),),
        repositories={70: ("toys/toy",)},
        read=read_tokenizer,
        fit=fit_tokenizer,
        special_ids=special_ids,
    ),
    processor_class="ToyProcessor",
    build_processor=build_processor,
    image_settings=ImageSettings(tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD)),
    text_limits={"retrieval": TextLimit(tokens=16)},
    tower_defaults={"vision": {"hidden_act": "gelu"}, "text": {"hidden_act": "gelu"}},
    architectures={"toy-smallest": smallest},
)
