"""From image sources to normalised pixels."""

from __future__ import annotations

import contextlib
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from madtp_cli.config import limits
from madtp_cli.data.dataset import ImageSource
from madtp_cli.data.image_sources import FORMATS
from madtp_cli.errors import DataError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise its messages go to standard error

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
    TypeError,
)


#: EXIF field of the orientation, and its values for images that lie on their side.
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)


def decode(source: ImageSource) -> Image.Image:
    """Return the RGB image of a source, as `transformers.image_utils.load_image` reads it: upright, without alpha.

    Only grey images with 16 bits differ. They are scaled to 8 bits, while Pillow makes every value above 255 white.

    Raises:
        DataError: The image is missing, cannot be decoded, or is larger than the limits allow.
    """
    try:
        with source.open() as image:
            _require_limits(source, image.size)
            return _scaled(ImageOps.exif_transpose(image), image.format).convert("RGB")
    except DECODE_ERRORS as error:
        raise DataError(
            f"Image {source} cannot be decoded: {_reason(error)}.\nReplace the image, or remove its rows."
        ) from error


def _require_limits(source: ImageSource, size: tuple[int, int]) -> None:
    ratio = -(-max(size) // max(1, min(size)))
    for name, value in (("IMAGE_PIXELS", size[0] * size[1]), ("ASPECT_RATIO", ratio)):
        if value > limits.limit(name):
            raise DataError(
                f"Image {source} has {size[0]:,} x {size[1]:,} pixels; the limit {limits.variable(name)} is "
                f"{limits.limit(name):,}.\nMake it smaller, remove its rows, or set {limits.variable(name)}={value}."
            )


def _scaled(image: Image.Image, file_format: str | None) -> Image.Image:
    """A grey image with 16 bits as one with 8 bits: the high byte of each value.

    Raises:
        ValueError: The values have no known range.
    """
    # Older versions of Pillow open PNG and PGM files with 16 bits in the mode of 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit" if image.mode == "I" else "floating-point"
        raise ValueError(f"its {kind} values have no known range; save it with 8 or 16 bits")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"Pillow does not know its format as one of {', '.join(FORMATS)}"
    return getattr(error, "strerror", None) or str(error).split("\n")[0] or type(error).__name__


@contextlib.contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Keep Pillow from printing what it thinks about a file, such as damaged EXIF data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def image_size(source: ImageSource) -> tuple[int, int]:
    """Return width and height of the upright image of a source, from the beginning of its file where that is enough.

    Raises:
        DataError: The image is missing or cannot be read.
    """
    try:
        with source.open() as image, without_pillow_warnings():
            turned = image.getexif().get(ORIENTATION) in SIDEWAYS
            return image.size[::-1] if turned else image.size
    except DECODE_ERRORS as error:
        raise DataError(
            f"Image {source} cannot be decoded: {_reason(error)}.\nReplace the image, or remove its rows."
        ) from error


def image_inputs(sources: Sequence[ImageSource], image_processor: Any) -> dict[str, Tensor]:
    """Return the pixel values of images and, where the processor pads images of different sizes, their pixel mask.

    Returns:
        pixel_values [images, 3, height, width]; pixel_mask [images, height, width], 0 at padding.
    """
    with without_pillow_warnings():
        images = [decode(source) for source in sources]
    made = image_processor(images=images, return_tensors="pt")
    return {name: torch.as_tensor(made[name]) for name in ("pixel_values", "pixel_mask") if name in made}


def pixel_values(sources: Sequence[ImageSource], image_processor: Any) -> Tensor:
    """Decode images, then resize and normalise them with the checkpoint's image processor.

    Returns:
        Float tensor [images, 3, height, width].
    """
    return image_inputs(sources, image_processor)["pixel_values"]
