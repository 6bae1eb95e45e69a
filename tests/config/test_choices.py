"""The values of settings that a shell completes."""

from __future__ import annotations

from typing import get_args

from madtp_cli.config import choices
from madtp_cli.config.settings import ALL_FIELDS


def test_the_listed_choices_are_those_of_the_settings() -> None:
    """They complete words and correct mistakes before any settings exist. --device may have a number too."""
    literals = {
        name: {value for part in (field.annotation, *get_args(field.annotation)) for value in get_args(part)}
        for name, field in ALL_FIELDS.items()
    }
    found = {name: {v for v in values if isinstance(v, str)} for name, values in literals.items()}
    listed = {name: set(values) for name, values in choices.FIXED.items() if name != "device"}
    assert listed == {name: values for name, values in found.items() if values}
