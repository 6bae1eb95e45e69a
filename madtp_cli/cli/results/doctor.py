"""The result of `madtp doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console

from madtp_cli.errors import printable
from madtp_cli.reporting.schema import DoctorReport


def show(report: DoctorReport, out: Console) -> None:
    """Print one fact per line, in the form that a bug report needs."""
    for line in _lines(report):
        out.print(printable(line))


def _lines(report: DoctorReport) -> Iterator[str]:
    yield f"madtp {report.madtp}, Python {report.python} ({report.executable})"
    memory = "" if report.memory_bytes is None else f", {report.memory_bytes / 2**30:.1f} GiB of memory"
    yield f"system: {report.system}"
    yield f"processor: {report.processor}, {report.cores} cores{memory}"
    if report.torch is not None:
        build = f"CUDA {report.torch.cuda}" if report.torch.cuda else "no CUDA"
        yield f"torch: {report.torch.version}, {build}, {report.torch.threads} threads, {report.torch.seconds:.1f} s"
        for device in report.torch.devices:
            yield f"device {device.name}: {device.description}, fast formats {', '.join(device.fast_formats)}"
            yield from (f"  attention, {way}: {answer}" for way, answer in device.attention.items())
    yield f"packages: {_versions(report.packages)}"
    yield from (f"extra {name}: {_versions(versions)}" for name, versions in report.extras.items())
    yield from (f"{name}: {folder}" for name, folder in report.folders.items())
    yield from (f"{name}={value}" for name, value in report.variables.items())
    yield from (f"Problem: {problem}" for problem in report.problems)


def _versions(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())
