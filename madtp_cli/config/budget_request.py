"""A FLOPs budget as the user requests it: a share of the dense model, or GFLOPs per sample."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer

_FORMS = "Write 0.2 or 20% for a share of the dense GFLOPs, or 26.5G for GFLOPs per sample."
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%|[gG])?\s*")


@dataclass(frozen=True)
class BudgetRequest:
    """A budget that was parsed and checked.

    Attributes:
        text: The budget as it was written, without spaces around it.
        number: The value in `unit`.
        unit: "share" of the dense GFLOPs (above 0, at most 1), or "gflops" per sample (above 0).
        upper: The upper end of a range; None for one budget.
    """

    text: str
    number: float
    unit: Literal["share", "gflops"]
    upper: BudgetRequest | None = None

    @classmethod
    def parse(cls, value: object) -> BudgetRequest:
        """Read a budget.

        Args:
            value: Text such as "0.2", "20%" or "26.5G", a range such as "0.2..0.8", or a number, which is a share.

        Raises:
            ValueError: The value is not a budget; the message says how to write one.

        >>> BudgetRequest.parse("20%").number, BudgetRequest.parse("26.5G").unit, BudgetRequest.parse(0.2).text
        (0.2, 'gflops', '0.2')
        >>> BudgetRequest.parse("0.2..0.8").upper
        BudgetRequest(text='0.8', number=0.8, unit='share', upper=None)
        """
        if isinstance(value, BudgetRequest):
            return value
        text = str(value).strip()
        if ".." in text:
            return cls._range(text)
        match = _NUMBER_AND_UNIT.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is no budget. {_FORMS}")
        number, unit = float(match[1]), match[2] or ""
        if not math.isfinite(number):
            raise ValueError(f"A budget of {text} is too large to be a number. {_FORMS}")
        if number == 0:
            raise ValueError(f"A budget of {text} leaves nothing to compute with. {_FORMS}")
        if unit in ("g", "G"):
            return cls(text, number, "gflops")
        return cls(text, _share(text, number, unit), "share")

    @classmethod
    def _range(cls, text: str) -> BudgetRequest:
        """Read both ends of a range."""
        low, _, high = text.partition("..")
        lower, upper = cls.parse(low), cls.parse(high)
        if lower.unit != upper.unit or lower.number >= upper.number or upper.upper is not None:
            raise ValueError(f"{text!r} is no range. Write the smaller budget first, both in the same unit: 0.2..0.8.")
        return replace(lower, text=text, upper=upper)


def _share(text: str, number: float, unit: str) -> float:
    """Return the share, 0-1, that a number without unit or in percent stands for."""
    share = number / 100 if unit == "%" else number
    if share > 1 and not unit:
        raise ValueError(
            f"A bare budget above 1 has two readings: {number:g}G ({number:g} GFLOPs per sample) "
            f"or {number:g}% ({number / 100:g} of the dense GFLOPs). Write the one you mean."
        )
    if share > 1:
        raise ValueError(f"A budget of {text} is more than the dense model. {_FORMS}")
    return share


#: The type of a setting: pydantic parses it once, and JSON has the text as it was written.
BudgetField = Annotated[
    BudgetRequest, BeforeValidator(BudgetRequest.parse), PlainSerializer(lambda request: request.text, return_type=str)
]
