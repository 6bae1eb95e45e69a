"""Where the image files of a data set really lie.

Each folder is listed once instead of asking for each file: a data set has few folders and
many files. Nothing outside the data folder is ever opened on an annotation file's word.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.data.dataset import Dataset, ImageSource
from madtp_cli.data.embedded import Absent
from madtp_cli.data.records import Record
from madtp_cli.errors import DataError

#: Below a data folder: where BLIP's and MADTP's instructions put images, and Flickr30k's own folder of them.
ROOTS = tuple(
    f"{folder}/{below}"
    for folder in (".", "datasets/vision/NLVR2", "datasets/vision/coco", "datasets/vision/flickr")
    for below in (".", "images", "flickr30k-images")
)
#: Rows looked at to decide where the images lie.
SAMPLED = 50


@dataclass(frozen=True)
class Wanted:
    """The images of one record; `names` holds, per possible arrangement, one path per image."""

    record: Record
    names: tuple[tuple[str, ...], ...]


class Root:
    """A folder of images with listings of the folders below it."""

    def __init__(self, path: Path, allowed: Sequence[Path]) -> None:
        """Open nothing yet; links may lead to whatever lies in the `allowed` folders."""
        self.path = path
        self._allowed = [folder.resolve() for folder in allowed]
        self._listed: dict[str, dict[str, bool]] = {}
        self._safe: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Whether the file is there; a link counts if it leads to something."""
        is_link = self._links(name)
        return is_link is not None and (not is_link or (self.path / name).exists())

    def holds(self, name: str) -> bool:
        """Whether the file, links followed, lies in an allowed folder."""
        place = name if self._links(name) else name.rpartition("/")[0]  # a folder is looked at once for all its files
        if place not in self._safe:
            real = (self.path / place).resolve()
            self._safe[place] = any(real.is_relative_to(folder) for folder in self._allowed)
        return self._safe[place]

    def _links(self, name: str) -> bool | None:
        """Whether the file is a link; None if it is not there."""
        folder, _, file = name.rpartition("/")
        if folder not in self._listed:
            try:
                with os.scandir(self.path / folder) as entries:
                    self._listed[folder] = {entry.name: entry.is_symlink() for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._listed[folder] = {}
        return self._listed[folder].get(file)


def locate(wanted: Sequence[Wanted], home: Path) -> list[tuple[ImageSource, ...]]:
    """The image files of each record, or `Absent` where there is none.

    Root and arrangement are those under which most of a sample of the files exist.

    Raises:
        DataError: A path leaves the data folder.
    """
    there = [home / root for root in ROOTS if (home / root).is_dir()]
    roots = [Root(path, there) for path in there]
    for item in wanted:
        _refuse_escapes(item)
    sample = wanted[:: max(1, len(wanted) // SAMPLED)]
    places = [(root, number) for root in roots for number in range(len(wanted[0].names))]
    root, number = max(places, key=lambda place: sum(place[0].has(item.names[place[1]][0]) for item in sample))
    users = {name: item.record for item in wanted for name in item.names[number]}
    # One object per image: rows share many.
    paths = {name: _found(name, record, root) for name, record in users.items()}
    return [tuple(paths[name] for name in item.names[number]) for item in wanted]


def leaves(name: str) -> bool:
    """Whether a path, as it is written, leads out of the folder it is relative to."""
    return name[:1] in ("/", "\\") or "\0" in name or (".." in name and ".." in name.replace("\\", "/").split("/"))


def _refuse_escapes(item: Wanted) -> None:
    for names in item.names:
        for name in names:
            if leaves(name):
                raise item.record.error(
                    f"image path {name!r} leaves the data folder", "Write it relative to the image folder."
                )


def _found(name: str, record: Record, root: Root) -> ImageSource:
    if not root.has(name):
        return Absent(name, root.path, record.file)
    if not root.holds(name):
        raise record.error(f"image {name} links to a place outside {root.path}", "Put the image itself there.")
    return root.path / name


def refuse_missing(dataset: Dataset) -> None:
    """Raise a DataError if images of a data set are not there."""
    for rows in dataset.splits.values():
        images = dict.fromkeys(image for row in rows for image in row.images)
        missing = [image for image in images if isinstance(image, Absent)]
        if missing:
            first = missing[0]
            names = ", ".join(image.name for image in missing[:3]) + (" and others" if missing[3:] else "")
            raise DataError(
                f"{len(missing):,} of {len(images):,} images named in {first.named_in} are missing below "
                f"{first.folder}: {names}.\nPut them there, or remove their rows."
            )
