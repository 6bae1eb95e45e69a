"""Schemas describe rows, independent of tasks and layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from madtp_cli.data import schemas
from madtp_cli.data.dataset import ImageSource, Row
from madtp_cli.data.image_sources import ArchivedImage, ImageFile, MissingImage
from madtp_cli.data.parsing.arrow import StoredImage
from madtp_cli.scenes import splits

ANYWHERE = Path("anywhere")
SOURCES = [
    ImageFile(ANYWHERE),
    ArchivedImage(ANYWHERE, "1.png", 0, 9),
    StoredImage(ANYWHERE, "test", "image", 0),
    MissingImage("1.png", ANYWHERE, ANYWHERE),
    *splits.rows("nlvr2", "test", 1)[0].images,
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_every_image_source_follows_the_protocol(source):
    """It can be opened and hashed, and its text fits into an error message."""
    assert isinstance(source, ImageSource)
    assert isinstance(source.opens_fast, bool)
    assert len({source, source}) == 1
    assert len(str(source)) < 200


def test_a_path_and_a_text_are_not_image_sources():
    """A table must distinguish the name of an image from the image."""
    assert not isinstance(ANYWHERE, ImageSource)
    assert not isinstance("1.png", ImageSource)


@pytest.mark.parametrize(
    ("schema", "reference", "columns"),
    [
        ("statements", None, ["sentence", "label"]),
        ("questions", "answer", ["question", "answer"]),
        ("captions", "caption", ["caption"]),
        ("classes", None, ["class"]),
    ],
)
def test_a_schema_names_its_references_and_columns(schema, reference, columns):
    """Error messages use these names."""
    found = schemas.get(schema)
    assert found.reference == reference
    assert [column.name for column in found.columns] == columns


def test_rows_with_the_same_images_are_one_group():
    """Two questions about one image are not independent samples."""
    left, right, other = (ImageFile(Path(name)) for name in ("1", "2", "3"))
    rows = [Row("a", (left, right), "x"), Row("b", (left, right), "y"), Row("c", (left, other), "x")]
    groups = [schemas.STATEMENTS.group(row) for row in rows]
    assert groups[0] == groups[1] != groups[2]


def test_an_unknown_schema_is_an_error_that_names_the_schemas():
    """The author of a new task sees what to write."""
    with pytest.raises(ValueError, match="the schemas are statements, questions, captions, classes"):
        schemas.get("poems")
