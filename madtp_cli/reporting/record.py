"""The part of a report that makes its run repeatable."""

from __future__ import annotations

from pydantic import Field

from madtp_cli.reporting.parts import Part


class SettingPart(Part):
    """One setting of a run."""

    value: object
    """The value that was used; defaults that depend on the checkpoint or the machine are filled in."""
    affects_weights: bool
    """Whether another value can give other weights. A path cannot: the content of the inputs has fingerprints."""
    origin: str
    """Where the value comes from: an option, a variable, a line of a config file, or the word default."""


class RecordPart(Part):
    """What a run depends on. `madtp rerun` repeats the run from it."""

    command_line: list[str] = Field(default_factory=list)
    """The words of the command without --resume; empty for a call from Python."""
    settings: dict[str, SettingPart] = Field(default_factory=dict)
    """The settings, which include the seed of all random numbers."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of madtp, Python and the libraries that compute the result."""
    threads: int = 0
    """Number of threads of a computation on the CPU."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the checkpoint, of the processor (image settings and tokenizer), and of the data. Of image files only
    the names and sizes count."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the saved weights by file name."""
    reproducible: bool = False
    """Whether the same run gives the same weights to the bit, under `conditions`."""
    conditions: list[str] = Field(default_factory=list)
    """What the same weights depend on, or why a run cannot give them again."""

    def differences(self, other: RecordPart) -> list[str]:
        """Return in what another run differs, as far as it can change the result, as parts of a sentence."""
        found = [
            f"--{name.replace('_', '-')} was {other.settings[name].value} and is {part.value}"
            for name, part in self.settings.items()
            if part.affects_weights and name in other.settings and other.settings[name].value != part.value
        ]
        found += [
            f"the {name} has another content"
            for name, digest in self.inputs.items()
            if other.inputs.get(name) != digest
        ]
        return found + [
            f"the version of {name} was {other.versions.get(name)} and is {version}"
            for name, version in self.versions.items()
            if other.versions.get(name) != version
        ]
