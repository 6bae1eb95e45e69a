"""The part of the reports on versions and the machine."""

from __future__ import annotations

import platform
from importlib import metadata

from madtp_cli.reporting.parts import Part


class Environment(Part):
    """Versions and machine that the figures may depend on."""

    madtp: str
    """Version of madtp."""
    torch: str
    """Version of torch."""
    transformers: str
    """Version of transformers."""
    python: str
    """Version of Python."""
    machine: str
    """Architecture of the machine, such as x86_64."""
    processor: str
    """Architecture and instruction set of the CPU as torch uses them, such as x86_64 AVX2."""
    fast_formats: list[str]
    """Number formats whose products the device does not emulate. The fine-tune computes its optimizer's products in
    bfloat16 if it is one of them, else in float32; so results differ between machines by rounding."""

    @classmethod
    def here(cls, processor: str, fast_formats: list[str]) -> Environment:
        """Describe this process; the arguments are fields."""
        from madtp_cli import __version__

        return cls(
            madtp=__version__,
            torch=metadata.version("torch"),
            transformers=metadata.version("transformers"),
            python=platform.python_version(),
            machine=platform.machine(),
            processor=processor,
            fast_formats=fast_formats,
        )
