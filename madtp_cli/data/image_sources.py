"""Image sources on disk: image files, images inside larger files, and images that are missing.

All of them implement `madtp_cli.data.dataset.ImageSource`.
"""

from __future__ import annotations

import errno
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file."""

    path: Path
    opens_fast: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> Image.Image:
        """Open the file."""
        return Image.open(self.path)


class EmbeddedImage(ABC):
    """An encoded image inside a larger file, such as an archive or a table."""

    opens_fast: ClassVar[bool] = False

    @abstractmethod
    def read(self) -> bytes:
        """Read the encoded image.

        Raises:
            OSError: It is not there any more.
        """

    def open(self) -> Image.Image:
        """Read the encoded image and open it."""
        return Image.open(io.BytesIO(self.read()))


@dataclass(frozen=True)
class ArchivedImage(EmbeddedImage):
    """`size` bytes of an uncompressed archive, from `offset` on; `name` is the name in the archive."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"

    def read(self) -> bytes:
        """Read the bytes of the image."""
        with self.archive.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class MissingImage:
    """An image that an annotation file names and that does not exist; its rows can be counted but not used.

    Args:
        name: Path of the image in the annotation file, relative to `folder`.
        folder: The image folder.
        annotation_file: The file that names the image.
    """

    name: str
    folder: Path
    annotation_file: Path
    opens_fast: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.folder / self.name)

    def open(self) -> Image.Image:
        """Raise FileNotFoundError, as opening the file would."""
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
