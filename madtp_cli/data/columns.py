"""Which columns of a table a task needs: images by what they hold, words by the names such columns usually have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data.embedded import Embedded
from madtp_cli.errors import DataError

#: Ends of the names of files that Pillow can open and people keep.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_IMAGE_NAMES = {"image", "img", "picture", "photo", "file", "path"} | {
    f"{of}{sep}{what}"
    for of in ("image", "img", "file")
    for sep in ("", "_")
    for what in ("name", "path", "file", "id")
}
_USUAL = {
    "caption": {
        *("alt", "alt_text", "caption", "captions", "comment", "description", "raw", "sentence", "sentences"),
        *("text", "texts", "title", "txt"),
    },
    "question": {"question", "query"},
    "answer": {"answer", "answers", "multiple_choice_answer"},
    "sentence": {"caption", "sentence", "statement", "text"},
    "label": {"answer", "label", "truth"},
}
_ROLES = {
    "caption": ("caption",),
    "retrieval": ("caption",),
    "vqa": ("question", "answer"),
    "nlvr2": ("sentence", "label"),
}


@dataclass(frozen=True)
class Columns:
    """The columns of a task: of its image or two, of its words (captions may stand in several), of its answer."""

    images: tuple[str, ...]
    text: tuple[str, ...]
    answer: str | None = None


def looks_like_image(value: object) -> bool:
    """Whether a cell is an image or seems to name a file that is one.

    >>> [looks_like_image(value) for value in ("train/1.JPG", "a dog.", "https://a.invalid/1.jpg", 7)]
    [True, False, False, False]
    """
    if not isinstance(value, str):
        return isinstance(value, Embedded)
    return Path(value).suffix.lower() in IMAGE_SUFFIXES and "://" not in value and "\n" not in value


def image_columns(rows: Sequence[Mapping[str, Any]], is_there: Callable[[str], bool]) -> list[str]:
    """Columns whose cells are images or name them; those that name existing files, if any does.

    Args:
        rows: Some rows of the table.
        is_there: Whether there is a file of this name.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    held = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in names}
    embedded = [name for name in names if any(isinstance(cell, Embedded) for cell in held[name])]
    if embedded:
        return embedded
    existing = [name for name in names if _mostly(held[name], lambda cell: isinstance(cell, str) and is_there(cell))]
    return existing or [name for name in names if _mostly(held[name], looks_like_image)]


def _mostly(cells: Sequence[Any], holds: Callable[[Any], bool]) -> bool:
    return bool(cells) and 2 * sum(map(holds, cells)) > len(cells)


def may_serve(task: str, names: Sequence[str], images: Sequence[str]) -> bool:
    """Whether columns of these names, of which `images` hold images, could be rows of the task."""
    if task not in _ROLES or not all(_of(role, names) for role in _ROLES[task]):
        return False
    # A left and a right image are no caption's.
    return len(images) > 1 if task == "nlvr2" else bool(images) and not (len(images) == 2 and _pairs(images))


def choose(task: str, names: Sequence[str], images: Sequence[str], file: Path) -> Columns:
    """The columns of a task.

    Raises:
        DataError: They are not there, or several could be meant.
    """
    if task == "nlvr2":
        pairs = _pairs(images)
        chosen: tuple[str, ...]
        if len(pairs) != 1:
            raise _unclear(file, "left and the right image", images, names, "Name two of them left and right.")
        chosen = pairs[0]
    else:
        usual = [name for name in images if _plain(name) in _IMAGE_NAMES]
        only = images if len(images) == 1 else usual
        if len(only) != 1:
            raise _unclear(file, "image", images, names, "Name one of them image, and no other like it.")
        chosen = (only[0],)
    text, *answer = [_only(role, names, file) for role in _ROLES[task]]
    return Columns(chosen, text, answer[0][0] if answer else None)


def _only(role: str, names: Sequence[str], file: Path) -> tuple[str, ...]:
    """The column of a role; captions may stand in several that are numbered."""
    found = _of(role, names)
    if len({_unnumbered(name) for name in found}) != 1 or (role != "caption" and len(found) > 1):
        raise _unclear(file, role, found, names, f"Name one of them {role}, and no other like it.")
    return tuple(found)


def _of(role: str, names: Sequence[str]) -> list[str]:
    usual = _USUAL[role]
    return [name for name in names if (_unnumbered(name) if role == "caption" else _plain(name)) in usual]


def _unclear(file: Path, role: str, found: Sequence[str], names: Sequence[str], remedy: str) -> DataError:
    several = f"several columns may hold the {role}: {', '.join(found)}" if found else f"no column holds the {role}"
    return DataError(f"{file}: {several} (columns: {', '.join(names)}).\n{remedy}")


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _unnumbered(name: str) -> str:
    return re.sub(r"_?\d+$", "", _plain(name))


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Columns that are called left and right, 0 and 1, or 1 and 2.

    >>> _pairs(["right_image", "left_image"]), _pairs(["image1", "image2"]), _pairs(["image", "path"])
    ([('left_image', 'right_image')], [('image1', 'image2')], [])
    """
    return [pair for pair in itertools.permutations(names, 2) if _are_sides(*map(_plain, pair))]


def _are_sides(left: str, right: str) -> bool:
    if "left" in left and left.replace("left", "right") == right:
        return True
    numbers = [re.fullmatch(r"(.*?)(\d)", name) for name in (left, right)]
    if not (numbers[0] and numbers[1]) or numbers[0][1] != numbers[1][1]:
        return False
    return (numbers[0][2], numbers[1][2]) in (("0", "1"), ("1", "2"))
