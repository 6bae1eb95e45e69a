"""The JSON of the reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from madtp_cli.reporting import schema

REPORTS = [schema.CompressReport, schema.EvalReport, schema.ProfileReport, schema.DataReport]


def properties(document: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every property in a JSON schema with its path."""
    for name, part in document.items() if isinstance(document, dict) else ():
        if name == "properties":
            yield from ((f"{path}/{field}", content) for field, content in part.items())
        yield from properties(part, f"{path}/{name}")


@pytest.mark.parametrize("report", REPORTS)
def test_every_field_has_a_description(report: type[BaseModel]) -> None:
    """A reader of the published schema needs the meaning and the unit of each number."""
    found = list(properties(report.model_json_schema()))
    assert found
    assert [path for path, content in found if not content.get("description")] == []


@pytest.mark.parametrize("report", REPORTS)
def test_no_field_is_a_tuple(report: type[BaseModel]) -> None:
    """The items of a tuple have no names in JSON."""
    assert "prefixItems" not in str(report.model_json_schema())


def test_gflops_of_a_dense_checkpoint_have_no_share() -> None:
    """Nothing is pruned, so there is nothing to compare."""
    assert schema.GflopsPart.of(4.0, None).share is None
    assert schema.GflopsPart.of(4.0, 1.0).share == 0.25
