"""Published architectures by name, to be profiled without their weights."""

from __future__ import annotations

from typing import Any

from madtp_cli.models.blip import MadtpBlipConfig


def _blip(width: int, layers: int, heads: int, image_size: int) -> MadtpBlipConfig:
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
    return MadtpBlipConfig(vision_config=vision, text_config={"num_attention_heads": 12})


ARCHITECTURES = {
    "blip-nlvr-base": lambda: _blip(768, 12, 12, 384),
    "blip-nlvr-large": lambda: _blip(1024, 24, 16, 384),
}
