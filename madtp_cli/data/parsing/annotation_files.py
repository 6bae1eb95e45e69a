"""Annotation files of a data folder: which exist, which layout they have, and which split each belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from madtp_cli.data import files
from madtp_cli.data.parsing.json_sniffing import first_objects
from madtp_cli.errors import DataError

#: Folders of annotation files below a data folder; "data" is used by the official NLVR2 repository.
ANNOTATION_FOLDERS = ("annotation", "annotations", "data")
#: A split name in a file name. VQAv2's "test-dev" is a part of "test".
_SPLIT = re.compile(r"(?<![a-z])(train|dev|validation|valid|val|test(?:[-_](?:dev|std))?)(\d*)(?![a-z])", re.IGNORECASE)

#: Where a name written in camel case is divided: Flickr8k's list of train images is Flickr_8k.trainImages.txt.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")

#: Decides from one of the first objects of a file whether the file has a layout.
Matches = Callable[[dict[str, Any]], bool]


def data_folder(path: Path) -> Path:
    """Return the data folder of an annotation file or folder; images are searched below it."""
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    # The data folder itself may be called "data" or "annotations". Then it has subfolders of images or annotations.
    has_data = any((folder / name).is_dir() for name in ("images", *ANNOTATION_FOLDERS))
    return folder.parent if folder.name in ANNOTATION_FOLDERS and not has_data else folder


def json_files(path: Path) -> list[Path]:
    """Return the JSON files of a data folder, or the one file that was given."""
    if not path.is_dir():
        return [path]
    folders = [path, *(path / name for name in ANNOTATION_FOLDERS)]
    return sorted(file for folder in folders for file in files.listed(folder, (".json", ".jsonl")))


def file_matches(file: Path, matches: Matches) -> bool:
    """Return whether one of the first objects of a file matches."""
    return any(map(matches, first_objects(file)))


def any_file_matches(path: Path, matches: Matches) -> bool:
    """Return whether one of the first objects of any JSON file matches."""
    return any(file_matches(file, matches) for file in json_files(path))


def single_file(path: Path, matches: Matches) -> Path:
    """Return the one file that matches.

    Raises:
        DataError: There are several.
    """
    matching = [file for file in json_files(path) if file_matches(file, matches)]
    if len(matching) > 1:
        names = ", ".join(str(file) for file in matching[:3])
        raise DataError(f"Several files hold a data set each: {names}.\nGive one of them.")
    return matching[0]


def files_by_split(path: Path, matches: Matches) -> tuple[dict[str, Path], list[str]]:
    """Return the matching annotation file of each split, and notes.

    Raises:
        DataError: No file name contains a split name, or several files belong to the same split.
    """
    found = json_files(path)
    return assign_splits(found, [file for file in found if file_matches(file, matches)])


def assign_splits(all_files: Sequence[Path], matching: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Return the file of each split, and notes.

    A file that does not match, but whose name differs from a matching one only in the split, belongs to them too. So
    a broken or empty file causes an error and is not ignored.

    Args:
        all_files: All annotation files.
        matching: Those with the layout in question.

    Raises:
        DataError: No file name contains a split name, or several files belong to the same split.
    """
    stems = {_without_split(file) for file in matching}
    candidates: dict[str, list[Path]] = {}
    for file in all_files:
        if _without_split(file) in stems and (split := split_in_name(file.stem)):
            candidates.setdefault(split, []).append(file)
    if matching and not candidates:
        raise DataError(
            f"The name of {matching[0]} contains no split name.\nRename it so that it contains train, val or test."
        )
    notes = [
        f"{file.name} not used: its name contains no split name" for file in matching if not split_in_name(file.stem)
    ]
    return {split: _choose(split, of_split, notes) for split, of_split in candidates.items()}, notes


def split_word(file: Path) -> str:
    """Return the part of a file name that names its split, such as "val2014"; empty if there is none."""
    found = _find_split(file.stem)
    return found[0].lower() if found else ""


def split_in_name(name: str) -> str | None:
    """Return the split that a name contains, such as "val" for "coco_dev"; None if it contains none."""
    found = _find_split(name)
    if not found:
        return None
    split = found[1].lower()
    return "train" if split == "train" else "test" if split.startswith("test") else "val"


def _find_split(name: str) -> re.Match[str] | None:
    return _SPLIT.search(_CAMEL.sub("_", name))


def _without_split(file: Path) -> tuple[Path, str]:
    return file.parent, _SPLIT.sub("*", _CAMEL.sub("_", file.stem))


def _rank(file: Path) -> tuple[int, str]:
    """Sort key: test1 comes before test2, and test before test-dev."""
    found = _find_split(file.stem)
    return (int(found[2] or 0), found[1].lower()) if found else (0, "")


def _choose(split: str, candidates: list[Path], notes: list[str]) -> Path:
    """Return one file of a split; of test1 and test2 the first, with a note."""
    ranked = sorted(candidates, key=_rank)
    if len({_without_split(file) for file in ranked}) > 1 or len({_rank(file) for file in ranked}) < len(ranked):
        names = ", ".join(str(file) for file in ranked[:3])
        raise DataError(
            f"Several files belong to the {split} split: {names}.\nGive one annotation file, or move the others away."
        )
    if ranked[1:]:
        unused = ", ".join(file.name for file in ranked[1:])
        notes.append(f"the {split} split is {ranked[0].name}; {unused} not used (give that file itself to use it)")
    return ranked[0]
