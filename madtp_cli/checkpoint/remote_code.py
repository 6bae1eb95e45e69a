"""Writes a model's code next to its weights, for transformers' `trust_remote_code=True` where madtp is not installed.

transformers copies the model's file and, again and again, the files that it imports as `from .file import name`. It
supports neither subfolders nor `from . import file`. So every module that a model needs becomes one file in one folder:
madtp_cli/models/blip/vqa.py becomes madtp_models_blip_vqa.py. The files differ from ours only in their imports, and in
the functions that choose a module of a folder by name.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from madtp_cli import __version__, models

PACKAGE = "madtp_cli"
#: Folders with functions `names` and `get` that choose one of their files by name. All their files are written.
CHOICES = ("methods",)

HEADER = """\
# Copyright the madtp authors. SPDX-License-Identifier: Apache-2.0
# This is {path} of madtp {version}, except that it imports the files next to it.
"""
#: Supports `from .file import this as file`, the only form of importing a whole file that transformers follows.
THIS = """

import sys

this = sys.modules[__name__]
"""
#: Stands where transformers' own classes expect a configuration. They show it in their error.
REFUSAL = (
    "tokens are pruned here, which this class cannot: use AutoModel with trust_remote_code=True, "
    "or after `import madtp_cli.models`"
)


def write(model: Any, folder: Path) -> None:
    """Write the code of a model into a folder that has its config.json, and refer to it there."""
    kind = models.kind_of(model.config)
    for name, text in files(kind).items():
        (folder / name).write_text(text, encoding="utf-8")
    _add_fields(folder / "config.json", references(kind))


def write_processor(processor: Any, folder: Path) -> None:
    """Write the code of a processor into a folder that has its settings, if its class is one of this package."""
    module, name = type(processor).__module__, type(processor).__name__
    if not _is_ours(module):
        return
    module = module.removeprefix(f"{PACKAGE}.")
    for file, text in _files_of(module).items():
        (folder / file).write_text(text, encoding="utf-8")
    _add_fields(folder / "processor_config.json", {"auto_map": {"AutoProcessor": f"{_flat_name(module)}.{name}"}})


def _add_fields(file: Path, fields: dict[str, Any]) -> None:
    written = json.loads(file.read_text(encoding="utf-8")) | fields
    file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def references(kind: str) -> dict[str, Any]:
    """Return the fields of config.json that transformers reads: `auto_map` and `without_madtp`.

    `auto_map` states the file of each class. `without_madtp` stops transformers' own classes, which would read the
    folder with only a warning and run it without pruning. They first look for a part of their own model type, find this
    one, and cannot read it.
    """
    model, file = models.get(kind), _flat_name(f"models.{kind}")
    config = model.config_class
    family = models.family_of(config)
    classes = {"AutoConfig": config.__name__} | dict.fromkeys(models.auto_classes(model), model.__name__)
    return {
        "auto_map": {auto: f"{file}.{name}" for auto, name in classes.items()},
        # One of the two is invalid in every configuration: a part that is no part, or a width that is no number.
        "without_madtp": {
            "model_type": family.transformers_type or family.name,
            "text_config": REFUSAL,
            "hidden_size": REFUSAL,
        },
    }


def files(kind: str) -> dict[str, str]:
    """Return the text of every file that a model of this kind needs, by file name."""
    return _files_of(f"models.{kind}")


def _files_of(module: str) -> dict[str, str]:
    """Return the texts of a module and of all modules that it needs, by file name."""
    texts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        module = waiting.pop()
        if module not in texts:
            texts[module], imported = _flatten(module)
            waiting += imported
    whole = {module for module in texts if any(_import_whole(module, "") in text for text in texts.values())}
    return {f"{_flat_name(module)}.py": texts[module] + THIS * (module in whole) for module in sorted(texts)}


@dataclass(frozen=True)
class _Edit:
    """Lines that replace a statement, and the modules that they import."""

    statement: ast.stmt
    lines: list[str]
    imported: list[str]


def _flatten(module: str) -> tuple[str, list[str]]:
    """Return a module's text for the flat folder, and the modules that it imports."""
    path = _path(module)
    if path is None:
        raise ValueError(f"There is no module {PACKAGE}.{module} to write next to the weights.")
    source = path.read_text(encoding="utf-8")
    lines, imported = source.splitlines(), list[str]()
    edits = sorted(_edits(ast.parse(source), module), key=lambda edit: edit.statement.lineno, reverse=True)
    for edit in edits:  # the last first, so that the line numbers of the others stay right
        indent = " " * edit.statement.col_offset
        lines[edit.statement.lineno - 1 : edit.statement.end_lineno] = [(indent + line).rstrip() for line in edit.lines]
        imported += edit.imported
    relative = "/".join([PACKAGE, *module.split(".")]) + ("/__init__" if path.stem == "__init__" else "")
    header = HEADER.format(path=f"{relative}.py", version=__version__)
    return header + "\n".join(lines) + "\n", imported


def _edits(tree: ast.Module, module: str) -> Iterator[_Edit]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
            yield _relative_import(node)
        elif isinstance(node, ast.Import) and any(_is_ours(alias.name) for alias in node.names):
            raise ValueError(f"{module} imports a module by its full name.\nUse the form `from package import module`.")
    if module in CHOICES:
        yield from _written_out_choice(tree, module)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE


def _relative_import(node: ast.ImportFrom) -> _Edit:
    """Return an import of this package in relative form: first whole modules, then names."""
    origin = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
    submodules = {alias: f"{origin}.{alias.name}".removeprefix(".") for alias in node.names}
    submodules = {alias: module for alias, module in submodules.items() if _path(module)}
    lines = [_import_whole(module, alias.asname or alias.name) for alias, module in submodules.items()]
    names = [alias for alias in node.names if alias not in submodules]
    if names:
        lines.append(ast.unparse(ast.ImportFrom(_flat_name(origin), names, level=1)))
    return _Edit(node, lines, [*submodules.values(), *[origin] * bool(names)])


def _written_out_choice(tree: ast.Module, folder: str) -> Iterator[_Edit]:
    """Write out the results of `names` and `get`, which read a folder that the flat files do not have."""
    modules = pkgutil.iter_modules(importlib.import_module(f"{PACKAGE}.{folder}").__path__)
    files = sorted(file.name for file in modules if not file.name.startswith("_"))
    by_name = {file.replace("_", "-"): file for file in files}
    choice = ", ".join(f"{name!r}: {file}" for name, file in by_name.items())
    imports = [_import_whole(f"{folder}.{file}", file) for file in files]
    ends = {"names": [f"return {list(by_name)}"], "get": [*imports, "", f"return {{{choice}}}[name]"]}
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name in ends:
            yield _Edit(function.body[-1], ends[function.name], [f"{folder}.{file}" for file in files])


def _import_whole(module: str, name: str) -> str:
    return f"from .{_flat_name(module)} import this as {name}"


def _flat_name(module: str) -> str:
    return "_".join(("madtp", *module.split(".")))


def _path(module: str) -> Path | None:
    """Return the file of a module of this package; None if there is no such module."""
    try:
        spec = find_spec(f"{PACKAGE}.{module}")
    except ModuleNotFoundError:  # a name within a module, which is no package
        return None
    return Path(spec.origin) if spec and spec.origin else None
