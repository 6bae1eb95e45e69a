"""Gates as JUnit XML, which GitLab, Jenkins and other programs show beside the tests of a pipeline.

The standard library writes it: the format is three elements, and a library for it would be one more dependency of
every installation.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from madtp_cli.errors import printable
from madtp_cli.reporting.gate_parts import GatesPart
from madtp_cli.reporting.gate_summary import sentence


def junit(part: GatesPart, name: str, seconds: float) -> str:
    """Return the gates as a JUnit document: one test suite, with one test case per gate.

    Args:
        part: The verdicts.
        name: What was checked, such as the path of a checkpoint.
        seconds: Duration of the check; all gates are decided together, so the test cases have no time of their own.
    """
    counts: dict[str, Any] = {
        "tests": str(len(part.gates)),
        "failures": str(sum(gate.failed for gate in part.gates)),
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", name="madtp check", **counts)
    suite = ElementTree.SubElement(root, "testsuite", name=printable(name), **counts, skipped="0")
    for gate in part.gates:
        case = ElementTree.SubElement(suite, "testcase", classname="madtp", name=gate.name, time="0.000")
        if gate.failed:
            failure = ElementTree.SubElement(
                case, "failure", type=str(gate.failure_class), message=f"{gate.verdict}: {sentence(gate)}"
            )
            failure.text = sentence(gate)
        output = ElementTree.SubElement(case, "system-out")
        output.text = f"{gate.verdict}: {sentence(gate)}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode("utf-8") + "\n"
