"""From image sources to normalised pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from madtp_cli.data.dataset import ImageSource
from madtp_cli.errors import DataError

#: Exceptions that Pillow's decoders raise for files that are incomplete, damaged or not images.
DECODE_ERRORS = (
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
    """Return the RGB image of a source.

    Raises:
        DataError: The image is missing or cannot be decoded.
    """
    try:
        with source.open() as image:
            return image.convert("RGB")
    except DECODE_ERRORS as error:
        raise DataError(
            f"Image {source} cannot be decoded: {_reason(error)}.\nReplace the image, or remove its rows."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "Pillow does not know its format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def pixel_values(sources: Sequence[ImageSource], image_processor: Any) -> Tensor:
    """Decode images, then resize and normalise them with the checkpoint's image processor.

    Returns:
        Float tensor [images, 3, height, width].
    """
    images = [decode(source) for source in sources]
    return torch.as_tensor(image_processor(images=images, return_tensors="pt")["pixel_values"])
