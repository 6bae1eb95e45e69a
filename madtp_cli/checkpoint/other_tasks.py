"""Use a checkpoint for another task of its family, whose model has the same tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from madtp_cli import models
from madtp_cli.errors import CheckpointError

#: How the keys of the dictionary begin, and those of its projections; the name of the tower follows.
DICTIONARY = "madtp."
PROJECTIONS = f"{DICTIONARY}projections."
#: A `checkpoint.formats.Recognised`.
Checkpoint = TypeVar("Checkpoint", bound=Any)


def with_task(recognised: Checkpoint, task: str | None) -> Checkpoint:
    """Return a recognised checkpoint for another task; unchanged if its family has no model for it with its tensors.

    Raises:
        CheckpointError: The checkpoint is pruned, and the other task also prunes towers that are dense here.
    """
    if task in (None, recognised.task) or recognised.refusal or not recognised.config:
        return recognised
    family = models.family_of(recognised.config)
    if not {task, recognised.task} <= family.same_weights or recognised.task in family.image_only:
        return recognised
    config, weights = {**recognised.config, "task": task}, recognised.weights
    if pruning := config.get("madtp"):
        towers = models.get(f"{family.name}.{task}").TOWERS
        if not set(towers) <= set(models.get(f"{family.name}.{recognised.task}").TOWERS):
            raise CheckpointError(
                f"This checkpoint is pruned for {recognised.task}, so it cannot be used for {task}.\n"
                f"Compress the dense checkpoint with --task {task}."
            )
        scales = {tower: values for tower, values in pruning.get("scales", {}).items() if tower in towers}
        config["madtp"] = {**pruning, "scales": scales}
        dense = {key for key in weights if key.startswith(PROJECTIONS) and key.split(".")[2] not in towers}
        weights = {key: value for key, value in weights.items() if key not in dense}
    if kept := family.image_only.get(str(task)):
        weights = {key: value for key, value in weights.items() if key.startswith((*kept, DICTIONARY))}
    return replace(recognised, task=task, config=config, weights=weights)
