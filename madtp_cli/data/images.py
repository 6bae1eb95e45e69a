"""Finds the image files that annotation files name.

A data set has few folders and many files, so each folder is listed once. No file outside the data folder is opened
because an annotation file names it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.data.dataset import Dataset, ImageSource
from madtp_cli.data.image_sources import ImageFile, MissingImage
from madtp_cli.data.parsing.annotation_files import ANNOTATION_FOLDERS
from madtp_cli.data.parsing.records import Record, shortened
from madtp_cli.errors import DataError

#: Image folders below a data folder: where the instructions of BLIP and MADTP put images, the folders of Flickr30k and
#: Flickr8k, and the folders of annotations, which may also hold the images.
IMAGE_FOLDERS = tuple(
    f"{folder}/{subfolder}"
    for folder in (
        *(".", "datasets/vision/NLVR2", "datasets/vision/coco", "datasets/vision/flickr"),
        *ANNOTATION_FOLDERS,
    )
    for subfolder in (".", "images", "flickr30k-images", "Flicker8k_Dataset")
)
#: Rows that are checked to decide which folder holds the images.
SAMPLED_ROWS = 50


@dataclass(frozen=True)
class ImageNames:
    """The image names of one record.

    Args:
        record: The record, for error messages.
        alternatives: For each possible folder structure, one path per image, relative to the image folder.
    """

    record: Record
    alternatives: tuple[tuple[str, ...], ...]


class ImageFolder:
    """A folder of images; its subfolders are listed when they are first used."""

    def __init__(self, path: Path, allowed: Sequence[Path]) -> None:
        """Open nothing yet.

        Args:
            path: The folder.
            allowed: Symbolic links may lead to files in these folders.
        """
        self.path = path
        self._allowed = [Path(os.path.realpath(folder)) for folder in allowed]
        self._is_link: dict[str, dict[str, bool]] = {}
        self._is_safe: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Return whether the file exists; a symbolic link counts if its target exists."""
        is_link = self._link_status(name)
        return is_link is not None and (not is_link or os.path.exists(self.path / name))

    def is_safe(self, name: str) -> bool:
        """Return whether the file lies in an allowed folder after symbolic links are followed."""
        # Files that are not links share the result of their folder.
        checked = name if self._link_status(name) else name.rpartition("/")[0]
        if checked not in self._is_safe:
            # Unlike Path.resolve, realpath is no error for links that lead to each other.
            target = Path(os.path.realpath(self.path / checked))
            self._is_safe[checked] = any(target.is_relative_to(folder) for folder in self._allowed)
        return self._is_safe[checked]

    def _link_status(self, name: str) -> bool | None:
        """Whether the file is a symbolic link; None if there is no such file."""
        folder, _, file = name.rpartition("/")
        if folder not in self._is_link:
            try:
                with os.scandir(self.path / folder) as entries:
                    self._is_link[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except PermissionError:
                raise
            except (OSError, ValueError):  # missing, links that lead to each other, a name that is too long
                self._is_link[folder] = {}
        return self._is_link[folder].get(file)


def image_folders(data_folder: Path) -> list[ImageFolder]:
    """Return the folders below a data folder that may hold its images."""
    existing = [data_folder / folder for folder in IMAGE_FOLDERS if (data_folder / folder).is_dir()]
    return [ImageFolder(path, existing) for path in existing]


def locate(requests: Sequence[ImageNames], data_folder: Path) -> list[tuple[ImageSource, ...]]:
    """Find the image files of each record; an image that does not exist becomes a `MissingImage`.

    All images are taken from the image folder, and with the folder structure, under which most images of a sample of
    records exist.

    Raises:
        DataError: A path leads out of the data folder.
    """
    requests = [_relative(request, data_folder) for request in requests]
    for request in requests:
        _refuse_outside_paths(request)
    sample = requests[:: max(1, len(requests) // SAMPLED_ROWS)]
    candidates = [
        (folder, number) for folder in image_folders(data_folder) for number in range(len(requests[0].alternatives))
    ]

    def existing(candidate: tuple[ImageFolder, int]) -> int:
        folder, number = candidate
        return sum(folder.has(request.alternatives[number][0]) for request in sample)

    folder, number = max(candidates, key=existing)
    records = {name: request.record for request in requests for name in request.alternatives[number]}
    # Rows share many images, so there is one object per image.
    sources = {name: _source(name, record, folder) for name, record in records.items()}
    return [tuple(sources[name] for name in request.alternatives[number]) for request in requests]


def leads_outside(name: str) -> bool:
    """Return whether a path leads out of the folder it is relative to, using its text alone."""
    return (
        name[:1] in ("/", "\\")
        or (name[1:2] == ":" and name[:1].isalpha())  # a drive of Windows
        or "\0" in name
        or (".." in name and ".." in name.replace("\\", "/").split("/"))
    )


def relative_name(name: str, folder: Path) -> str:
    r"""Return a path relative to the data folder: absolute paths below it are shortened, and backslashes are slashes.

    >>> relative_name(r"train\1.jpg", Path("/data")), relative_name("/data/1.jpg", Path("/data"))
    ('train/1.jpg', '1.jpg')
    """
    name = name.replace("\\", "/") if "\\" in name else name
    if name[:1] == "/":
        for root in _roots(folder):
            if name.startswith(f"{root}/"):
                return name[len(root) + 1 :].lstrip("/")
    return name


@functools.lru_cache(maxsize=8)
def _roots(folder: Path) -> tuple[str, ...]:
    """The path of a folder as it was given, and after symbolic links are followed."""
    return tuple(dict.fromkeys((folder.as_posix(), Path(os.path.realpath(folder)).as_posix())))


def _relative(request: ImageNames, folder: Path) -> ImageNames:
    alternatives = tuple(tuple(relative_name(name, folder) for name in names) for names in request.alternatives)
    return ImageNames(request.record, alternatives)


def _refuse_outside_paths(request: ImageNames) -> None:
    for names in request.alternatives:
        for name in names:
            if "://" in name:
                raise request.record.error(
                    f"image {shortened(name)} is an address, and madtp downloads nothing",
                    "Download the images, and name the files.",
                )
            if leads_outside(name):
                raise request.record.error(
                    f"image path {shortened(name)} leaves the data folder", "Write it relative to the image folder."
                )


def _source(name: str, record: Record, folder: ImageFolder) -> ImageSource:
    if not folder.has(name):
        return MissingImage(name, folder.path, record.file)
    if not folder.is_safe(name):
        raise record.error(
            f"image {name} is a link to a file outside {folder.path}", "Put the image itself into the folder."
        )
    return ImageFile(folder.path / name)


def missing(sources: Iterable[ImageSource]) -> list[MissingImage]:
    """Return the images that do not exist, each once."""
    return [source for source in dict.fromkeys(sources) if isinstance(source, MissingImage)]


def refuse_missing(dataset: Dataset) -> None:
    """Raise a DataError if images of a data set are missing."""
    for rows in dataset.splits.values():
        sources = {image for row in rows for image in row.images}
        absent = missing(image for row in rows for image in row.images)
        if absent:
            first = absent[0]
            names = ", ".join(image.name for image in absent[:3]) + (" and others" if absent[3:] else "")
            raise DataError(
                f"{len(absent):,} of {len(sources):,} images named in {first.annotation_file} are missing below "
                f"{first.folder}: {names}.\nAdd the files, remove their rows, or give another --image-root."
            )
