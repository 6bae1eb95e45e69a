"""VQA accuracy: an answer is correct if at least three of ten annotators gave it.

Source: Antol et al., VQA (ICCV 2015), and https://visualqa.org/evaluation.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from madtp_cli.errors import DataError

#: Annotators of each question in the data set; with as many references the official rule applies.
ANNOTATORS = 10
#: Number of other annotators who must have given an answer for a full score.
AGREEING = 3

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
#: A period that is not followed by a digit, also the one in "3.".
_PERIOD = re.compile(r"\.(?!\d)")
_DIGITS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
_ARTICLES = {"a", "an", "the"}
#: The contractions of the official evaluation. It leaves out those that are words without the apostrophe ("were").
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
#: A contraction without one of its apostrophes, and the correct form. The last entry is a mistake in the official
#: evaluation, which everybody uses with it.
_CORRECTED = {
    form[:position] + form[position + 1 :]: form
    for form in _CONTRACTIONS.split()
    for position, letter in enumerate(form)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalised(answer: str) -> str:
    """Normalise an answer as the official evaluation does before it compares answers.

    The steps in order: punctuation, periods, lower case, number words, articles, contractions. A punctuation mark
    becomes a space. It is removed instead if the same mark is next to a space anywhere in the answer, or if the answer
    has a number with a comma. Apostrophes and colons stay. "none" becomes 0.

    >>> normalised("The two T-shirts, dont you see?"), normalised("1,000.50"), normalised("2:50 p.m.")
    ("2 t shirts don't you see", '1000.50', '2:50 pm')
    """
    answer = _trimmed(answer)
    marked, thousands = answer, _NUMBER_WITH_COMMA.search(answer)
    for mark in _PUNCTUATION:
        at_space = f"{mark} " in marked or f" {mark}" in marked
        answer = answer.replace(mark, "" if at_space or thousands else " ")
    words = (_DIGITS.get(word, word) for word in _PERIOD.sub("", answer).lower().split())
    return " ".join(_CORRECTED.get(word, word) for word in words if word not in _ARTICLES)


def soft_score(answer: str, references: Sequence[str]) -> float:
    """Return the score of an answer, 0 to 1, from the number of annotators who gave the same answer.

    With ten or more references the official rule applies: min(matching references / 3, 1), averaged over the sets
    without one annotator. So 1, 2, 3 or 4 of ten give 0.3, 0.6, 0.9 or 1. If all references are the same string, they
    and the answer are compared without normalisation.

    With fewer references the score is min(matching references / 3, 1); with fewer than three references the 3 becomes
    their number. Answer and references are always normalised.

    Raises:
        DataError: There is no reference.

    >>> round(soft_score("Two.", ["2"] * 2 + ["3"] * 8), 6), soft_score("two", ["2"]), soft_score("2", ["2", "3"])
    (0.6, 1.0, 0.5)
    """
    if not references:
        raise DataError("A question without a reference answer cannot be scored.\nAdd an answer to each question.")
    answer, references = _trimmed(answer), [_trimmed(reference) for reference in references]
    if len(references) < ANNOTATORS or len(set(references)) > 1:
        answer, references = normalised(answer), [normalised(reference) for reference in references]
    agree, count = references.count(answer), len(references)
    if count < ANNOTATORS:
        return min(agree / min(AGREEING, count), 1.0)
    without_a_match = min((agree - 1) / AGREEING, 1.0)
    without_a_mismatch = min(agree / AGREEING, 1.0)
    return (agree * without_a_match + (count - agree) * without_a_mismatch) / count


def _trimmed(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
