"""The report of `madtp doctor`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from madtp_cli.reporting.parts import Part


class DevicePart(Part):
    """What works on one device."""

    name: str
    """Name of the device as --device takes it, such as cpu or cuda:0."""
    description: str
    """The processor or the GPU."""
    memory_bytes: int | None = None
    """Memory of the device; null where it is not known."""
    fast_formats: list[str] = Field(default_factory=list)
    """Number formats whose products the device does not emulate."""
    attention: dict[str, str] = Field(default_factory=dict)
    """The ways to compute attention, and for each the word works, or why it does not."""


class TorchPart(Part):
    """What the installed torch can do here."""

    version: str
    """Version of torch."""
    cuda: str | None
    """Version of CUDA that torch was built for; null for a build without CUDA."""
    threads: int
    """Number of threads of a computation on the CPU."""
    devices: list[DevicePart]
    """The devices."""
    seconds: float
    """How long importing torch and asking it took, in seconds."""


class DoctorReport(Part):
    """The environment of madtp, and what works in it."""

    schema_version: int = 1
    """Version of the document's format, a number without unit."""
    command: Literal["doctor"] = "doctor"
    """The command that made the report."""
    madtp: str
    """Version of madtp."""
    python: str
    """Version of Python."""
    executable: str
    """The Python that runs."""
    system: str
    """The operating system."""
    processor: str
    """Name of the CPU."""
    cores: int
    """Number of CPU cores that this process may use."""
    memory_bytes: int | None
    """Memory of the machine; null where it is not known."""
    packages: dict[str, str | None]
    """Version of each package that madtp needs; null for a missing one."""
    extras: dict[str, dict[str, str | None]]
    """The packages of each extra, as `packages`."""
    torch: TorchPart | None
    """What torch can do; null if it cannot be imported."""
    folders: dict[str, str]
    """Where caches and temporary files are."""
    variables: dict[str, str]
    """Environment variables that change what madtp does."""
    problems: list[str]
    """What does not work, as sentences; empty if everything that madtp needs works."""
