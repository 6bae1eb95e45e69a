"""What several formats read from the names and the shapes of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint.formats import CheckpointOverrides, Source
from madtp_cli.errors import CheckpointError

#: Width of one attention head in every published BLIP and CLIP.
HEAD_WIDTH = 64
#: Widths of towers whose published models differ, and the widths of their heads (OpenCLIP's ViT-H, g and bigG).
AMBIGUOUS_WIDTHS = {1280: "64 or 80", 1408: "88 or 64", 1664: "104 or 64"}

#: Digits of a layer number.
MOST_DIGITS = 6

#: Keys in retrieval checkpoints (BLIP and CLIP) that only training needs, by the reason to drop them.
TRAINING_ONLY = {
    "momentum copies": re.compile(r"^\w+_m(\.|$)"),
    "queues of the contrastive loss": re.compile(r"^(\w+_queue|queue_ptr)$"),
}


def split_dropped(
    weights: Mapping[str, Tensor], reasons: Mapping[str, re.Pattern[str]]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Separate the tensors that no model needs.

    Args:
        weights: Tensors by key.
        reasons: For each reason to drop a tensor, the pattern of its key.

    Returns:
        The tensors that match no pattern, and the keys of the others by the reason.
    """
    kept: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    for key, value in weights.items():
        if reason := next((reason for reason, pattern in reasons.items() if pattern.search(key)), None):
            dropped.setdefault(reason, []).append(key)
        else:
            kept[key] = value
    return kept, dropped


def layer_count(keys: Iterable[str], prefix: str) -> int:
    """Return the number of layers whose keys begin with `prefix`.

    Raises:
        KeyError: There is none, or one is absent.
        CheckpointError: A key has no layer number.
    """
    names = {key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix)}
    number = re.compile(rf"[0-9]{{1,{MOST_DIGITS}}}")
    if wrong := sorted(name for name in names if not number.fullmatch(name)):
        raise CheckpointError(
            f"The checkpoint has a tensor {prefix}{wrong[0][:40]}, but a layer number belongs there.\n"
            "The file is damaged or not of this model: get it again from where it was made."
        )
    absent = next((index for index in range(len(names)) if str(index) not in names), None)
    if not names or absent is not None:
        raise KeyError(f"{prefix}{absent or 0}")
    return len(names)


def shape(weights: Mapping[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a tensor that shows sizes of the model.

    Raises:
        KeyError: There is no such tensor.
        CheckpointError: It has another number of axes, or an empty axis.
    """
    found = tuple(weights[key].shape)
    if len(found) != rank or 0 in found:
        raise CheckpointError(
            f"The tensor {key} has shape {list(found)}, but {rank} axes of length 1 or more are needed.\n"
            "The file is damaged or not of this model: get it again from where it was made."
        )
    return found


def head_count(width: int, tower: str, overrides: CheckpointOverrides) -> int:
    """Return the number of attention heads of a tower; 1 if `head_width_refusal` refuses the checkpoint."""
    head_width = overrides.head_width_of(tower) or HEAD_WIDTH
    return 1 if width % head_width else width // head_width


def head_width_refusal(config: Mapping[str, Any], overrides: CheckpointOverrides) -> str | None:
    """Return why the number of heads cannot be derived from the width of a tower; None if it can."""
    for tower in ("vision", "text"):
        width, given = config[f"{tower}_config"]["hidden_size"], overrides.head_width_of(tower)
        advice = f"Give the width of a head of each tower: --head-width {_suggestion(config)}."
        if given is None and width in AMBIGUOUS_WIDTHS:
            return (
                f"its {tower} width is {width}, and published models of this width have heads of "
                f"{AMBIGUOUS_WIDTHS[width]}.\nThe file does not state the number of heads. {advice}"
            )
        if width % (given or HEAD_WIDTH):
            return (
                f"its {tower} width {width} is not a multiple of {given or HEAD_WIDTH}, the "
                f"{'given' if given else 'expected'} width of an attention head.\n"
                f"The file does not state the number of heads. {advice}"
            )
    return None


def divided_refusal(config: Mapping[str, Any], overrides: CheckpointOverrides) -> str | None:
    """Return why a head width that the user gave does not fit a tower of the model; None if it fits."""
    for tower in models.towers_of(config):
        width, given = config[f"{tower}_config"]["hidden_size"], overrides.head_width_of(tower)
        if given and width % given:
            return (
                f"its {tower} width {width} is not a multiple of {given}, the given width of an attention head.\n"
                f"Give the width of a head of each tower: --head-width {_suggestion(config)}."
            )
    return None


def _suggestion(config: Mapping[str, Any]) -> str:
    """Return a value of --head-width that divides both widths, as an example; a letter where none is known."""
    published = {1280: 80, 1408: 88, 1664: 104}
    widths = {tower: config[f"{tower}_config"]["hidden_size"] for tower in models.towers_of(config)}
    heads = {tower: published.get(width, HEAD_WIDTH) for tower, width in widths.items()}
    return ",".join(f"{tower}={head if widths[tower] % head == 0 else 'N'}" for tower, head in heads.items())


def pruned_weights_refusal(weights: Mapping[str, Tensor], rows: Mapping[str, int]) -> str | None:
    """Return why a checkpoint with smaller matrices cannot be used; None if its matrices have full size.

    Args:
        weights: Tensors by key.
        rows: Number of rows that a matrix should have, by the end of its key.
    """
    for key, value in weights.items():
        expected = next((count for end, count in rows.items() if key.endswith(end)), None)
        if expected is not None and value.dim() and value.shape[0] != expected:
            return (
                f"a checkpoint whose weight matrices are pruned, as UPop does ({key} has {value.shape[0]} rows "
                f"instead of {expected}).\nGive the dense model."
            )
    return None


def training_data_set(source: Source) -> str | None:
    """Return the training data set that the file names; None for published files, which have no such entry."""
    record = source.extras.get("config")
    name = record.get("dataset") if isinstance(record, Mapping) else None
    return name if isinstance(name, str) else None


def head_width_note(overrides: CheckpointOverrides, family: str) -> str:
    """Return the part of a note that states the width of the heads, and where it comes from."""
    given = {tower: overrides.head_width_of(tower) for tower in ("vision", "text")}
    used = {tower: width or HEAD_WIDTH for tower, width in given.items()}
    if len(set(used.values())) == 1 and len({width is None for width in given.values()}) == 1:
        origin = "as given" if given["vision"] else f"as in every {family}"
        return f"attention heads of width {used['vision']} ({origin})"
    parts = [
        f"{width} in the {tower} tower ({'as given' if given[tower] else f'as in every {family}'})"
        for tower, width in used.items()
    ]
    return f"attention heads of width {' and '.join(parts)}"


def training_notes(source: Source) -> tuple[str, ...]:
    """Return a note about the epoch, if the file states it."""
    if not isinstance(source.extras.get("epoch"), int):
        return ()
    return (f"The file was saved after epoch {source.extras['epoch']} of its training (counted from 0).",)


def missing_tensor_error(source: Source, family: str, error: KeyError) -> CheckpointError:
    """Return the error for a file without a tensor that is needed to find the sizes of the model."""
    return CheckpointError(
        f"{source.path} is a {family} without the tensor {error.args[0]}, which is needed to find its sizes.\n"
        "The file is incomplete: download or copy it again."
    )
