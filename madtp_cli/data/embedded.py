"""Images that are no files of their own: addresses of bytes, small enough to travel to worker processes."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


class Embedded(ABC):
    """An image inside something larger; as a string it says where, for errors."""

    @abstractmethod
    def read(self) -> bytes:
        """The encoded image, opened in the process that asks.

        Raises:
            OSError: It is not there any more.
        """


@dataclass(frozen=True)
class ArchivedImage(Embedded):
    """So many bytes of an uncompressed archive, from an offset on."""

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.archive}"

    def read(self) -> bytes:
        with self.archive.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class Absent(Embedded):
    """An image that an annotation file names and that is not there; such rows can be counted, not used."""

    name: str
    folder: Path
    named_in: Path

    def __str__(self) -> str:
        return str(self.folder / self.name)

    def read(self) -> bytes:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
