"""The JSON schema of each document, made from the classes of the reports when it is requested.

No schema file is stored, so none can differ from the classes. The schemas are in the package as the classes are.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter

from madtp_cli.reporting.comparison import CompareReport
from madtp_cli.reporting.plan import PlanReport
from madtp_cli.reporting.schema import (
    CheckReport,
    CompressReport,
    DataReport,
    DoctorReport,
    EvalReport,
    ExportReport,
    ProfileReport,
    RerunReport,
)
from madtp_cli.reporting.small_reports import (
    ArchitecturesReport,
    ErrorReport,
    InspectReport,
    LogEvent,
    PageReport,
    ScenesReport,
    ShowReport,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: The documents by the command that prints them with --json; a command may have several.
DOCUMENTS: dict[str, tuple[type[BaseModel], ...]] = {
    "check": (CheckReport,),
    "compare": (CompareReport,),
    "compress": (CompressReport,),
    "data": (DataReport,),
    "doctor": (DoctorReport,),
    "eval": (EvalReport,),
    "export": (ExportReport,),
    "inspect": (InspectReport,),
    "profile": (ProfileReport, ArchitecturesReport),
    "report": (PageReport,),
    "rerun": (RerunReport,),
    "scenes": (ScenesReport,),
    "show": (ShowReport,),
}
#: Documents of several commands: the plan of --dry-run, the object on stderr after a failure, a line of --log-json.
SHARED: dict[str, tuple[type[BaseModel], ...]] = {"dry-run": (PlanReport,), "error": (ErrorReport,), "log": (LogEvent,)}


def names() -> list[str]:
    """Return what `json_schema` accepts: the commands with documents, and those of several commands."""
    return [*DOCUMENTS, *SHARED]


def json_schema(name: str | None = None) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the documents of a command, or without a name of all commands.

    >>> json_schema("export")["properties"]["size_bytes"]["type"]
    'integer'
    """
    kinds = [kind for documents in DOCUMENTS.values() for kind in documents] if name is None else None
    found = tuple(kinds) if kinds is not None else {**DOCUMENTS, **SHARED}[str(name)]
    union: Any = found[0]
    for kind in found[1:]:
        union = union | kind
    schema = TypeAdapter(union).json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": f"urn:madtp:{name or 'all'}:1", **schema}
