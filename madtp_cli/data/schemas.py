"""Schemas: what a row of a data set holds, independent of the task that uses it and of the layout on disk.

A task names a schema; a reader produces rows for the schemas that its layout can hold. A new task with one of these
schemas can therefore use every layout, and no reader changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from madtp_cli.data.dataset import Row
from madtp_cli.reporting.schema import AnswerShare, CaptionCount, RowsPart

#: Number of most frequent answers in a summary.
TOP_ANSWERS = 5


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: What messages call it.
        usual_names: Names that such a column commonly has, in lower case with underscores.
        numbered: Whether it may be several columns with numbers, such as caption_1 and caption_2.
        preferred: If columns of several of these names exist, the first of them is used and the others are not.
    """

    name: str
    usual_names: frozenset[str]
    numbered: bool = False
    preferred: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What the rows of a data set hold. Without `label` and `answers`, the text is one of the captions of the image.

    Args:
        name: A task refers to the schema by this name.
        images: Images of a row; of two, the left one comes first.
        text: The column of `Row.text`.
        label: The column of `Row.label`, 1 for true and 0 for false; None if rows have no label.
        answers: The column of `Row.references` if these are answers to a question; None otherwise.
        classes: Whether the text is the name of a class, and the label its number among `Dataset.answers`.
        images_alone: Whether there is no text; `Row.text` is empty.
    """

    name: str
    images: int
    text: Column
    label: Column | None = None
    answers: Column | None = None
    classes: bool = False
    images_alone: bool = False

    @property
    def has_captions(self) -> bool:
        """Whether the texts are captions: `Row.references` are all captions of the image, one row per image."""
        return self.label is None and self.answers is None and not self.classes and not self.images_alone

    @property
    def reference(self) -> str | None:
        """The word for one of `Row.references`; None if rows have no references."""
        column = self.text if self.has_captions else self.answers
        return column.name if column else None

    @property
    def columns(self) -> list[Column]:
        """The columns that a table needs in addition to its images."""
        return [column for column in (self.text, self.label, self.answers) if column]

    def is_labelled(self, row: Row) -> bool:
        """Return whether a row has its label or its answers. Readers require captions and classes."""
        if self.label:
            return row.label is not None
        return self.answers is None or bool(row.references)

    def group(self, row: Row) -> Hashable:
        """Return the key of the group that a row belongs to: rows with the same images.

        Scores of one group are not independent, which matters for confidence intervals.
        """
        return row.images

    def summarise(self, rows: Sequence[Row]) -> RowsPart:
        """Return what `madtp data` reports about one split: the number of rows, and the balance of their content.

        Args:
            rows: The rows of the split, at least one.
        """
        if self.label:
            return RowsPart(rows=len(rows), true_percent=100 * sum(bool(row.label) for row in rows) / len(rows))
        if self.images_alone:
            return RowsPart(rows=len(rows))
        if self.answers or self.classes:
            return RowsPart(rows=len(rows), most_common_answers=_most_frequent(rows))
        counts = [len(row.references) for row in rows]
        captions = CaptionCount(least=min(counts), mean=sum(counts) / len(counts), most=max(counts))
        return RowsPart(rows=len(rows), captions_per_image=captions)


def _most_frequent(rows: Sequence[Row]) -> list[AnswerShare]:
    """The most frequent answers, each with its share of all answers in percent."""
    counted = Counter(answer for row in rows for answer in row.references)
    return [
        AnswerShare(answer=answer, percent=100 * number / counted.total())
        for answer, number in counted.most_common(TOP_ANSWERS)
    ]


_CAPTION_NAMES = frozenset(
    {
        *("alt", "alt_text", "caption", "captions", "comment", "description", "raw"),
        *("sentence", "sentences", "text", "texts", "title", "txt"),
    }
)

#: Two images and a statement about them that is true or false, as in NLVR2.
STATEMENTS = Schema(
    "statements",
    images=2,
    text=Column("sentence", frozenset({"caption", "sentence", "statement", "text"})),
    label=Column("label", frozenset({"answer", "label", "truth"})),
)
#: An image and a question. The references are the answers of the annotators, one string each, as in VQAv2.
QUESTIONS = Schema(
    "questions",
    images=1,
    text=Column("question", frozenset({"question", "query"})),
    # The answers of ten people come before the one that was chosen from them, as in the official files.
    answers=Column(
        "answer",
        frozenset({"answer", "answers", "multiple_choice_answer"}),
        numbered=True,
        preferred=("answers", "answer", "multiple_choice_answer"),
    ),
)
#: An image and its captions, as in COCO and Flickr30k. The text is the first caption.
CAPTIONS = Schema("captions", images=1, text=Column("caption", _CAPTION_NAMES, numbered=True))

#: An image and its class. The text and the reference are the name of the class. No table has such a column.
CLASSES = Schema("classes", images=1, text=Column("class", frozenset()), classes=True)

#: An image alone. No table has such a column: tables of captions, statements or questions have images too.
IMAGES = Schema("images", images=1, text=Column("image", frozenset()), images_alone=True)

SCHEMAS = {schema.name: schema for schema in (STATEMENTS, QUESTIONS, CAPTIONS, CLASSES, IMAGES)}


def get(name: str) -> Schema:
    """Return the schema of this name.

    Raises:
        ValueError: There is none; a task names a wrong schema.
    """
    if name not in SCHEMAS:
        raise ValueError(f"There is no data schema {name!r}; the schemas are {', '.join(SCHEMAS)}")
    return SCHEMAS[name]
