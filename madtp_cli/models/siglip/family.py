"""The family record of SigLIP and SigLIP 2 (fixed resolution)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from madtp_cli.flops import parts
from madtp_cli.models.family import (
    Family,
    ImageSettings,
    TextLimit,
    TokenizerRecord,
    published_architectures,
    require_vocabulary,
)


def image_tokens(vision: Any) -> int:
    """Return the tokens of a dense image: one per patch."""
    rows, columns = parts.patch_grid(vision)
    return rows * columns


def read_tokenizer(folder: Path) -> Any:
    """Read a SigLIP tokenizer from a folder; see `processing`."""
    from madtp_cli.models.siglip import tokenization

    return tokenization.read(folder)


def fit_tokenizer(tokenizer: Any, text_config: Any) -> None:
    """Check that a tokenizer belongs to a checkpoint. T5's extra tokens, which no text contains, are not counted.

    Raises:
        ValueError: The vocabulary has another size.
    """
    extra = sum(token.startswith("<extra_id_") for token in tokenizer.get_added_vocab())
    if len(tokenizer) - extra != text_config.vocab_size:
        require_vocabulary(tokenizer, text_config)


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that a text configuration states. The first SigLIP has no token that starts a text."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a SiglipProcessor, which squashes the image; without a tokenizer its image processor alone."""
    from transformers import SiglipImageProcessorPil, SiglipProcessor

    images = SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size},
        **settings.arguments,
    )
    if tokenizer is None:
        return images
    return SiglipProcessor(image_processor=images, tokenizer=tokenizer)


#: Sizes of the towers by name: width, feed-forward width, blocks, heads. Source: SigLIP, arXiv:2303.15343.
TOWERS = {"base": (768, 3072, 12, 12), "large": (1024, 4096, 24, 16), "so400m": (1152, 4304, 27, 16)}


def architecture(size: str, patch_size: int, image_size: int, vocabulary: int = 32_000) -> Any:
    """Return the configuration of a published SigLIP.

    Args:
        size: A key of `TOWERS`.
        patch_size: Patch side in pixels.
        image_size: Image side in pixels.
        vocabulary: Word pieces; SigLIP 2 has those of Gemma.
    """
    from madtp_cli.models.siglip.towers import MadtpSiglipConfig

    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    tower: dict[str, Any] = dict(zip(names, TOWERS[size], strict=True))
    grid = {"image_size": image_size, "patch_size": patch_size}
    text = tower | {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": 1}
    return MadtpSiglipConfig(vision_config=tower | grid, text_config=text)


#: Word pieces of SigLIP 2, which has Gemma's vocabulary.
GEMMA = 256_000

FAMILY = Family(
    name="siglip",
    tasks=("classification", "embedding", "retrieval"),
    same_weights=frozenset({"classification", "embedding", "retrieval"}),
    image_only={"embedding": ("vision_model.",)},
    read_out={"vision": None, "text": -1},
    position_key="vision_model.embeddings.position_embedding.weight",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",), ("spiece.model",)),
        repositories={
            32_000: ("google/siglip-base-patch16-224", "google/siglip-so400m-patch14-384"),
            250_000: ("google/siglip-base-patch16-256-multilingual",),
            GEMMA: ("google/siglip2-base-patch16-224", "google/siglip2-so400m-patch16-384"),
        },
        read=read_tokenizer,
        fit=fit_tokenizer,
        special_ids=special_ids,
    ),
    processor_class="SiglipProcessor",
    build_processor=build_processor,
    # The tokenizer cleans a text as the model was trained: SigLIP 2 reads the punctuation.
    text_limits={"classification": TextLimit(tokens=64), "retrieval": TextLimit(tokens=64, plain=True)},
    padded_texts=True,
    tower_defaults={
        "vision": {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
        "text": {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"},
    },
    image_settings=ImageSettings(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    resize_modes=("squash",),
    image_tokens=image_tokens,
    head_widths=(64, 72),
    architectures=published_architectures(__file__, architecture),
)
