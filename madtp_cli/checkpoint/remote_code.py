"""Ships a model's code beside its weights, for transformers' `trust_remote_code=True` where madtp is not installed.

transformers copies a modelling file and, over and over, the files that it names as `from .file import name`; it
sees no folders and no `from . import file`. So every module of ours that a model needs becomes one file of one
folder: madtp_cli/models/blip.py is madtp_models_blip.py. Only imports change, and how a folder is looked into by name.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli import __version__, models

ROOT = Path(__file__).parent.parent
#: Folders whose files are chosen by name, by functions `names` and `get`; all their files are shipped.
CHOSEN_FROM = ("methods",)

HEADER = """\
# Copyright the madtp authors. SPDX-License-Identifier: Apache-2.0
# This is {path} of madtp {version}, except that it imports the files beside it.
"""
#: For `from .file import this as file`, the only form of importing a whole file that transformers follows.
THIS = """

import sys

this = sys.modules[__name__]
"""
#: What a reader without our code is told that takes transformers' own class; it stands where a configuration belongs.
REFUSAL = (
    "tokens are pruned here, which this class cannot: use AutoModel with trust_remote_code=True, "
    "or after `import madtp_cli.models`"
)


def write(model: Any, folder: Path) -> None:
    """Put the code of a model into a folder that has its config.json, and name it there."""
    for name, text in files(models.kind_of(model.config)).items():
        (folder / name).write_text(text, encoding="utf-8")
    config = folder / "config.json"
    fields = json.loads(config.read_text(encoding="utf-8")) | references(models.kind_of(model.config))
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def references(kind: str) -> dict[str, Any]:
    """What config.json says for transformers: `auto_map`, which file has which class, and `without_madtp`.

    The latter stops transformers' own classes, which read a folder of another model type with no more than a warning
    and would run it dense: before that they look for a part that is of their own type, and this one they cannot read.
    """
    model, file = models.get(kind), _flat_name(f"models.{kind}")
    config = model.config_class
    named = {"AutoConfig": config.__name__} | dict.fromkeys(models.auto_classes(model), model.__name__)
    return {
        "auto_map": {auto: f"{file}.{name}" for auto, name in named.items()},
        "without_madtp": {"model_type": config.model_type.removeprefix("madtp_"), "text_config": REFUSAL},
    }


def files(kind: str) -> dict[str, str]:
    """The files that a model of this kind needs, by name."""
    texts: dict[str, str] = {}
    waiting = [f"models.{kind}"]
    while waiting:
        module = waiting.pop()
        if module not in texts:
            texts[module], needed = _flat(module)
            waiting += needed
    taken = {module for module in texts if any(_taking(module, "") in text for text in texts.values())}
    return {f"{_flat_name(module)}.py": texts[module] + THIS * (module in taken) for module in sorted(texts)}


@dataclass(frozen=True)
class _Edit:
    """Lines that take a statement's place, and the modules that they import."""

    statement: ast.stmt
    lines: list[str]
    needed: list[str]


def _flat(module: str) -> tuple[str, list[str]]:
    """A module's text for the flat folder, and the modules that it imports."""
    path = _path(module)
    source = path.read_text(encoding="utf-8")
    lines, needed = source.splitlines(), list[str]()
    edits = sorted(_edits(ast.parse(source), module), key=lambda edit: edit.statement.lineno, reverse=True)
    for edit in edits:  # the last first, so that the numbers of the lines before it hold
        indent = " " * edit.statement.col_offset
        lines[edit.statement.lineno - 1 : edit.statement.end_lineno] = [(indent + line).rstrip() for line in edit.lines]
        needed += edit.needed
    header = HEADER.format(path=path.relative_to(ROOT.parent).as_posix(), version=__version__)
    return header + "\n".join(lines) + "\n", needed


def _edits(tree: ast.Module, module: str) -> Iterator[_Edit]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
            yield _import(node)
        elif isinstance(node, ast.Import) and any(_is_ours(alias.name) for alias in node.names):
            raise ValueError(f"{module} imports a module by its full name, which cannot be shipped")
    if module in CHOSEN_FROM:
        yield from _choice(tree, module)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == ROOT.name


def _import(node: ast.ImportFrom) -> _Edit:
    """An import of ours, in relative form: each module as a whole, then names together."""
    origin = (node.module or "").removeprefix(ROOT.name).removeprefix(".")
    whole = {alias: f"{origin}.{alias.name}".removeprefix(".") for alias in node.names}
    whole = {alias: module for alias, module in whole.items() if _path(module).is_file()}
    lines = [_taking(module, alias.asname or alias.name) for alias, module in whole.items()]
    names = [alias for alias in node.names if alias not in whole]
    if names:
        lines.append(ast.unparse(ast.ImportFrom(_flat_name(origin), names, level=1)))
    return _Edit(node, lines, [*whole.values(), *[origin] * bool(names)])


def _choice(tree: ast.Module, folder: str) -> Iterator[_Edit]:
    """What `names` and `get` return, written out, for flat beside the weights there is no folder to look into."""
    files = sorted(path.stem for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")
    by_name = {file.replace("_", "-"): file for file in files}
    choice = ", ".join(f"{name!r}: {file}" for name, file in by_name.items())
    imports = [_taking(f"{folder}.{file}", file) for file in files]
    ends = {"names": [f"return {list(by_name)}"], "get": [*imports, "", f"return {{{choice}}}[name]"]}
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name in ends:
            yield _Edit(function.body[-1], ends[function.name], [f"{folder}.{file}" for file in files])


def _taking(module: str, name: str) -> str:
    return f"from .{_flat_name(module)} import this as {name}"


def _flat_name(module: str) -> str:
    return "_".join(("madtp", *module.split(".")))


def _path(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
