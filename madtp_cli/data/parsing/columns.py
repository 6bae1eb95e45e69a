"""Chooses the columns of a table: image columns by their cells, all others by the names that they usually have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data.dataset import ImageSource
from madtp_cli.data.schemas import Column, Schema
from madtp_cli.errors import DataError

#: Suffixes of common image files that Pillow can open.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
_IMAGE_COLUMN_NAMES = {"image", "img", "picture", "photo", "file", "path"} | {
    f"{prefix}{separator}{suffix}"
    for prefix in ("image", "img", "file")
    for separator in ("", "_")
    for suffix in ("name", "path", "file", "id")
}
#: Names of columns of splits, and names that may also mean something else.
_SPLIT_COLUMNS = {"split", "splits", "data_split", "dataset_split", "split_name"}
_POSSIBLE_SPLIT_COLUMNS = {"set", "subset", "partition", "phase", "fold"}
_WEIGHTS = re.compile(r"((sample|row|answer|answers|caption|loss|example|instance)_)?weights?")


@dataclass(frozen=True)
class ChosenColumns:
    """Names of the columns that hold the images (left first), the text, and the label or the answers.

    Captions and answers may be in several columns, so `text` and `answers` can hold several names. `answers` is empty
    for captions, and for questions whose answers are not known.
    """

    images: tuple[str, ...]
    text: tuple[str, ...]
    answers: tuple[str, ...] = ()


def looks_like_image(value: object) -> bool:
    """Return whether a cell is an image source or a text that looks like the name of an image file.

    >>> [looks_like_image(value) for value in ("train/1.JPG", "a dog.", "https://a.invalid/1.jpg", 7)]
    [True, False, False, False]
    """
    if not isinstance(value, str):
        return isinstance(value, ImageSource)
    return Path(value).suffix.lower() in IMAGE_SUFFIXES and "://" not in value and "\n" not in value


def image_columns(rows: Sequence[Mapping[str, Any]], exists: Callable[[str], bool]) -> list[str]:
    """Return the columns that hold images or names of images; if some name existing files, only these.

    Args:
        rows: Some rows of the table.
        exists: Whether there is a file of this name.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    cells = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in names}
    embedded = [name for name in names if any(_is_image_source(cell) for cell in cells[name])]
    if embedded:
        return embedded
    existing = [name for name in names if _mostly(cells[name], lambda cell: isinstance(cell, str) and exists(cell))]
    return existing or [name for name in names if _mostly(cells[name], looks_like_image)]


def _is_image_source(cell: object) -> bool:
    return not isinstance(cell, str) and isinstance(cell, ImageSource)


def _mostly(cells: Sequence[Any], condition: Callable[[Any], bool]) -> bool:
    return bool(cells) and 2 * sum(map(condition, cells)) > len(cells)


def split_column(rows: Sequence[Mapping[str, Any]], split: Callable[[str], str | None], file: Path) -> str | None:
    """Return the column that names the split of each row, or None.

    A column called "split" always does; other names such as "subset" only if every cell is the name of a split.

    Args:
        rows: All rows of the table.
        split: Returns the split that a cell names, or None.
        file: The table, for the error message.

    Raises:
        DataError: There are several such columns.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    sure = [name for name in names if _normalised(name) in _SPLIT_COLUMNS]
    possible = [name for name in names if _normalised(name) in _POSSIBLE_SPLIT_COLUMNS]
    found = sure or [name for name in possible if all(split(str(row.get(name) or "")) for row in rows)]
    if found[1:]:
        raise _unclear(file, "split", found, list(names), "Remove all but one of them.")
    return found[0] if found else None


def refuse_weights(rows: Sequence[Mapping[str, Any]], names: Sequence[str], file: Path) -> None:
    """Raise a DataError if a column gives rows or answers different weights, which madtp does not use.

    Args:
        rows: All rows.
        names: Names of the columns.
        file: The file, for the error message.
    """
    for name in names:
        if _WEIGHTS.fullmatch(_normalised(name)) and len({repr(row.get(name)) for row in rows}) > 1:
            raise DataError(
                f"{file}: the column {name} holds weights, and madtp counts all rows and answers the same.\n"
                "Remove the column if that is what you want."
            )


def lacks_answers(schema: Schema, names: Sequence[str]) -> bool:
    """Return whether a table of questions has no column of answers, as a test split whose answers are kept secret."""
    return schema.answers is not None and not _matching(schema.answers, names)


def can_hold(schema: Schema, names: Sequence[str], images: Sequence[str], *, unanswered: bool = False) -> bool:
    """Return whether a table could hold rows of a schema.

    Args:
        schema: The schema.
        names: Names of all columns.
        images: Names of the columns that hold images.
        unanswered: Whether questions may lack the column of answers.
    """
    needed = [column for column in schema.columns if not (unanswered and column == schema.answers)]
    if not all(_matching(column, names) for column in needed):
        return False
    if schema.images == 2:
        return len(images) > 1
    # A left and a right image belong to a statement; no single image could be chosen.
    return bool(images) and not (len(images) == 2 and _pairs(images))


def choose(
    schema: Schema, names: Sequence[str], images: Sequence[str], file: Path, *, unanswered: bool = False
) -> ChosenColumns:
    """Return the columns for the rows of a schema.

    Args:
        schema: The schema.
        names: Names of all columns.
        images: Names of the columns that hold images.
        file: The table, for error messages.

    Raises:
        DataError: A column is missing, or several columns match.
    """
    chosen_images = _image_pair(names, images, file) if schema.images == 2 else _single_image(names, images, file)
    text = _only(schema.text, names, file)
    answer = schema.label or schema.answers
    if answer is None or (unanswered and lacks_answers(schema, names)):
        return ChosenColumns(chosen_images, text)
    return ChosenColumns(chosen_images, text, _only(answer, names, file))


def _image_pair(names: Sequence[str], images: Sequence[str], file: Path) -> tuple[str, ...]:
    pairs = _pairs(images)
    if len(pairs) != 1:
        raise _unclear(file, "left and the right image", images, names, "Name two of them left and right.")
    return pairs[0]


def _single_image(names: Sequence[str], images: Sequence[str], file: Path) -> tuple[str, ...]:
    usual = [name for name in images if _normalised(name) in _IMAGE_COLUMN_NAMES]
    candidates = images if len(images) == 1 else usual
    if len(candidates) != 1:
        raise _unclear(file, "image", images, names, "Rename the columns so that only one has a name such as image.")
    return (candidates[0],)


def _only(column: Column, names: Sequence[str], file: Path) -> tuple[str, ...]:
    """The names that match a column: one, or several that differ only in their numbers if it may be numbered."""
    matching = _matching(column, names)
    for preferred in column.preferred:
        matching = [name for name in matching if _without_number(name) == preferred] or matching
    if len({_without_number(name) for name in matching}) != 1 or (len(matching) > 1 and not column.numbered):
        remedy = f"Rename the columns so that only one has a name such as {column.name}."
        raise _unclear(file, column.name, matching, names, remedy)
    return tuple(matching)


def _matching(column: Column, names: Sequence[str]) -> list[str]:
    normalise = _without_number if column.numbered else _normalised
    return [name for name in names if normalise(name) in column.usual_names]


def _unclear(file: Path, content: str, matching: Sequence[str], names: Sequence[str], remedy: str) -> DataError:
    several = f"several columns may hold the {content}: {', '.join(matching)}"
    problem = several if matching else f"no column holds the {content}"
    return DataError(f"{file}: {problem} (columns: {', '.join(names)}).\n{remedy}")


def _normalised(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _without_number(name: str) -> str:
    return re.sub(r"_?\d+$", "", _normalised(name))


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of columns whose names say left and right, 0 and 1, or 1 and 2.

    >>> _pairs(["right_image", "left_image"]), _pairs(["image1", "image2"]), _pairs(["image", "path"])
    ([('left_image', 'right_image')], [('image1', 'image2')], [])
    """
    return [pair for pair in itertools.permutations(names, 2) if _are_sides(*map(_normalised, pair))]


def _are_sides(left: str, right: str) -> bool:
    if "left" in left and left.replace("left", "right") == right:
        return True
    numbers = [re.fullmatch(r"(.*?)(\d)", name) for name in (left, right)]
    if not (numbers[0] and numbers[1]) or numbers[0][1] != numbers[1][1]:
        return False
    return (numbers[0][2], numbers[1][2]) in (("0", "1"), ("1", "2"))
