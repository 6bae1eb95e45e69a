"""From files and scenes to normalised pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from madtp_cli.data.dataset import ImageSource
from madtp_cli.errors import DataError
from madtp_cli.scenes.generator import Scene

#: What Pillow's decoders raise on files that are no images, cut off or damaged.
DAMAGES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(source: ImageSource) -> Image.Image:
    """An RGB picture.

    Raises:
        DataError: The file cannot be decoded.
    """
    if isinstance(source, Scene):
        return Image.fromarray(source.render())
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source.read())) as picture:
            return picture.convert("RGB")
    except DAMAGES as error:
        raise DataError(
            f"Image {source} cannot be decoded: {_reason(error)}.\nReplace it, or remove its rows."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image that Pillow knows"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def pixel_values(sources: Sequence[ImageSource], image_processor: Any) -> Tensor:
    """Decode, then let the checkpoint's own processor resize and normalise, [images, 3, height, width]."""
    pictures = [decode(source) for source in sources]
    return torch.as_tensor(image_processor(images=pictures, return_tensors="pt")["pixel_values"])
