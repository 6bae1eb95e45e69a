"""Reads the data sets that users have. Each layout on disk is one file in `readers` and is recognised by its content.

A reader is a module with three names. `LAYOUT` is the name of the layout in messages. `recognises(path, schema)` looks
at the beginning of files and not at their names. `read(path, schema, splits, image_root)` returns a `Dataset`, or
raises a `DataError` that names the file, the row and the remedy. A reader of a general form that other layouts also
have sets `FALLBACK = True`: it is used only if no other reader recognises the path.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol, cast

from madtp_cli.config.user_paths import refuse_url
from madtp_cli.data import files, images, images_alone, readers, schemas
from madtp_cli.data.dataset import SPLITS, Dataset, Row
from madtp_cli.data.parsing import annotation_files, arrow, records, unsupported
from madtp_cli.data.parsing.answers import ANSWER_LIST
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

__all__ = [
    "SPLITS",
    "Dataset",
    "Reader",
    "Row",
    "all_readers",
    "find_data",
    "matching_readers",
    "read",
    "unrecognised",
]


class Reader(Protocol):
    """What a module in `readers` offers."""

    LAYOUT: str

    def recognises(self, path: Path, schema: Schema) -> bool:
        """Return whether a file or folder has this layout and holds rows of the schema."""
        ...

    def read(self, path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
        """Read the requested splits; those that the data lack are left out."""
        ...


def all_readers() -> list[Reader]:
    """Return every reader."""
    names = sorted(module.name for module in pkgutil.iter_modules(readers.__path__))
    return [cast(Reader, importlib.import_module(f"{readers.__name__}.{name}")) for name in names]


def matching_readers(path: Path, schema: Schema) -> list[Reader]:
    """Return the readers that recognise a file or folder; fallback readers only if no other reader does."""
    matching = [reader for reader in all_readers() if reader.recognises(path, schema)]
    chosen = [reader for reader in matching if not getattr(reader, "FALLBACK", False)]
    return chosen or (_annotated_images(path) if schema.images_alone else []) or matching


def _annotated_images(path: Path) -> list[Reader]:
    """Return a reader for the images of annotation files, if any reader recognises them alone for its schema."""
    by_schema = ((matching_readers(path, schema), schema) for schema in images_alone.schemas_with_texts())
    found = [(matching[0], schema) for matching, schema in by_schema if len(matching) == 1]
    return [images_alone.ImagesOf(found)] if found else []


def read(
    path: Path,
    schema: str,
    splits: Collection[str] = SPLITS,
    image_root: Path | None = None,
    *,
    task: str | None = None,
    missing_ok: bool = False,
) -> Dataset:
    """Read a data set. Image files are searched but not opened.

    If the data have no validation split, train rows are held out for it, always the same ones, and a note states this.

    Args:
        path: A folder, one annotation file, or the name of a cached Hugging Face data set.
        schema: Name of the schema of the rows, see `schemas`; a task names it.
        splits: The splits to read; missing images of other splits are no error.
        image_root: The image folder; None searches for the images around `path`.
        task: Name of the task for error messages; None for the name of the schema.
        missing_ok: Return a `MissingImage` for an image that does not exist, instead of raising an error.

    Raises:
        DataError: The path is not a data set, or something in it is missing or wrong.
    """
    wanted = schemas.get(schema)
    path = find_data(path, image_root)
    try:
        matching = matching_readers(path, wanted)
        if len(matching) != 1:
            raise unrecognised(path, {task or schema: wanted})
        dataset = matching[0].read(path, wanted, splits, image_root)
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read: {error.strerror}.\nCheck its permissions."
        ) from error
    if not missing_ok:
        images.refuse_missing(dataset)
    return dataset


def find_data(path: Path, image_root: Path | None = None) -> Path:
    """Return the path of a data set: the path itself, or the folder of a cached Hugging Face data set of this name.

    Raises:
        DataError: The path does not exist, or `image_root` is not a folder.
    """
    refuse_url(path, DataError)
    if image_root is not None and not os.path.isdir(image_root):
        raise DataError(f"There is no folder {image_root}.\nGive --image-root the folder that holds the images.")
    found = path if os.path.lexists(path) else arrow.find_cached(str(path))
    if found is not None and not os.path.isdir(found):
        files.require_regular(found)
    if found is None:
        raise DataError(
            f"There is no file or folder {path}.\nGive the folder that holds the annotations and the images."
        )
    return found


def unrecognised(path: Path, wanted: Mapping[str, Schema]) -> DataError:
    """Return the error for a path that no reader or several readers recognise.

    Args:
        path: The path.
        wanted: The schemas that were tried, by the name that the message uses.
    """
    matching = [reader.LAYOUT for schema in wanted.values() for reader in matching_readers(path, schema)]
    if matching:
        layouts = " and ".join(dict.fromkeys(matching))
        return DataError(f"{path} holds both {layouts}.\nMove one of them away, or give one annotation file.")
    known = ", ".join(reader.LAYOUT for reader in all_readers())
    faults = (records.find_fault(file) for file in annotation_files.json_files(path) if file.name != ANSWER_LIST)
    fault = unsupported.reason(path) or next(filter(None, faults), None)
    return DataError(
        f"{path} holds no annotations for {' or '.join(wanted)} in a known layout ({known}).\n"
        + (f"A possible cause: {fault}" if fault else "Give the folder with the annotation files, or one such file.")
    )
