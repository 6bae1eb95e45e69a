"""Models by family and task: `blip/nlvr2.py` holds, as `MODEL`, the one of type madtp_blip for the task nlvr2.

Importing this package announces the families to transformers' Auto classes. A family's models are
imported when an Auto class first reads one of its configurations, so that no command pays for models it does not use.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, NoReturn

import transformers

from madtp_cli.models.family import Family

if TYPE_CHECKING:
    from madtp_cli.models.prunable import Prunable

#: transformers' Auto classes, and what a model can do that is to be had from them.
AUTO_CLASSES = {
    "AutoModel": "forward",
    "AutoModelForImageTextToText": "generate",
    "AutoModelForZeroShotImageClassification": "classify",
}


def families() -> dict[str, Family]:
    """Every family by its name; imports no model."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}.family").FAMILY for name in names}


def kind_of(config: Any) -> str:
    """Which model a configuration is for, as "blip.nlvr2": its family and its task."""
    return f"{config.model_type.removeprefix('madtp_')}.{config.task}"


def kinds() -> list[str]:
    """Every model there is; imports none of them."""
    return sorted(f"{family.name}.{task}" for family in families().values() for task in family.tasks)


def get(kind: str) -> type[Prunable]:
    """The model class of a kind; KeyError if there is none."""
    if kind not in kinds():
        raise KeyError(kind)
    model: type[Prunable] = importlib.import_module(f"{__name__}.{kind}").MODEL
    return model


def costs_module(config: Any) -> str:
    """Name of the module with the FLOPs formula of a configuration's model."""
    family, task = kind_of(config).split(".")
    return f"{__name__}.{family}.costs.{task}"


def auto_classes(model: type[Prunable]) -> list[str]:
    """Names of the Auto classes that a model is to be had from."""
    return [name for name, ability in AUTO_CLASSES.items() if hasattr(model, ability)]


class Unfit:
    """What an Auto class finds for a folder of another task; left to itself it takes the first model it knows."""

    @classmethod
    def from_pretrained(cls, source: Any, *_: Any, config: Any, **__: Any) -> NoReturn:
        raise ValueError(f"{source} is a model for the task {config.task}; read it with AutoModel.from_pretrained.")

    @classmethod
    def _from_config(cls, config: Any, **_: Any) -> NoReturn:
        cls.from_pretrained("This configuration", config=config)


def register(family: str) -> Any:
    """Give a family's models to the Auto classes, which choose by a configuration's `architectures`.

    Returns:
        The family's configuration class.
    """
    members = [get(f"{family}.{task}") for task in families()[family].tasks]
    config = members[0].config_class
    transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
    for name in AUTO_CLASSES:
        fit = [model for model in members if name in auto_classes(model)]
        if fit:
            getattr(transformers, name).register(config, (Unfit, *fit), exist_ok=True)
    return config


def _announce(family: str) -> None:
    class Announced:
        """Stands for a family's configuration class until transformers makes a configuration."""

        def __new__(cls, **fields: Any) -> Any:
            return register(family)(**fields)

        @classmethod
        def from_dict(cls, fields: dict[str, Any], **settings: Any) -> Any:
            return register(family).from_dict(fields, **settings)

    transformers.AutoConfig.register(f"madtp_{family}", Announced, exist_ok=True)


for _family in families():
    _announce(_family)
