"""The image towers of timm that SigLIP uses, whose names state what no tensor shows."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME = re.compile(r"vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)(\.\w+)?")
HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
WIDTHS = {"base": 768, "large": 1024, "so400m": 1152, "giantopt": 1536}
EPSILON = 1e-6


@dataclass(frozen=True)
class Trunk:
    """What the name of an image tower states.

    Attributes:
        width: Width of its tokens. A model with another width is published under none of these names.
        heads: Number of attention heads.
        patch_size: Side of a patch in pixels.
        image_size: Side of the image in pixels.
        activation: Name of the activation function, as transformers has it.
    """

    width: int
    heads: int
    patch_size: int
    image_size: int
    activation: str


def find(name: object) -> Trunk | None:
    """Return the image tower of this name; None if SigLIP has none.

    >>> find("vit_so400m_patch14_siglip_384").image_size, find("vit_base_patch16_clip_224")
    (384, None)
    """
    match = NAME.fullmatch(str(name))
    if match is None:
        return None
    size, patch, image = match[1], int(match[2]), int(match[3])
    # timm follows the published models: some were trained with the approximation of GELU by tanh.
    tanh = size == "giantopt" or (size, patch) in (("so400m", 16), ("base", 32)) or (size, image) == ("large", 512)
    return Trunk(WIDTHS[size], HEADS[size], patch, image, "gelu_pytorch_tanh" if tanh else "gelu")
