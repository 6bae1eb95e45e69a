"""What a model family states about itself; each folder of `models` has one such record, `FAMILY`, in `family.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family of models that share their towers.

    Attributes:
        name: Name of the family's folder.
        tasks: The tasks that it has a model for; the model of a task is `MODEL` in the file of that name.
    """

    name: str
    tasks: tuple[str, ...]

    @property
    def model_type(self) -> str:
        """The model type in `config.json`; readers without our code do not know it, and so refuse the folder."""
        return f"madtp_{self.name}"
