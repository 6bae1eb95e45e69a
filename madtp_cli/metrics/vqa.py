"""VQA accuracy: an answer is right if three of ten people gave it.

Source: Antol et al., VQA (ICCV 2015), and https://visualqa.org/evaluation.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from madtp_cli.errors import DataError

#: People whom the data set asked; with as many references the official average is taken.
ANNOTATORS = 10
#: So many of the others must have given an answer for it to be wholly right.
AGREEING = 3

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
#: Also the one in "3.": it is kept only in front of a digit.
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
#: Those the evaluation knows; what is a word without its apostrophe ("were", "wed", "ill") is not among them.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
#: A contraction that lacks one apostrophe, and what it stands for; the last is a slip that the evaluation is used with.
_MENDED = {
    form[:place] + form[place + 1 :]: form
    for form in _CONTRACTIONS.split()
    for place, mark in enumerate(form)
    if mark == "'"
} | {"somebody'd": "somebodyd"}


def normalised(answer: str) -> str:
    """An answer as the official evaluation compares it.

    In its order: punctuation, periods, lower case, number words, articles, contractions. A
    mark becomes a space, but vanishes where it stands at a space somewhere in the answer, or
    if the answer has a number with a comma; apostrophes and colons stay. "none" is 0.

    >>> normalised("The two T-shirts, dont you see?"), normalised("1,000.50"), normalised("2:50 p.m.")
    ("2 t shirts don't you see", '1000.50', '2:50 pm')
    """
    answer = _trimmed(answer)
    marked, thousands = answer, _NUMBER_WITH_COMMA.search(answer)
    for mark in _PUNCTUATION:
        at_space = f"{mark} " in marked or f" {mark}" in marked
        answer = answer.replace(mark, "" if at_space or thousands else " ")
    words = (_DIGITS.get(word, word) for word in _PERIOD.sub("", answer).lower().split())
    return " ".join(_MENDED.get(word, word) for word in words if word not in _ARTICLES)


def soft_score(answer: str, references: Sequence[str]) -> float:
    """How right an answer is, 0 to 1, by the people who gave the same one.

    With ten or more references as officially: min(others who agree / 3, 1), averaged over
    leaving out each person in turn, so 1, 2, 3 or 4 of ten give 0.3, 0.6, 0.9 or 1. References
    that are equal to the letter are then compared as they are written, and so is the answer.

    With fewer the simple rule: min(who agree / 3, 1), or of all where there are fewer than
    three; a single reference gives 1 for the same answer and 0 for any other. Both sides are
    always normalised.

    Raises:
        DataError: There is no reference.

    >>> round(soft_score("Two.", ["2"] * 2 + ["3"] * 8), 6), soft_score("two", ["2"]), soft_score("2", ["2", "3"])
    (0.6, 1.0, 0.5)
    """
    if not references:
        raise DataError("A question without a reference answer cannot be scored.\nGive every question an answer.")
    answer, references = _trimmed(answer), [_trimmed(reference) for reference in references]
    if len(references) < ANNOTATORS or len(set(references)) > 1:
        answer, references = normalised(answer), [normalised(reference) for reference in references]
    agree, count = references.count(answer), len(references)
    if count < ANNOTATORS:
        return min(agree / min(AGREEING, count), 1.0)
    without_one_of_them = min((agree - 1) / AGREEING, 1.0)
    without_another = min(agree / AGREEING, 1.0)
    return (agree * without_one_of_them + (count - agree) * without_another) / count


def _trimmed(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
