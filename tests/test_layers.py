"""The house's rules, read off the source: imports point downwards, and only the command line speaks."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.paths import PACKAGE

#: From top to bottom; a part imports what stands in a line below its own.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("pipelines",),
    ("compression", "exporters"),
    ("evaluation",),
    ("scenes",),
    ("checkpoint", "tasks"),
    ("models", "data"),
    ("flops", "metrics"),
    ("execution",),
    ("methods",),
    ("pruning",),
    ("config", "reporting"),
    ("progress",),
    ("errors",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

#: Folders whose entries are alternatives to each other, so that none may import another. An entry whose name begins
#: with an underscore is shared by all of them.
ALTERNATIVES = ("methods", "tasks", "metrics", "exporters", "checkpoint.formats", "data.readers", "models.blip.costs")
#: Files that several alternatives share, though their name has no underscore.
SHARED = {"models.blip.costs.towers": "costs of the towers that all BLIP models have"}

#: What a part may import from outside, beside the standard library; parts not named here are free.
OUTSIDE: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "reporting": {"pydantic", "rich"},
    "config": {"pydantic", "yaml"},
    "metrics": {"numpy"},
    "pruning": {"torch"},
    "execution": {"torch"},
    "models": {"numpy", "torch", "transformers"},
}
#: What a part may import from this package, if less than all that lies below: these are read beside the paper or
#: written beside the weights, or are of use to others.
INSIDE = {
    "models": {"execution", "flops", "methods", "pruning"},
    "execution": {"methods", "pruning"},
    "pruning": set[str](),
    "metrics": {"errors"},
}

#: The parts that may write to the terminal or end the process.
SPEAKERS = {"cli", "__main__"}
#: Ways to write to the terminal or to end the process.
SPEECH = {"print", "exit", "quit", "SystemExit", "sys.exit", "os._exit", "sys.stdout", "sys.stderr"}
#: Libraries that only the command line may import.
SPEAKING_LIBRARIES = {"rich", "typer"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def part_of(module: str) -> str:
    """The folder or top-level file a module belongs to: "models.blip" is of "models"."""
    return module.split(".")[0]


def imported(source: str, module: str) -> Iterator[str]:
    """Everything a module imports, also inside functions; ours without the package's name, as "data.rows"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            origin = ".".join(["madtp_cli", *package] if node.level else []) + (
                "." if node.level and node.module else ""
            )
            yield from _from(origin + (node.module or ""), [alias.name for alias in node.names])


def _from(origin: str, names: list[str]) -> Iterator[str]:
    """`from madtp_cli.data import rows` is about data.rows, `... import COLOURS` about data."""
    for name in names:
        full = f"{origin}.{name}"
        if full.removeprefix("madtp_cli.") in {*MODULES, *RANK}:
            yield full
        elif full != "madtp_cli.__version__":  # a constant that every part may quote
            yield origin


def ours(source: str, module: str) -> Iterator[str]:
    """The imports that stay in the house: "data.rows", or "__init__" for the package itself."""
    for name in imported(source, module):
        if name == "madtp_cli" or name.startswith("madtp_cli."):
            yield name.removeprefix("madtp_cli").removeprefix(".") or "__init__"


def neighbours(here: str, there: str) -> bool:
    """Whether both are alternatives in one folder, so that neither may know of the other."""
    for folder in ALTERNATIVES:
        entries = [
            name.removeprefix(f"{folder}.").split(".")[0] for name in (here, there) if name.startswith(f"{folder}.")
        ]
        if len(entries) == 2 and entries[0] != entries[1]:
            return there not in SHARED and not entries[1].startswith("_")
    families = [name.split(".")[1] for name in (here, there) if name.startswith("models.") and name.count(".") > 1]
    return len(families) == 2 and families[0] != families[1]


def wrong_imports(source: str, module: str) -> list[str]:
    """Imports that point up or sideways, or leave what the part may use."""
    here, wrong = part_of(module), []
    for target in ours(source, module):
        there = part_of(target)
        if neighbours(module, target):
            wrong.append(f"{module} imports its neighbour {target}")
        elif here != there and RANK[there] <= RANK[here]:
            wrong.append(f"{module} imports {target}, which does not lie below it")
        elif here != there and there not in INSIDE.get(here, RANK):
            wrong.append(f"{module} imports {target}, which {here} must do without")
    for name in {name.split(".")[0] for name in imported(source, module)} - sys.stdlib_module_names - {"madtp_cli"}:
        if name not in OUTSIDE.get(here, {name}):
            wrong.append(f"{module} imports {name}, which {here} must do without")
        if name in SPEAKING_LIBRARIES and here not in SPEAKERS:
            wrong.append(f"{module} imports {name}, which is the command line's")
    return wrong


def cycles(sources: dict[str, str]) -> list[str]:
    """Modules that import themselves by way of others."""
    imports = {module: set(ours(source, module)) for module, source in sources.items()}
    reached = {module: set(direct) for module, direct in imports.items()}
    for _ in imports:
        for seen in reached.values():
            seen.update(*(imports.get(module, set()) for module in tuple(seen)))
    return [module for module, seen in reached.items() if module in seen]


def speech(source: str) -> list[str]:
    """The places that print or end the process."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in SPEECH
    ]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    """A reader who knows a layer's name knows what it cannot depend on."""
    assert part_of(module) in RANK, f"say in LAYERS where {module} stands"
    assert wrong_imports(MODULES[module].read_text(encoding="utf-8"), module) == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    """In a cycle no file can be read first."""
    assert cycles({module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}) == []


def test_a_cycle_is_caught() -> None:
    """Also one that takes a detour."""
    one, two, three = (f"from madtp_cli.scenes import {name}" for name in ("generator", "painting", "captions"))
    assert cycles({"scenes.captions": one, "scenes.generator": two, "scenes.painting": ""}) == []
    assert set(cycles({"scenes.captions": one, "scenes.generator": two, "scenes.painting": three})) == {
        "scenes.captions",
        "scenes.generator",
        "scenes.painting",
    }


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) not in SPEAKERS])
def test_only_the_command_line_speaks(module: str) -> None:
    """Library code that prints spoils `--json`; library code that exits ends its caller."""
    assert speech(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pruning.merging", "import madtp_cli.models.blip.towers"),
        ("pruning.merging", "from madtp_cli.methods import Rule"),
        ("pruning.merging", "import numpy"),
        ("pruning.merging", "from madtp_cli.errors import UsageError"),
        ("errors", "from madtp_cli.config import resolve"),
        ("config", "def later():\n    import torch.nn"),
        ("reporting.schema", "from torch import Tensor"),
        ("models.blip.towers", "from madtp_cli import config"),
        ("models.blip.towers", "from madtp_cli.models.clip import towers"),
        ("execution.packed", "import numpy as np"),
        ("methods.madtp", "from madtp_cli.execution.packed import Packed"),
        ("methods.random", "from . import madtp"),
        ("methods.random", "from .madtp import keep"),
        ("methods.random", "from ..models import prunable"),
        ("data.dataset", "from madtp_cli.tasks import nlvr2"),
        ("data.dataset", "from madtp_cli.scenes import generator"),
        ("checkpoint.formats.huggingface", "from madtp_cli.checkpoint.formats.salesforce_blip import recognise"),
        ("data.readers.blip_json", "from madtp_cli.data.readers import nlvr2_jsonl"),
        ("checkpoint.load", "import madtp_cli"),
        ("pipelines.compress", "from madtp_cli.cli.app import main"),
        ("pipelines.compress", "from rich.progress import track"),
        ("metrics.vqa", "from madtp_cli.evaluation.intervals import interval95"),
        ("metrics.retrieval", "import torch"),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str) -> None:
    """A rule that cannot fail guards nothing."""
    assert wrong_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cli.app", "def compress():\n    from madtp_cli.pipelines import compress\nimport rich, typer"),
        ("pipelines.compress", "from madtp_cli import __version__, tasks\nfrom madtp_cli.compression import budget"),
        (
            "models.blip.nlvr2",
            "import torch, math\nfrom madtp_cli.models.blip.towers import PrunableBlip",
        ),
        ("methods.madtp", "from madtp_cli.methods import BlockInputs\nfrom madtp_cli.pruning.merging import join"),
        ("tasks.nlvr2", "from madtp_cli.data.dataset import Row\nfrom madtp_cli.tasks import _texts"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    """The rule forbids no more than it says."""
    assert wrong_imports(source, module) == []


def test_every_way_to_speak_is_caught() -> None:
    """Printing, ending the process, and doing either by another name."""
    for source in ("print(1)", "import sys\nsys.exit(2)", "raise SystemExit", "x = sys.stderr", "say = print"):
        assert speech(source), source
    assert speech('"""print(1)"""\nblueprint(1)\nself.print(1)') == []


def test_the_list_of_shared_files_is_current() -> None:
    """An exception for a file that is gone would let a later file of that name in unseen."""
    assert SHARED.keys() | set(ALTERNATIVES) <= MODULES.keys()


@pytest.mark.parametrize("module", sorted({"__init__", "config", "errors", "progress", "reporting.schema", "cli.app"}))
def test_the_light_parts_load_no_torch(module: str) -> None:
    """`madtp --help` must answer at once, and a script may import the package for an error class alone."""
    name = "madtp_cli" if module == "__init__" else f"madtp_cli.{module}"
    code = f"import sys, {name}; print(*({{'torch', 'transformers', 'numpy', 'fvcore'}} & sys.modules.keys()))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
