"""Rules about imports, read from the source: imports point downwards, and only the command line prints.

CONTRIBUTING.md shows the imports between the folders; a test compares that drawing with the real imports.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.paths import PACKAGE, ROOT

#: From top to bottom. A part (a folder or a file in the root) may import the parts in lower lines.
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
    ("progress", "processes"),
    ("errors",),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}

#: Folders whose entries are alternatives to each other. No entry may import another one. Entries whose name begins with
#: an underscore are shared by all of them.
ALTERNATIVES = ("methods", "tasks", "metrics", "exporters", "checkpoint.formats", "data.readers", "models.blip.costs")
#: Files without an underscore that alternatives share as well, and what they contain.
SHARED = {"models.blip.costs.towers": "costs of the towers that all BLIP models have"}

#: Other libraries that a part may import, in addition to the standard library. Parts without an entry are free.
OUTSIDE: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "processes": {"accelerate", "torch"},
    "reporting": {"PIL", "huggingface_hub", "jinja2", "matplotlib", "numpy", "pydantic", "rich"},
    "config": {"pydantic", "pydantic_core", "yaml"},
    "metrics": {"numpy"},
    "pruning": {"torch"},
    "execution": {"torch"},
    "models": {"numpy", "tokenizers", "torch", "transformers"},
}
#: Parts that may import only some of the lower parts, and which. `pruning` is compared with the paper, `models` is
#: copied next to the weights, and `metrics` is useful to other projects.
INSIDE = {
    "models": {"execution", "flops", "methods", "pruning"},
    "execution": {"methods", "pruning"},
    "pruning": set[str](),
    "metrics": {"errors"},
}

#: Parts that may write to the terminal or end the process.
TERMINAL_PARTS = {"cli", "__main__"}
#: Names that write to the terminal or end the process.
TERMINAL_NAMES = {"print", "exit", "quit", "SystemExit", "sys.exit", "os._exit", "sys.stdout", "sys.stderr"}
#: Libraries that only the command line may import.
TERMINAL_LIBRARIES = {"rich", "typer"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def part_of(module: str) -> str:
    """Return the folder or root file of a module: "models" for "models.blip"."""
    return module.split(".")[0]


def imported(source: str, module: str) -> Iterator[str]:
    """Yield everything that a module imports, also inside functions; our modules without "madtp_cli."."""
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
    """Yield the module behind each name: data.rows for `from madtp_cli.data import rows`, data for a constant of it."""
    for name in names:
        full = f"{origin}.{name}"
        if full.removeprefix("madtp_cli.") in {*MODULES, *RANK}:
            yield full
        elif full != "madtp_cli.__version__":  # every part may read the version
            yield origin


def own_imports(source: str, module: str) -> Iterator[str]:
    """Yield the imports from this package, such as "data.rows"; "__init__" is the package itself."""
    for name in imported(source, module):
        if name == "madtp_cli" or name.startswith("madtp_cli."):
            yield name.removeprefix("madtp_cli").removeprefix(".") or "__init__"


def are_alternatives(here: str, there: str) -> bool:
    """Return whether both modules are alternatives in the same folder, so that neither may import the other."""
    for folder in ALTERNATIVES:
        entries = [
            name.removeprefix(f"{folder}.").split(".")[0] for name in (here, there) if name.startswith(f"{folder}.")
        ]
        if len(entries) == 2 and entries[0] != entries[1]:
            return there not in SHARED and not entries[1].startswith("_")
    families = [name.split(".")[1] for name in (here, there) if name.startswith("models.") and name.count(".") > 1]
    return len(families) == 2 and families[0] != families[1]


def wrong_imports(source: str, module: str) -> list[str]:
    """Return the imports of a module that break a rule, one message each."""
    here, wrong = part_of(module), []
    for target in own_imports(source, module):
        there = part_of(target)
        if are_alternatives(module, target):
            wrong.append(f"{module} imports its alternative {target}")
        elif here != there and RANK[there] <= RANK[here]:
            wrong.append(f"{module} imports {target}, which is not in a lower layer")
        elif here != there and there not in INSIDE.get(here, RANK):
            wrong.append(f"{module} imports {target}, which {here} may not use")
    for name in {name.split(".")[0] for name in imported(source, module)} - sys.stdlib_module_names - {"madtp_cli"}:
        if name not in OUTSIDE.get(here, {name}):
            wrong.append(f"{module} imports {name}, which {here} may not use")
        if name in TERMINAL_LIBRARIES and here not in TERMINAL_PARTS:
            wrong.append(f"{module} imports {name}, which only the command line may use")
    return wrong


def cycles(sources: dict[str, str]) -> list[str]:
    """Return the modules that import themselves through other modules."""
    imports = {module: set(own_imports(source, module)) for module, source in sources.items()}
    reached = {module: set(direct) for module, direct in imports.items()}
    for _ in imports:
        for targets in reached.values():
            targets.update(*(imports.get(module, set()) for module in tuple(targets)))
    return [module for module, targets in reached.items() if module in targets]


def drawing() -> str:
    """Return the imports between the parts, one line each, as CONTRIBUTING.md shows them."""
    targets: dict[str, set[str]] = {part: set() for part in RANK}
    for module, path in MODULES.items():
        targets[part_of(module)].update(map(part_of, own_imports(path.read_text(encoding="utf-8"), module)))
    lines = []
    for part, imports in targets.items():
        below = sorted(imports - {part}, key=lambda name: (RANK[name], name))
        lines.append(f"{part:<11} -> {', '.join(below) or 'nothing'}")
    return "\n".join(lines)


def terminal_uses(source: str) -> list[str]:
    """Return the names in a source that print or end the process."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in TERMINAL_NAMES
    ]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    """The name of a layer tells a reader what it cannot depend on."""
    assert part_of(module) in RANK, f"add {module} to LAYERS"
    assert wrong_imports(MODULES[module].read_text(encoding="utf-8"), module) == []


def test_there_are_no_import_cycles() -> None:
    """A cycle has no file that can be read first."""
    assert cycles({module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}) == []


def test_a_cycle_is_caught() -> None:
    """Also a cycle of three files."""
    one, two, three = (f"from madtp_cli.scenes import {name}" for name in ("generator", "painting", "captions"))
    assert cycles({"scenes.captions": one, "scenes.generator": two, "scenes.painting": ""}) == []
    assert set(cycles({"scenes.captions": one, "scenes.generator": two, "scenes.painting": three})) == {
        "scenes.captions",
        "scenes.generator",
        "scenes.painting",
    }


def test_the_drawing_of_the_imports_is_current() -> None:
    """CONTRIBUTING.md shows newcomers which folder uses which; if this fails, paste the new lines there."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.search(r"^## Folders and their imports$.*?^```text\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)
    assert shown
    if shown[1] != drawing():
        pytest.fail(f"Replace the drawing in CONTRIBUTING.md with these lines:\n{drawing()}", pytrace=False)


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) not in TERMINAL_PARTS])
def test_only_the_command_line_prints(module: str) -> None:
    """Printing in library code would break `--json`, and exiting would end the caller's program."""
    assert terminal_uses(MODULES[module].read_text(encoding="utf-8")) == []


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
        ("checkpoint.loading", "import madtp_cli"),
        ("pipelines.compress", "from madtp_cli.cli.app import main"),
        ("pipelines.compress", "from rich.progress import track"),
        ("metrics.vqa", "from madtp_cli.evaluation.intervals import interval95"),
        ("metrics.retrieval", "import torch"),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str) -> None:
    """Each rule can fail."""
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
    """Allowed imports are not reported."""
    assert wrong_imports(source, module) == []


def test_every_way_to_print_or_exit_is_caught() -> None:
    """Also when the function gets another name."""
    for source in ("print(1)", "import sys\nsys.exit(2)", "raise SystemExit", "x = sys.stderr", "show = print"):
        assert terminal_uses(source), source
    assert terminal_uses('"""print(1)"""\nblueprint(1)\nself.print(1)') == []


def test_the_list_of_shared_files_is_current() -> None:
    """An exception for a deleted file would also apply to a new file of that name."""
    assert SHARED.keys() | set(ALTERNATIVES) <= MODULES.keys()


@pytest.mark.parametrize("module", sorted({"__init__", "config", "errors", "progress", "reporting.schema", "cli.app"}))
def test_the_light_parts_do_not_load_torch(module: str) -> None:
    """`madtp --help` must be fast, and a script may import the package only for an error class."""
    name = "madtp_cli" if module == "__init__" else f"madtp_cli.{module}"
    code = f"import sys, {name}; print(*({{'torch', 'transformers', 'numpy', 'fvcore'}} & sys.modules.keys()))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
