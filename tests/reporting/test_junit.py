"""Gates as JUnit XML and as Markdown."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import xmlschema

from madtp_cli.config import EvalSettings
from madtp_cli.evaluation import gates
from madtp_cli.reporting.gate_parts import GatesPart
from madtp_cli.reporting.gate_summary import markdown
from madtp_cli.reporting.junit import junit
from tests.paths import ROOT
from tests.reports import change, compress_report

#: The schema of the plugin with which Jenkins reads JUnit files (MIT license); GitLab reads the same elements.
SCHEMA = ROOT / "tests/reporting/junit-10.xsd"


@pytest.fixture
def part() -> GatesPart:
    """Return a gate with each verdict but anomalous."""
    return gates.decide(compress_report(), EvalSettings(max_gflops=0.2, max_drop=0.4, min_agreement=97))


def test_the_junit_file_is_valid_against_the_schema_of_jenkins(part) -> None:
    """Also with a name that XML has to escape and one that it cannot contain."""
    schema = xmlschema.XMLSchema(SCHEMA)
    for name in ("blip-madtp", 'a "b" <c> & d', "bell\x07"):
        schema.validate(junit(part, name, 61.25))
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        schema.validate(junit(part, "x", 1).replace("<testcase ", "<testcase color='red' "))


def test_each_gate_is_a_test_case_and_a_failed_one_has_a_failure(part) -> None:
    """Failures carry the class, the verdict and the figure."""
    root = ElementTree.fromstring(junit(part, "blip-madtp", 2))
    (suite,) = root
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("blip-madtp", "3", "2")
    cases = {str(case.get("name")): case for case in suite}
    assert list(cases) == ["max_gflops", "max_drop", "min_agreement"]
    assert cases["max_gflops"].find("failure") is None
    failure = cases["max_drop"].find("failure")
    assert failure is not None
    assert failure.get("type") == "quality"
    assert failure.get("message") == "fail: loss of quality 1 points (0.5 to 1.5), at most 0.4 points allowed"
    doubt = cases["min_agreement"].find("failure")
    assert doubt is not None
    assert doubt.get("type") == "inconclusive"


def test_the_markdown_has_a_row_for_each_gate(part) -> None:
    """GitHub shows it as a table; a name cannot break the table."""
    text = markdown(part, "a|b<script>")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(part.gates)
    assert all(row.count("|") - row.count("\\|") == 6 for row in rows)
    assert rows[3] == "| :x: | loss of quality | 1 points (0.5 to 1.5) | at most 0.4 points | fail |"
    assert "a\\|b&lt;script>" in text


def test_an_anomalous_gate_says_why() -> None:
    """The word alone does not tell what to look for."""
    part = gates.decide(compress_report(quality=change(9, 8, 10)), EvalSettings(max_drop=1))
    assert "anomalous: the quality rose more than --max-gain" in markdown(part, "x")
