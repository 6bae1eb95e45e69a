"""Where the image files of a data set really lie.

Each folder is listed once instead of asking for each file: a data set has few folders and
many files. Nothing outside the data folder is ever opened on an annotation file's word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.data.records import Record
from madtp_cli.errors import DataError

#: Below a data folder; the third is where BLIP's and MADTP's instructions put NLVR2.
ROOTS = (".", "images", "datasets/vision/NLVR2", "datasets/vision/NLVR2/images")
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


def locate(wanted: Sequence[Wanted], home: Path) -> list[tuple[Path, ...]]:
    """The image files of each record.

    Root and arrangement are those under which most of a sample of the files exist.

    Raises:
        DataError: Images are missing, or a path leaves the data folder.
    """
    there = [home / root for root in ROOTS if (home / root).is_dir()]
    roots = [Root(path, there) for path in there]
    for item in wanted:
        _refuse_escapes(item)
    sample = wanted[:: max(1, len(wanted) // SAMPLED)]
    places = [(root, number) for root in roots for number in range(len(wanted[0].names))]
    root, number = max(places, key=lambda place: sum(place[0].has(item.names[place[1]][0]) for item in sample))
    users = {name: item.record for item in wanted for name in item.names[number]}
    _check(users, root)
    paths = {name: root.path / name for name in users}  # one object per image: rows share many
    return [tuple(paths[name] for name in item.names[number]) for item in wanted]


def _refuse_escapes(item: Wanted) -> None:
    for names in item.names:
        for name in names:
            if name[0] in "/\\" or "\0" in name or (".." in name and ".." in name.replace("\\", "/").split("/")):
                raise item.record.error(
                    f"image path {name!r} leaves the data folder", "Write it relative to the image folder."
                )


def _check(users: Mapping[str, Record], root: Root) -> None:
    missing = [name for name in users if not root.has(name)]
    if missing:
        file = users[missing[0]].file
        names = ", ".join(missing[:3]) + (" and others" if missing[3:] else "")
        raise DataError(
            f"{len(missing):,} of {len(users):,} images named in {file} are missing below {root.path}: {names}.\n"
            "Put them there, or remove their rows."
        )
    for name, record in users.items():
        if not root.holds(name):
            raise record.error(f"image {name} links to a place outside {root.path}", "Put the image itself there.")
