"""The values that a setting can be chosen from: the public files of a folder of the package, or a fixed list.

The folders are listed without importing them, because that would load torch.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from collections.abc import Collection, Iterable
from importlib import util

from madtp_cli.config import architecture_files
from madtp_cli.errors import UsageError

#: Settings and options whose values are the files of a folder.
FOLDERS = {"task": "tasks", "method": "methods", "methods": "methods", "format": "exporters"}
#: Settings and options whose values are a fixed list. A number can follow cuda.
FIXED = {
    "split": ("train", "val", "test"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "activation": ("quick_gelu", "gelu"),
    "weights": ("raw", "ema"),
    "match_token": ("enc", "cls"),
    "match_score": ("logit", "log-odds"),
    "save_dtype": ("auto", "float32", "float16", "bfloat16"),
    "tracker": ("tensorboard", "wandb", "trackio"),
}


def of(name: str) -> tuple[str, ...]:
    """Return the values of a setting or option, or none if it has no list of values.

    >>> of("split"), of("seed")
    (('train', 'val', 'test'), ())
    """
    if name == "arch":
        return architecture_files.names()
    return _files(FOLDERS[name]) if name in FOLDERS else FIXED.get(name, ())


def _files(folder: str) -> tuple[str, ...]:
    package = f"madtp_cli.{folder}"
    paths: Iterable[str] | None
    if package in sys.modules:
        paths = sys.modules[package].__path__
    else:
        spec = util.find_spec(package)
        paths = spec.submodule_search_locations if spec else None
    names = (module.name for module in pkgutil.iter_modules(paths or ()))
    hyphen = {name if folder == "tasks" else name.replace("_", "-") for name in names if not name.startswith("_")}
    return tuple(sorted(hyphen))


def did_you_mean(value: object, known: Collection[str]) -> str:
    """Return a question that names the most similar value, or nothing if none is similar.

    >>> did_you_mean("flaot32", ["float32", "auto"]), did_you_mean("x", ["float32"])
    (' Did you mean float32?', '')
    """
    similar = difflib.get_close_matches(str(value)[:100].lower().replace("_", "-"), known, n=1)
    return f" Did you mean {similar[0]}?" if similar else ""


def require(option: str, value: str, known: Collection[str]) -> None:
    """Refuse a value that is not in a list.

    Raises:
        UsageError: The message names the most similar value and all values.
    """
    if value not in known:
        raise UsageError(
            f"{option}: {value!r} cannot be used.{did_you_mean(value, known)}\nChoose one of: {', '.join(known)}."
        )
