"""The parts of the report on a data set."""

from __future__ import annotations

from pydantic import Field

from madtp_cli.reporting.parts import Part


class CutTextsPart(Part):
    """The texts of the data that are longer than the model reads."""

    count: int = 0
    """Number of texts that are cut."""
    texts: int = 0
    """Number of texts that were looked at."""
    first: list[str] = Field(default_factory=list)
    """The first of the cut texts, in full."""


class CaptionCount(Part):
    """Number of captions per image in a split."""

    least: int
    """Smallest number of captions of an image."""
    mean: float
    """Mean number of captions per image."""
    most: int
    """Largest number of captions of an image."""


class AnswerShare(Part):
    """How often one answer occurs."""

    answer: str
    """The answer."""
    percent: float
    """Share of all answers, in percent."""


class RowsPart(Part):
    """Number of rows of a split and their balance. Which balance there is depends on the task."""

    rows: int
    """Number of rows."""
    true_percent: float | None = None
    """Share of true statements, in percent."""
    most_common_answers: list[AnswerShare] | None = None
    """The most frequent answers, the most frequent first."""
    captions_per_image: CaptionCount | None = None
    """Number of captions per image."""


class SamplePart(Part):
    """One row as the reader read it."""

    split: str
    """The split of the row."""
    identifier: str
    """Identifier of the row: its file and number, or its name in the data."""
    images: list[str]
    """Paths of the images."""
    text: str
    """Statement, question or caption; empty where the task takes images alone."""
    label: int | None
    """The number 1 for a true statement, 0 for a false one; null for other tasks."""
    references: list[str]
    """Correct answers, or all captions of the image."""


class TaskPart(Part):
    """The rows of a data set for one task."""

    layout: str
    """Layout of the files, in words."""
    splits: dict[str, RowsPart]
    """Rows by split."""
    samples: list[SamplePart]
    """The first rows."""
    cut_texts: dict[str, CutTextsPart] = Field(default_factory=dict)
    """By model family, the texts that have more words than a model reads; the reports on a checkpoint count tokens."""


class ImagesPart(Part):
    """Distinct images of one split."""

    images: int
    """Number of distinct images."""
    missing: int
    """Number of images whose file does not exist."""
    checked: int
    """Number of images that were decoded."""
    unreadable: int
    """Number of checked images that could not be decoded."""
    missing_first: list[str]
    """Paths of the first missing images."""
    unreadable_first: list[str]
    """Paths of the first unreadable images, each with the reason."""


class DuplicatePart(Part):
    """Images that occur in two splits: the same path, or the same bytes if both were checked."""

    splits: list[str]
    """Names of the two splits."""
    images: int
    """Number of images."""
    first: list[str]
    """Paths of the first images."""
