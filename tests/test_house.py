"""Rules for the package as a whole: where files are, how long they are, and how they are written.

CONTRIBUTING.md explains the rules. Rules about imports are in test_layers.py.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import PACKAGE, ROOT

#: Python files that may be in the root of the package; everything else belongs to a folder.
ROOT_FILES = {"__init__.py", "__main__.py", "errors.py", "processes.py"}
#: Everything that the repository has at its top.
TOP = {
    *{".ci", ".gitignore", "docs", "examples", "madtp_cli", "tests", "Makefile", "constraints.txt", "pyproject.toml"},
    *{"AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICE", "README.md"},
}
FILE_LINES, FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 300, 40, 10

#: Words and phrases that a new reader has to decode, and plain words for them.
DIALECT = {
    "knob": "threshold scale",
    "witness": "fvcore check",
    "lesson": "distillation targets",
    "lessons": "distillation targets",
    "workbench": "session",
    "told": "given, stated or set",
    "whoever": "the caller, the user",
    "listener": "progress reporter",
    "listeners": "progress reporters",
    "judge": "evaluate or score",
    "judged": "evaluated or scored",
    "judges": "evaluates or scores",
    "evidence": "predictions or scores",
    "pinned": "protected",
    "leader": "nearest more important token",
    "leaders": "nearest more important tokens",
    "nobody": "no sample, no user",
    "somebody": "a user",
    "hears": "receives",
    "heard": "received",
    "speaks": "prints",
    "is asked": "is computed, is requested",
    "are asked": "are computed, are requested",
    "held against": "compared with",
    "beside it": "next to it",
    "beside its": "next to its",
    "beside them": "next to them",
    "lies beside": "is next to",
    "lie beside": "are next to",
    "to be had": "available",
    "so many": "the number of",
    "is said": "is stated",
    "say so": "state it",
    "says so": "states it",
    "gives way": "is ignored",
    "give way": "are ignored",
}

#: Rules of ruff that hold for the package: commented-out code, and missing docstrings of public things.
RUFF_RULES = {"ERA001": "commented-out code", "D100": "module", "D101": "class", "D102": "method", "D103": "function"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def relative(path: Path) -> str:
    """Return a path as it reads from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def function_lengths(source: str) -> dict[str, int]:
    """Return the lines of each function, from `def` to its end, by "name (line)"; includes methods and nested ones."""
    return {
        f"{node.name} (line {node.lineno})": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def dialect(text: str) -> list[str]:
    """Return the dialect words of a text, as "line 3: knob (write: threshold scale)".

    Parts of snake_case names count as words, and a phrase may continue on the next line.
    """
    found = []
    for word, plain in DIALECT.items():
        phrase = r"\W+".join(map(re.escape, word.split()))
        for match in re.finditer(rf"(?<![a-z]){phrase}(?![a-z'])", text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, f"line {line}: {word} (write: {plain})"))
    return [message for _, message in sorted(found)]


def test_the_root_of_the_package_has_few_files() -> None:
    """A newcomer finds everything else through the name of a folder."""
    assert {path.name for path in PACKAGE.glob("*.py")} <= ROOT_FILES


def test_no_output_of_a_command_is_in_the_repository() -> None:
    """Commands write into the working directory, and `git add` takes what is there."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.split("/")[0] for name in listed.splitlines()} == TOP


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_are_short(path: Path) -> None:
    """A file that answers one question fits into 300 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short(path: Path) -> None:
    """A function of up to 40 lines, with its docstring, fits on a screen."""
    lengths = function_lengths(path.read_text(encoding="utf-8"))
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_most_functions_are_very_short() -> None:
    """Half of all functions have at most ten lines."""
    lengths = [lines for path in SOURCES for lines in function_lengths(path.read_text(encoding="utf-8")).values()]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def test_public_things_have_docstrings_and_no_code_is_commented_out() -> None:
    """The ruff settings allow undocumented methods in tests and examples; the package has none."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format=concise"]
    command += ["--target-version=py311", f"--select={','.join(RUFF_RULES)}", str(PACKAGE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=relative)
def test_the_words_are_plain_english(path: Path) -> None:
    """A new reader understands each sentence without a dictionary of this project."""
    assert dialect(path.read_text(encoding="utf-8")) == []


def test_dialect_is_found_in_names_and_across_lines() -> None:
    """The check also reads identifiers, comments and wrapped sentences."""
    assert dialect("x = self.knob_value") == ["line 1: knob (write: threshold scale)"]
    assert dialect("the two are held\n# against each other") == ["line 1: held against (write: compared with)"]
    assert dialect("doorknobs and toldness") == []


def test_the_lengths_of_functions_are_counted_with_their_docstrings() -> None:
    """The limit is about what a reader sees."""
    source = 'def outer():\n    """Do it."""\n\n    def inner(): ...\n    return inner\n'
    assert function_lengths(source) == {"outer (line 1)": 5, "inner (line 4)": 1}
