"""Models by family and task: `blip_nlvr2.py` holds, as `MODEL`, the one of type madtp_blip for the task nlvr2."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madtp_cli.models.prunable import Prunable


def kind_of(config: Any) -> str:
    """Which model a configuration is for, as "blip_nlvr2": its family and its task."""
    return f"{config.model_type.removeprefix('madtp_')}_{config.task}"


def kinds() -> list[str]:
    """Every model there is; imports none of them."""
    families = ("blip_", "clip_")
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith(families))


def get(kind: str) -> type[Prunable]:
    """The model class of a kind; KeyError if there is none."""
    if kind not in kinds():
        raise KeyError(kind)
    model: type[Prunable] = importlib.import_module(f"{__name__}.{kind}").MODEL
    return model
