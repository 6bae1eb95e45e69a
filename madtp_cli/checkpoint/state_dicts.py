"""Find the state dict in what a training script saved: known wrappers, prefixes of the keys, averaged copies (EMA)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from madtp_cli.errors import CheckpointError, UsageError

#: Keys under which training scripts store the state dict.
WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "net", "network", "model_state", "weights", "params")
#: Keys under which they store an average of the weights over the training (EMA).
AVERAGES = (
    "model_ema", "ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "module_ema",
    "params_ema", "averaged_model",
)  # fmt: skip

#: Prefixes that data-parallel training and torch.compile add to every key.
PREFIX = re.compile(r"^((module|_orig_mod)\.)+")

#: First parts of the keys of every format, first those of towers. What stands before them is a prefix, such as
#: "model." of Lightning.
TOWERS = frozenset(
    ("visual", "transformer", "visual_encoder", "text_encoder", "text_decoder", "vision_model", "text_model")
)
PARTS = TOWERS | {
    "text", "token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale",
    "visual_projection", "vision_proj", "text_proj", "itm_head", "cls_head", "space_dict", "query_tokens", "Qformer",
    "qformer",
}  # fmt: skip
#: Most wrappers around a state dict. A pickle can contain itself.
MOST_WRAPPERS = 8
#: Number of keys that a message lists, and their length.
SHOWN, LENGTH = 8, 40


def find(path: Path, content: Any, choice: str | None) -> tuple[dict[str, Tensor], dict[str, Any], tuple[str, ...]]:
    """Return the state dict of a file without wrappers and prefixes, what else the file has, and notes.

    Args:
        path: The file, for messages.
        content: What the file contains.
        choice: "raw" or "ema", if the file has both; None takes the raw weights and adds a note.

    Raises:
        CheckpointError: There is no state dict; the message lists the keys that are there.
        UsageError: Only averaged weights are there, and raw ones were chosen.
    """
    extras: dict[str, Any] = {}
    notes: list[str] = []
    for _ in range(MOST_WRAPPERS):
        key = _wrapper(path, content, choice, notes) if isinstance(content, Mapping) else None
        if key is None:
            break
        extras |= {name: value for name, value in content.items() if name != key}
        content = content[key]
    weights = _tensors(content)
    if not weights:
        raise CheckpointError(
            f"{path} contains no state dict, but {_described(content)}.\n"
            f"Give a file with named tensors, at the top level or under a key such as {', '.join(WRAPPERS[:4])}."
        )
    return weights, extras, tuple(notes)


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {PREFIX.sub("", str(key)): value for key, value in content.items() if isinstance(value, Tensor)}


def _wrapper(path: Path, content: Mapping[Any, Any], choice: str | None, notes: list[str]) -> str | None:
    """Return the key that the state dict is under; None if it is at this level."""
    raw, average = (
        next((name for name in names if isinstance(content.get(name), Mapping) and content[name]), None)
        for names in (WRAPPERS, AVERAGES)
    )
    return _chosen(path, raw, average, choice, notes)


def _chosen(path: Path, raw: str | None, average: str | None, choice: str | None, notes: list[str]) -> str | None:
    """Return the name of the chosen weights and add a note if there is an average."""
    if average is None:
        return raw
    if raw is None:
        if choice == "raw":
            raise UsageError(f"{path} has only averaged weights ({average}).\nLeave out --weights raw.")
        notes.append(f"The weights are the averaged ones (EMA) under {average!r}, the only ones of the file.")
        return average
    used, other, option = (average, raw, "raw") if choice == "ema" else (raw, average, "ema")
    kind = "averaged weights (EMA)" if choice == "ema" else "raw weights, not the averaged ones (EMA)"
    notes.append(f"The file has weights under {raw!r} and {average!r}. Used are the {kind} under {used!r}.")
    if choice is None:
        notes.append(f"Use --weights {option} for those under {other!r}.")
    return used


def has_averages(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the keys of some tensors begin as those of averaged weights (EMA) do."""
    return any(prefix.split(".")[-1] in AVERAGES for prefix in _tower_prefixes(weights))


def without_prefix(
    path: Path, weights: Mapping[str, Tensor], choice: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Take off what stands before the first known part of the keys, such as "model." in files of Lightning.

    Returns:
        The tensors, and notes about a choice between raw and averaged weights.

    Raises:
        CheckpointError: There are several models under different prefixes.
    """
    found = _tower_prefixes(weights)
    averages = [prefix for prefix in found if prefix.split(".")[-1] in AVERAGES]
    raws = [prefix for prefix in found if prefix not in averages]
    raws = [""] if "" in raws else raws
    if not found:
        return dict(weights), ()
    if len(raws) > 1 or len(averages) > 1:
        listed = ", ".join(ascii(prefix[:LENGTH]) for prefix in [*raws, *averages][:SHOWN])
        raise CheckpointError(f"{path} has several models, under {listed}.\nSave one of them in a file of its own.")
    notes: list[str] = []
    raw, average = next(iter(raws), None), next(iter(averages), None)
    used = _chosen(path, raw, average, choice, notes)
    others = tuple(f"{prefix}." for prefix in (raw, average) if prefix and prefix != used)
    chosen = {
        key.removeprefix(f"{used}.") if used else key: value
        for key, value in weights.items()
        if not (others and key.startswith(others))
    }
    return chosen, tuple(notes)


def _tower_prefixes(weights: Mapping[str, Tensor]) -> list[str]:
    """Return what stands before the towers in the keys, in order."""
    prefixes = {key: _prefix(key) for key in weights}
    return sorted({prefix for key, prefix in prefixes.items() if prefix is not None and _is_tower(key, prefix)})


def _prefix(key: str) -> str | None:
    """Return the part of a key before its first known part; None if it has no known part."""
    parts = key.split(".")
    index = next((number for number, part in enumerate(parts) if part.removesuffix("_m") in PARTS), None)
    return None if index is None else ".".join(parts[:index])


def _is_tower(key: str, prefix: str) -> bool:
    return key.removeprefix(f"{prefix}." if prefix else "").split(".")[0] in TOWERS


def _described(content: Any) -> str:
    """Return what a value is; for a mapping its first keys, escaped and cut."""
    if not isinstance(content, Mapping):
        return f"a value of type {type(content).__name__}"
    keys = [ascii(str(key)[:LENGTH]) for key in list(content)[:SHOWN]]
    more = f" and {len(content) - SHOWN} more" if len(content) > SHOWN else ""
    return f"a {type(content).__name__} with the keys {', '.join(keys)}{more}" if keys else "an empty dict"
