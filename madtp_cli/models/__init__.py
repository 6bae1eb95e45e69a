"""Models by family and task. `blip/nlvr2.py` has, with the name `MODEL`, the BLIP model for the task nlvr2.

Importing this package registers every family with transformers' Auto classes. A family's model files are imported only
when an Auto class reads one of its configurations, so a command loads only the models that it uses.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import transformers

from madtp_cli.models.family import PREFIX, Family

if TYPE_CHECKING:
    from madtp_cli.models.prunable import Prunable

#: Auto classes of transformers, and the method that a model must have to be loaded with one.
AUTO_CLASS_METHODS = {
    "AutoModel": "forward",
    "AutoModelForImageTextToText": "generate",
    "AutoModelForZeroShotImageClassification": "classify",
}


def families() -> dict[str, Family]:
    """Return the record of every family, by name. No model file is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}.family").FAMILY for name in names}


def family_of(config: Any) -> Family:
    """Return the family of a configuration, or of the fields of a `config.json`.

    Raises:
        KeyError: There is no family with its model type.
    """
    model_type = config["model_type"] if isinstance(config, Mapping) else config.model_type
    return families()[model_type.removeprefix(PREFIX)]


def towers_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the towers that the model for the fields of a `config.json` has.

    Raises:
        KeyError: There is no family with its model type.
    """
    family = family_of(config)
    return ("vision",) if config.get("task") in family.image_only else tuple(family.tower_sizes)


def family_of_processor(processor: Any) -> Family:
    """Return the family whose checkpoints have a processor of this class.

    Raises:
        KeyError: There is no such family.
    """
    by_class = {family.processor_class: family for family in families().values()}
    name = next((base.__name__ for base in type(processor).__mro__ if base.__name__ in by_class), None)
    if name is None:
        raise KeyError(type(processor).__name__)
    return by_class[name]


def architectures() -> dict[str, Callable[[], Any]]:
    """Return the published architectures by name. Each function returns a configuration; weights are not needed."""
    return {name: config for family in families().values() for name, config in family.architectures.items()}


def kind_of(config: Any) -> str:
    """Return the kind of model that a configuration is for: its family and its task, as "blip.nlvr2"."""
    return f"{config.model_type.removeprefix(PREFIX)}.{config.task}"


def kinds() -> list[str]:
    """Return every kind of model. No model file is imported."""
    return sorted(f"{family.name}.{task}" for family in families().values() for task in family.tasks)


def get(kind: str) -> type[Prunable]:
    """Return the model class of a kind.

    Raises:
        KeyError: There is no such kind.
    """
    if kind not in kinds():
        raise KeyError(kind)
    model: type[Prunable] = importlib.import_module(f"{__name__}.{kind}").MODEL
    return model


def costs_module(config: Any) -> str:
    """Return the name of the module that has the FLOPs formula of a configuration's model."""
    family, task = kind_of(config).split(".")
    return f"{__name__}.{family}.costs.{task}"


def auto_classes(model: type[Prunable]) -> list[str]:
    """Return the names of the Auto classes that can load a model."""
    return [name for name, method in AUTO_CLASS_METHODS.items() if hasattr(model, method)]


class OtherTask:
    """Refuses to load a folder whose task does not fit the Auto class.

    An Auto class takes its first registered model for every folder whose architecture it does not know.
    """

    @classmethod
    def from_pretrained(cls, source: Any, *_: Any, config: Any, **__: Any) -> NoReturn:
        """Raise ValueError. The arguments are those of transformers' method."""
        raise ValueError(f"{source} is a model for the task {config.task}; read it with AutoModel.from_pretrained.")

    @classmethod
    def _from_config(cls, config: Any, **_: Any) -> NoReturn:
        cls.from_pretrained("This configuration", config=config)


def register(family: str) -> Any:
    """Register a family's models with the Auto classes, which choose by a configuration's `architectures`.

    Returns:
        The family's configuration class.
    """
    members = [get(f"{family}.{task}") for task in families()[family].tasks]
    config = members[0].config_class
    transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
    for name in AUTO_CLASS_METHODS:
        suitable = [model for model in members if name in auto_classes(model)]
        if suitable:
            getattr(transformers, name).register(config, (OtherTask, *suitable), exist_ok=True)
    return config


def _register_when_read(family: Family) -> None:
    """Register a stand-in for a family's configuration class. It registers the models when it is first used."""

    class LazyConfig:
        """Makes and reads configurations of the family, as its configuration class does."""

        def __new__(cls, **fields: Any) -> Any:
            return register(family.name)(**fields)

        @classmethod
        def from_dict(cls, fields: dict[str, Any], **settings: Any) -> Any:
            """Read a configuration from the fields of a `config.json`."""
            return register(family.name).from_dict(fields, **settings)

    transformers.AutoConfig.register(family.model_type, LazyConfig, exist_ok=True)
    if family.own_processor:
        transformers.AutoProcessor.register(LazyConfig, _stand_in_processor(family), exist_ok=True)


def _stand_in_processor(family: Family) -> type:
    """Return a class that AutoProcessor finds by name. It imports the family's own processor when it reads one."""

    class LazyProcessor:
        """Reads processors of the family, as its processor class does."""

        @classmethod
        def from_pretrained(cls, source: Any, **settings: Any) -> Any:
            """Read a processor from a folder."""
            module = importlib.import_module(f"{__name__}.{family.name}.processing")
            return getattr(module, family.own_processor).from_pretrained(source, **settings)

    LazyProcessor.__name__ = family.own_processor
    return LazyProcessor


for _family in families().values():
    _register_when_read(_family)
