"""Check every JSON document that a command prints with the published schema, by an independent validator."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jsonschema
from typer.testing import Result

from madtp_cli.reporting.json_schemas import json_schema


def check(words: Sequence[object], result: Result) -> None:
    """Check the output of a command with --json: the document on stdout, and the object on stderr after a failure."""
    if "--json" not in words:
        return
    if result.stdout.strip():
        document = json.loads(result.stdout)
        validator(document["command"]).validate(document)
    if result.exit_code not in (0, 141):
        found = json.loads(result.stderr.splitlines()[-1])
        validator("error").validate(found)
        assert found["code"] == result.exit_code


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return the validator of a document; it also refuses fields that the schema does not describe."""
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no other fields."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema else closed
