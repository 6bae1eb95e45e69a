"""The family record of CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from madtp_cli.models.family import (
    Family,
    ImageSettings,
    TextLimit,
    TokenizerRecord,
    published_architectures,
    require_vocabulary,
)


def read_tokenizer(folder: Path) -> Any:
    """Read a CLIP tokenizer from a folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def fit_tokenizer(tokenizer: Any, text_config: Any) -> None:
    """Check that a tokenizer belongs to a checkpoint.

    Raises:
        ValueError: The vocabulary has another size, or the checkpoint reads texts from another token.
    """
    require_vocabulary(tokenizer, text_config)
    if tokenizer.eos_token_id != text_config.eos_token_id:
        raise ValueError(
            f"ends a text with word piece {tokenizer.eos_token_id:,}, but the checkpoint reads the text's result "
            f"from word piece {text_config.eos_token_id:,}"
        )


def special_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token numbers that a text configuration states."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def build_processor(tokenizer: Any, image_size: int, settings: ImageSettings) -> Any:
    """Build a CLIPProcessor: it resizes the shorter side and crops the middle, or it squashes the image.

    Without a tokenizer it is the image processor alone.
    """
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    square = {"height": image_size, "width": image_size}
    squash = settings.resize == "squash"
    images = CLIPImageProcessorPil(
        size=square if squash else {"shortest_edge": round(image_size * settings.edge_share)},
        crop_size=square,
        do_center_crop=not squash,
        **settings.arguments,
    )
    if tokenizer is None:
        return images
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


#: Width, blocks and heads of the image tower and of the text tower. ViT-H is OpenCLIP's, which uses plain GELU.
TOWERS = {
    "base": ((768, 12, 12), (512, 12, 8)),
    "large": ((1024, 24, 16), (768, 12, 12)),
    "huge": ((1280, 32, 16), (1024, 24, 16)),
}


def architecture(size: str, patch_size: int, image_size: int, activation: str = "quick_gelu") -> Any:
    """Return the configuration of a published CLIP with a vision transformer.

    Args:
        size: A key of `TOWERS`.
        patch_size: Patch side in pixels.
        image_size: Image side in pixels.
        activation: Activation of the feed-forward layers.

    Source: CLIP, arXiv:2103.00020, table 20; OpenCLIP, arXiv:2212.07143.
    """
    from madtp_cli.models.clip.towers import MadtpClipConfig

    image, text = (
        {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_act": activation,
        }
        for width, layers, heads in TOWERS[size]
    )
    grid = {"image_size": image_size, "patch_size": patch_size}
    return MadtpClipConfig(projection_dim=text["hidden_size"], vision_config=image | grid, text_config=text)


FAMILY = Family(
    name="clip",
    tasks=("classification", "embedding", "retrieval"),
    same_weights=frozenset({"classification", "embedding", "retrieval"}),
    image_only={"embedding": ("vision_model.", "visual_projection.")},
    read_out={"vision": 0, "text": -1},
    position_key="vision_model.embeddings.position_embedding.weight",
    tokenizer=TokenizerRecord(
        files=(("tokenizer.json",), ("vocab.json", "merges.txt")),
        repositories={
            49_408: (
                "openai/clip-vit-base-patch32",
                "openai/clip-vit-base-patch16",
                "openai/clip-vit-large-patch14",
                "openai/clip-vit-large-patch14-336",
            ),
        },
        read=read_tokenizer,
        fit=fit_tokenizer,
        special_ids=special_ids,
        ends=("bos_token", "eos_token"),
    ),
    processor_class="CLIPProcessor",
    build_processor=build_processor,
    # CLIP has 77 text positions and no limit of words. The released MADTP code cuts CLIP's captions to BLIP's 30 words.
    text_limits={"classification": TextLimit(tokens=77), "retrieval": TextLimit(tokens=77)},
    tower_defaults={
        "vision": {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
        "text": {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
    },
    head_widths=(64, 80),
    architectures=published_architectures(__file__, architecture),
)
