"""What README.md and the pages in docs/ show works: each fenced `sh` and `python` block runs, in the order of the page.

A line of an `sh` block is a command: `madtp ...`, `make TARGET`, `python examples/SCRIPT.py`, or one that installs
or downloads something, with `NAME=value` before it and `> file` after it. The madtp commands run on few samples and
without fine-tuning: those of README.md on the example checkpoints, those of docs/ on a smaller one with random
weights. Commands that install, download or make something are only checked. A `text` block directly after a
`python` block is the expected output.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import madtp_cli
from madtp_cli import config, methods
from madtp_cli.cli.app import app
from madtp_cli.models import architectures
from tests.paths import EXAMPLES, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]

#: Options that are added to each command, so that it takes seconds.
SMALLER = {
    "compress": ["--limit=16", "--steps=0"],
    "check": ["--max-gain=100"],
    "compare": ["--limit=8", "--no-time"],
    "eval": ["--limit=16"],
    "profile": ["--limit=8"],
    "export": [],
    "help": [],
    "doctor": [],
    "rerun": [],
    "show": [],
    "report": ["--pictures=4"],
    "inspect": [],
    "data": ["--limit=8"],
    "schema": [],
    "scenes": ["--train=48", "--val=32", "--test=48"],
}
#: Programs that need the network.
INSTALLERS = {"pip", "curl", "hf"}
#: Programs that start several processes; tests/processes runs these lines.
LAUNCHERS = {"torchrun", "accelerate"}
#: The program that runs a script of examples/.
PYTHON = "python"


class Block(NamedTuple):
    """A fenced block and the expected output after it, if the page shows one."""

    language: str
    text: str
    output: str | None


class Command(NamedTuple):
    """A line of an `sh` block without its redirection."""

    program: str
    words: list[str]
    variables: dict[str, str]


def blocks(page: Path) -> list[Block]:
    """Return the `sh` and `python` blocks of a page, also those in lists."""
    fences = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    found = [Block(language, textwrap.dedent(text), None) for _, language, text in fences]
    for number, block in enumerate(found[1:], 1):
        if block.language == "text" and found[number - 1].language == "python":
            found[number - 1] = found[number - 1]._replace(output=block.text)
    return [block for block in found if block.language in ("sh", "python")]


def commands(text: str) -> list[Command]:
    """Return the commands of an `sh` block."""
    found = []
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        words = shlex.split(line, comments=True)
        variables = [word for word in words if re.match(r"[A-Z_]+=", word)]
        program, *words = words[len(variables) :]
        end = words.index(">") if ">" in words else len(words)
        found.append(Command(program, words[:end], dict(word.split("=", 1) for word in variables)))
    return found


def shown(program: str, *pages: Path) -> list[Command]:
    """Return the commands of one program on the pages; on all pages if none is given."""
    lines = [block.text for page in pages or PAGES for block in blocks(page) if block.language == "sh"]
    return [command for text in lines for command in commands(text) if command.program == program]


def test_every_command_is_of_a_known_program() -> None:
    """Other commands would be shown untested."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                assert {command.program for command in commands(block.text)} <= {
                    "madtp",
                    "make",
                    *INSTALLERS,
                    *LAUNCHERS,
                    PYTHON,
                }, page


def test_every_command_is_shown_in_the_readme() -> None:
    """A reader learns from the README what madtp can do."""
    assert {command.words[0] for command in shown("madtp", ROOT / "README.md")} == COMMANDS.keys()


def test_the_options_of_every_command_exist() -> None:
    """Also those of commands that take long and do not run here."""
    for command in shown("madtp"):
        COMMANDS[command.words[0]].make_context(command.words[0], command.words[1:])


@pytest.mark.slow
def test_every_script_that_a_page_shows_runs(tmp_path) -> None:
    """With its options, and without checkpoints and data."""
    for command in shown(PYTHON):
        script, *options = command.words
        called = [script, *options] if script == "-m" else [ROOT / script, *options]
        given = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, *called], **given, check=False)
        assert done.returncode == 0, done.stderr


def test_every_budget_in_the_text_is_valid() -> None:
    """Also those in the table of the README."""
    for page in PAGES:
        for budget in re.findall(r"--gflops-budget (\S+?)[`\s]", page.read_text("utf-8")):
            config.resolve({"gflops_budget": budget}, None, {})


def test_every_extra_in_the_text_exists() -> None:
    """pip only warns about an extra that does not exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"pip install '[^']*\[(\w+)\]", page.read_text("utf-8")))
        assert named <= project["optional-dependencies"].keys(), page.name


def test_every_make_target_exists() -> None:
    """`make demo` and `make test` are the first commands that a new user types."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {command.words[0] for command in shown("make")}
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"):
        named |= set(re.findall(r"`make ([\w-]+)", page.read_text("utf-8")))
    assert {"demo", "test", "dist"} <= named <= targets


def test_every_link_to_a_file_leads_somewhere() -> None:
    """Pages and their parts move."""
    for page in (*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_results_in_the_readme_are_those_of_the_example_page() -> None:
    """When the results are measured again, the README needs the new figures."""
    readme = (ROOT / "README.md").read_text("utf-8")
    rows = [line.split("|") for line in (EXAMPLES / "results.md").read_text("utf-8").splitlines()]
    table: dict[tuple[str, str], str] = {}
    for cells in ([cell.strip() for cell in row] for row in rows if len(row) == 12):
        table.setdefault((cells[1], cells[2]), cells[8])
        table.setdefault((cells[1], "dense"), cells[7])
    models = [name for name, budget in table if budget == "0.5"]
    assert len(models) >= 7
    for name in models:
        figures = " | ".join(table[name, budget] for budget in ("dense", "0.5", "0.3", "0.2"))
        assert re.search(rf"^\| {re.escape(name)} \| [^|]* \| {re.escape(figures)}", readme, re.MULTILINE), name


def test_the_table_of_methods_in_the_readme_is_that_of_the_example_page() -> None:
    """The same methods and rows in the same order, without the intervals."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    (start,) = re.finditer(r"^### 20 % of the GFLOPs, after 360 fine-tuning steps$", page, re.MULTILINE)
    lines = [line for line in page[start.end() :].partition("\n#")[0].splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(methods.names()) + 1, "a head, the dense model, the control and every method"
    readme = (ROOT / "README.md").read_text("utf-8")
    for line in lines[1:]:
        method, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        figures = " | ".join("–" if cell == "not reachable" else cell.split()[0].strip("*") for cell in cells)
        assert f"\n| {method} | {figures} |\n" in readme.replace("**", ""), method


def test_no_page_has_a_heading_twice() -> None:
    """A link to such a part leads to the first one, and one of them is out of date."""
    for page in (*PAGES, EXAMPLES / "results.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        headings = re.findall(r"^## .*", page.read_text("utf-8"), re.MULTILINE)
        assert len(headings) == len(set(headings)), page.name


def test_every_architecture_is_on_the_page_of_results() -> None:
    """docs/costs.md promises the figures of all of them."""
    page = (EXAMPLES / "results.md").read_text("utf-8").rpartition("\n## ")[2]
    assert re.findall(r"^\| ([a-z][\w-]+-[\w-]+) \| [0-9.]+ \|", page, re.MULTILINE) == list(architectures())


@pytest.fixture
def workplace(checkpoint, tmp_path, monkeypatch):
    """A function that makes a folder with example checkpoints, in which the commands of a page run."""

    def prepare(page: Path) -> list[str]:
        """Prepare the folder, and return options for `compress`."""
        examples = tmp_path / "examples"
        monkeypatch.chdir(tmp_path)
        if page.name == "README.md":  # its answers are those of trained models
            examples.mkdir()
            for name in ("blip.pt", "clip.pt", "tokenizer", "clip-tokenizer"):
                (examples / name).symlink_to(EXAMPLES / name)
            return []
        examples.symlink_to(checkpoint.parent)
        if page.name == "published-checkpoints.md":
            stand_ins(tmp_path)
        return ["--gflops-budget=0.7"]  # the small checkpoint cannot reach less

    return prepare


def stand_ins(folder: Path) -> None:
    """Write small files under the names of the published checkpoints and data that a page downloads."""
    from transformers import CLIPModel

    from madtp_cli.scenes import writing

    shutil.copy(EXAMPLES / "blip-retrieval.pt", folder / "model_base_retrieval_coco.pth")
    shutil.copytree(EXAMPLES / "blip-retrieval-tokenizer", folder / "model_base_retrieval_coco-tokenizer")
    for name in ("coco", "flickr30k"):
        writing.write_scenes(folder / name, "retrieval", {"train": 24, "val": 16, "test": 16})
    model, processor = madtp_cli.load(EXAMPLES / "clip.pt")
    CLIPModel(model.config).save_pretrained(folder / "clip-vit-base-patch32")
    processor.save_pretrained(folder / "clip-vit-base-patch32")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page, madtp, workplace, capsys) -> None:
    """Users copy the commands and the code of a page, in its order."""
    options = SMALLER | {"compress": [*SMALLER["compress"], *workplace(page)]}
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == "python":
            capsys.readouterr()
            exec(compile(block.text, page.name, "exec"), names)
            assert block.output in (None, capsys.readouterr().out)
            continue
        for command in commands(block.text):
            if command.program == "madtp" and "--arch" not in command.words:  # tests of flops count full-size models
                done = madtp(*command.words, *options[command.words[0]], env=command.variables)
                assert done.exit_code == 0, (command.words, done.stderr)
