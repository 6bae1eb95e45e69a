"""What several formats read from the names and the shapes of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Source
from madtp_cli.errors import CheckpointError

#: Width of one attention head in every published BLIP and CLIP.
HEAD_WIDTH = 64

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
        KeyError: There is none.
    """
    numbers = [int(key.removeprefix(prefix).split(".")[0]) for key in keys if key.startswith(prefix)]
    if not numbers:
        raise KeyError(prefix + "0")
    return max(numbers) + 1


def head_count(width: int, overrides: CheckpointOverrides) -> int:
    """Return the number of attention heads of a tower; 1 if `head_width_refusal` refuses the checkpoint."""
    head_width = overrides.head_width or HEAD_WIDTH
    return 1 if width % head_width else width // head_width


def head_width_refusal(config: Mapping[str, Any], overrides: CheckpointOverrides) -> str | None:
    """Return why the number of heads cannot be derived from the width of a tower; None if it can."""
    head_width = overrides.head_width or HEAD_WIDTH
    for tower in ("vision", "text"):
        width = config[f"{tower}_config"]["hidden_size"]
        if width % head_width:
            return (
                f"its {tower} width {width} is not a multiple of {head_width}, the expected width of an attention "
                "head.\nThe file does not state the number of heads: give the width of a head with --head-width."
            )
    return None


def pruned_weights_refusal(weights: Mapping[str, Tensor], rows: Mapping[str, int]) -> str | None:
    """Return why a checkpoint with smaller matrices cannot be used; None if its matrices have full size.

    Args:
        weights: Tensors by key.
        rows: Number of rows that a matrix should have, by the end of its key.
    """
    for key, value in weights.items():
        expected = next((count for end, count in rows.items() if key.endswith(end)), None)
        if expected is not None and value.shape[0] != expected:
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
    origin = "as given" if overrides.head_width else f"as in every {family}"
    return f"attention heads of width {overrides.head_width or HEAD_WIDTH} ({origin})"


def training_notes(source: Source) -> tuple[str, ...]:
    """Return a note about the epoch, if the file states it."""
    if "epoch" not in source.extras:
        return ()
    return (f"The file was saved after epoch {source.extras['epoch']} of its training (counted from 0).",)


def missing_tensor_error(source: Source, family: str, error: KeyError) -> CheckpointError:
    """Return the error for a file without a tensor that is needed to find the sizes of the model."""
    return CheckpointError(
        f"{source.path} is a {family} without the tensor {error.args[0]}, which is needed to find its sizes.\n"
        "The file is incomplete: download or copy it again."
    )
