"""Read a YAML config file. Files of the BLIP and MADTP projects are recognised by their keys and translated."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from madtp_cli.errors import UsageError

#: Keys of the YAML files of BLIP and MADTP, and the settings they set.
BLIP_KEYS = {
    "ann_root": "data",
    "vqa_root": "image_root",
    "batch_size_train": "batch_size",
    "init_lr": "learning_rate",
    "max_epoch": "epochs",
}
#: A file with two of these keys is a BLIP or MADTP file. A single one is more likely a mistake in a file of ours.
_BLIP_MARKS = {*BLIP_KEYS, "batch_size_test", "vit", "vit_grad_ckpt", "vit_ckpt_layer", "sd_dim", "sd_num"}

#: Largest config file, in bytes.
LARGEST = 1_000_000


class Nested:
    """Stands for a list or a mapping with more than single values in it, which no setting is."""

    def __repr__(self) -> str:
        return "a nested list or mapping"


@dataclass
class ConfigFile:
    """The content of a config file.

    Attributes:
        values: Value and origin ("run.yaml line 3 (seed)") of each setting.
        notes: Sentences for the user about keys that were translated or ignored.
        unknown: Line and key of the first key that is not a setting, if there is one.
    """

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: tuple[int, str] | None = None


def read(path: Path, settings: Collection[str]) -> ConfigFile:
    """Read the settings in a YAML file.

    Args:
        path: The file.
        settings: The names of all settings.

    Raises:
        UsageError: The file cannot be read, or is not a mapping of settings.
    """
    lines = _parse(path)
    is_blip = len(_BLIP_MARKS & lines.keys()) >= 2
    file, translated, ignored = ConfigFile(), [], []
    for key, (value, line) in lines.items():
        name = BLIP_KEYS.get(key, key) if is_blip else key
        if name not in settings:
            # A BLIP file may have keys that we do not know; a key similar to one of ours is a typing error.
            if not is_blip or difflib.get_close_matches(key, settings, cutoff=0.85):
                file.unknown = file.unknown or (line, key)
            ignored.append(key)
        elif name != key and name in lines:
            ignored.append(key)
        elif value is not None:
            file.values[name] = value, f"{path.name} line {line} ({key})"
            if name != key:
                translated.append(f"{key} as {name}")
    if is_blip:
        note = f"{path.name} is a BLIP or MADTP file. Read {', '.join(translated) or 'no key under another name'}"
        file.notes.append(f"{note}; ignored {', '.join(ignored)}." if ignored else f"{note}.")
    return file


def _parse(path: Path) -> dict[str, tuple[Any, int]]:
    """Return the top-level keys of a YAML file, each with its value and line number."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UsageError(f"{path} is not a regular file. Give --config a YAML file.")
        if path.exists() and path.stat().st_size > LARGEST:
            raise UsageError(f"{path} has more than {LARGEST:,} bytes. Give --config a file of settings.")
        return _top_level(yaml.SafeLoader(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(f"Cannot read the config file {path}: {error.strerror}. Give --config a YAML file.") from error
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        mark = getattr(error, "problem_mark", None)
        reason = (
            f"{getattr(error, 'problem', '')} in line {mark.line + 1}"
            if mark
            else (str(error).splitlines() or [type(error).__name__])[0][:200]
        )
        raise UsageError(f"{path} is not a settings file: {reason}. Write `setting: value` lines.") from error


def _top_level(loader: yaml.SafeLoader) -> dict[str, tuple[Any, int]]:
    root = loader.get_single_node()
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ValueError(f"line {root.start_mark.line + 1} is not of the form `setting: value`")
    lines: dict[str, tuple[Any, int]] = {}
    for key_node, value_node in root.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError(f"line {key_node.start_mark.line + 1} is not of the form `setting: value`")
        key, line = str(key_node.value)[:100], key_node.start_mark.line + 1
        if key in lines:
            raise ValueError(f"lines {lines[key][1]} and {line} both set {key}")
        lines[key] = _value(loader, value_node), line
    return lines


def _value(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """Return a single value, a list of single values, or a mapping of names to single values.

    Nested ones are not built: aliases in them can expand to gigabytes.
    """
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_object(node)
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    if not all(isinstance(part, yaml.ScalarNode) for part in parts):
        return Nested()
    if isinstance(node, yaml.SequenceNode):
        return [loader.construct_object(part) for part in parts]
    return {str(name.value): loader.construct_object(value) for name, value in node.value}
