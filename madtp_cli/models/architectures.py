"""Published architectures by name, to be profiled without their weights."""

from __future__ import annotations

from typing import Any

from madtp_cli.models.blip.towers import MadtpBlipConfig
from madtp_cli.models.clip.towers import MadtpClipConfig


def _blip(width: int, layers: int, heads: int, image_size: int, task: str = "nlvr2") -> MadtpBlipConfig:
    """Salesforce BLIP; base and large differ in the image tower alone (configs of the original)."""
    vision: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": 16,
        "layer_norm_eps": 1e-6,
    }
    return MadtpBlipConfig(task=task, vision_config=vision, text_config={"num_attention_heads": 12})


def _clip(patch_size: int, image_size: int, *, large: bool = False) -> MadtpClipConfig:
    """OpenAI's CLIP ViT (arXiv:2103.00020, table 20); heads are 64 wide."""
    widths, layers = ((1024, 768), 24) if large else ((768, 512), 12)
    image, text = (
        {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64} for width in widths
    )
    grid = {"num_hidden_layers": layers, "image_size": image_size, "patch_size": patch_size}
    return MadtpClipConfig(projection_dim=widths[1], vision_config=image | grid, text_config=text)


ARCHITECTURES = {
    "blip-nlvr-base": lambda: _blip(768, 12, 12, 384),
    "blip-nlvr-large": lambda: _blip(1024, 24, 16, 384),
    "blip-vqa-base": lambda: _blip(768, 12, 12, 480, "vqa"),
    "blip-vqa-large": lambda: _blip(1024, 24, 16, 480, "vqa"),
    "blip-caption-base": lambda: _blip(768, 12, 12, 384, "caption"),
    "blip-caption-large": lambda: _blip(1024, 24, 16, 384, "caption"),
    "blip-retrieval-base": lambda: _blip(768, 12, 12, 384, "retrieval"),
    "blip-retrieval-large": lambda: _blip(1024, 24, 16, 384, "retrieval"),
    "clip-vit-b-32": lambda: _clip(32, 224),
    "clip-vit-b-16": lambda: _clip(16, 224),
    "clip-vit-l-14": lambda: _clip(14, 224, large=True),
    "clip-vit-l-14-336": lambda: _clip(14, 336, large=True),
}
