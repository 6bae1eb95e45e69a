"""The lists in CONTRIBUTING.md of what an addition touches are the files of the toy additions in the tests.

Each toy addition is made outside the package, in a folder that the test appends to the `__path__` of the package's
folder. So no existing file can be edited, and the files of the toy are all that the addition needs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.paths import PACKAGE, ROOT

TESTS = Path(__file__).parent
#: By addition: the test that makes it, and the expression that appends to the `__path__`.
TOYS = {
    "pruning method": ("methods/test_new_method.py", r"methods\.__path__\.append"),
    "task with a known data schema": ("data/test_additions.py", r"add_module\(tasks, \"toy\""),
    "model family": ("models/test_toy_family.py", r"models\.__path__\.append"),
    "data layout": ("data/test_additions.py", r"add_module\(readers, "),
    "checkpoint file format": ("checkpoint/formats/test_formats.py", r"formats, \"__path__\""),
    "export format": ("exporters/test_exporters.py", r"exporters, \"__path__\""),
}


def listed() -> dict[str, str]:
    """Return the column of new files by addition, from the table in CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("## What an addition touches")[1].split("Number of files")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {name: files for name, files, _ in rows[2:]}


def test_every_addition_has_a_toy() -> None:
    """A list without a toy addition is not checked."""
    assert listed().keys() == TOYS.keys()


@pytest.mark.parametrize("addition", TOYS)
def test_a_test_makes_the_addition_without_editing_a_file(addition: str) -> None:
    """The toy comes from outside the package, through the folder that the list names."""
    file, appends = TOYS[addition]
    assert re.search(appends, (TESTS / file).read_text(encoding="utf-8"))
    folder = re.match(r"`([\w/]+?)/<name>", listed()[addition])
    assert folder
    assert (PACKAGE / folder[1]).is_dir()


def test_the_list_of_a_family_is_that_of_the_toy_family() -> None:
    """The toy has one task, and no part that several tasks share."""
    toy = TESTS / "models" / "toy_family" / "toy"
    files = {path.relative_to(toy).as_posix() for path in toy.rglob("*.py")}
    names = set(re.findall(r"`([\w/<>]+\.py)`", listed()["model family"])) - {"towers.py"}
    assert {name.replace("<task>", "retrieval") for name in names} == files


@pytest.mark.parametrize("addition", [name for name in TOYS if name != "model family"])
def test_other_lists_name_one_file_first(addition: str) -> None:
    """One file is enough; a task needs further ones for each family that gets a model for it."""
    first = re.match(r"`[\w/]+/<name>\.py`", listed()[addition])
    assert first
    assert (first[0] == listed()[addition]) or addition == "task with a known data schema"
