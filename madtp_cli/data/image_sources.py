"""Image sources on disk: image files, images inside larger files, and images that are missing.

All of them implement `madtp_cli.data.dataset.ImageSource`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar

from PIL import Image

from madtp_cli.data.files import irregularity, require_size

#: The only formats that are opened. Pillow's others include PostScript, for which it starts another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_LOCK = threading.Lock()


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Open an image in one of the allowed formats, whatever its name says; nothing is decoded yet.

    Raises:
        OSError: It has another format, or is no image.
    """
    Image.init()  # without it Pillow does not know all formats, and some are missing in some builds
    known = [name for name in FORMATS if name in Image.OPEN]
    with _LOCK:  # the limit of Pillow is a global variable; the caller checks ours, which the user can raise
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=known)
        finally:
            Image.MAX_IMAGE_PIXELS = before


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file."""

    path: Path
    opens_fast: ClassVar[bool] = False

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> Image.Image:
        """Open the file.

        Raises:
            OSError: It is missing, or no regular file: reading a pipe or a device could take forever.
        """
        mode = self.path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(f"it is {irregularity(self.path)}, not a file")
        return open_image(self.path)


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
        return open_image(io.BytesIO(self.read()))


@dataclass(frozen=True)
class ArchivedImage(EmbeddedImage):
    """`size` bytes of an uncompressed archive, from `offset` on; `name` is the name in the archive.

    `owner` is the process that reads the archive, where each process of a run reads its own; see `data.sharing`.
    """

    archive: Path
    name: str
    offset: int
    size: int
    owner: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"

    def read(self) -> bytes:
        """Read the bytes of the image."""
        require_size(self.size, "IMAGE_BYTES", f"Image {self}")
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
