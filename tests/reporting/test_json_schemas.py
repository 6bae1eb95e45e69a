"""The published JSON schemas. The command line runner of the tests checks every document with them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import jsonschema
import pytest
import typer

from madtp_cli.cli.app import app
from madtp_cli.reporting.json_schemas import DOCUMENTS, json_schema, names
from madtp_cli.reporting.schema import CompressReport, Interval
from tests import json_documents
from tests.reports import change, compress_report

#: Words that say in what a number is counted.
UNITS = re.compile(
    r"GFLOPs|percent|points|[Ss]econds|bytes|[Ss]hare|[Nn]umber|pixels|[Ss]amples|`\w*unit`|unit|divided"
)


def numbers(schema: dict[str, Any]) -> dict[str, str]:
    """Return the description of each field of a schema that is or contains numbers, by "Class.field"."""
    found = {}
    for name, kind in {schema.get("title", ""): schema, **schema.get("$defs", {})}.items():
        for field, content in kind.get("properties", {}).items():
            if re.search(r'"type": "(number|integer)"', json.dumps(content)):
                found[f"{name}.{field}"] = content.get("description", "")
    return found


@pytest.mark.parametrize("name", names())
def test_every_number_states_its_unit(name) -> None:
    """In its name or its description."""
    described = {field: f"{field} {text}" for field, text in numbers(json_schema(name)).items()}
    assert {field: text for field, text in described.items() if not UNITS.search(text)} == {}
    assert all(described.values())


def test_a_number_without_a_unit_is_found() -> None:
    """The check must be able to fail."""
    bare = {"title": "X", "properties": {"size": {"type": "integer", "description": "Size of the file."}}}
    assert numbers(bare) == {"X.size": "Size of the file."}
    assert not UNITS.search("size Size of the file.")


def test_every_command_with_json_has_a_schema() -> None:
    """A new command needs a document class."""
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    with_json = {name for name, command in commands.items() if "as_json" in {part.name for part in command.params}}
    assert with_json == DOCUMENTS.keys()


@pytest.mark.parametrize("name", [None, *names()])
def test_each_schema_is_one(name) -> None:
    """Of the draft that it names."""
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]


def test_the_validator_of_the_tests_refuses_other_documents() -> None:
    """A missing field, an unknown field, a wrong type and the document of another command."""
    document = json.loads(compress_report().model_dump_json())
    json_documents.validator("compress").validate(document)
    for wrong in (
        {name: value for name, value in document.items() if name != "quality"},
        document | {"qualty": 1},
        document | {"seconds": "long"},
        document | {"command": "eval"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            json_documents.validator("compress").validate(wrong)


def test_an_infinite_interval_is_written_as_null_and_read_again() -> None:
    """JSON has no infinity; a single group of samples has an infinite interval."""
    ends = Interval(low=-math.inf, high=math.inf)
    report = compress_report(quality=change().model_copy(update={"interval95": ends}))
    document = report.model_dump_json()
    assert json.loads(document)["quality"]["interval95"] == {"low": None, "high": None}
    json_documents.validator("compress").validate(json.loads(document))
    assert CompressReport.model_validate_json(document).quality.interval95 == ends
