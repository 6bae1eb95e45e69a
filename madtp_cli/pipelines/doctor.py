"""madtp doctor: describe the environment and what works in it. It also works where torch does not."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from pydantic import ValidationError

from madtp_cli import __version__
from madtp_cli.errors import CheckError
from madtp_cli.reporting.schema import DoctorReport, TorchPart

#: Lists the packages in a checkout; a wheel does not have it.
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
#: What to do about problems.
ADVICE = "Install what is missing into the environment of `executable`, then run madtp doctor again."
#: Longest time that torch may take to be imported and tried, in seconds.
LONGEST = 120
#: torch can end the whole process, for example where the CPU lacks an instruction, so another process imports it.
PROBE = "from madtp_cli.evaluation import machine_probe; print('\\n' + machine_probe.probe().model_dump_json())"
#: Variables that change what madtp, torch or the Hugging Face libraries do, and that hold no secret.
VARIABLES = re.compile(
    r"MADTP_\w+|OMP_NUM_THREADS|MKL_\w+|ATEN_CPU_CAPABILITY|(ONEDNN|DNNL)_\w+|CUDA_VISIBLE_DEVICES|PYTORCH_\w+|"
    r"HF_(HOME|HUB_CACHE|HUB_OFFLINE|DATASETS_CACHE)|TRANSFORMERS_\w+|TORCH_HOME|TMPDIR|RANK|WORLD_SIZE"
)


def doctor() -> DoctorReport:
    """Describe the environment. Nothing is changed, and no network is used."""
    extras = _requirements()
    needed = extras.pop("", [])
    packages = _versions(needed)
    torch, problem = _torch()
    return DoctorReport(
        madtp=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        system=platform.platform(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory(),
        packages=packages,
        extras={extra: _versions(requirements) for extra, requirements in extras.items()},
        torch=torch,
        folders=_folders(),
        variables={name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)},
        problems=_unsuitable(needed, packages) + problem,
    )


def require_usable(report: DoctorReport) -> None:
    """Raise CheckError if something that madtp needs does not work."""
    if report.problems:
        raise CheckError("\n".join([*report.problems[:2], ADVICE]))


def _requirements() -> dict[str, list[Requirement]]:
    """Return the packages that madtp needs by extra; those without an extra have the key "".

    They are in the metadata of the installed package, or in pyproject.toml of a checkout.
    """
    if PROJECT.is_file():
        project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
        texts = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: [Requirement(text) for text in listed] for extra, listed in texts.items()}
    found: dict[str, list[Requirement]] = {"": []}
    for text in metadata.requires("madtp") or []:
        extra = re.search(r"extra\s*==\s*[\"']([\w-]+)", text)
        found.setdefault(extra[1] if extra else "", []).append(Requirement(text))
    return found


def _unsuitable(needed: Iterable[Requirement], packages: dict[str, str | None]) -> list[str]:
    """Return a sentence on each package that is missing or has a version that madtp does not work with."""
    problems = []
    for requirement in needed:
        name, version = requirement.name, packages[requirement.name]
        if version is None:
            problems.append(f"The package {name} is not installed.")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{name} {version} does not fit: madtp needs {name}{requirement.specifier}.")
    return problems


def _versions(requirements: Iterable[Requirement]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in (requirement.name for requirement in requirements):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _torch() -> tuple[TorchPart | None, list[str]]:
    """Import torch in another process and try it; return what it can do, or a sentence on why it cannot be used."""
    started = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return None, [f"torch did not answer within {LONGEST} s."]
    try:
        found = TorchPart.model_validate(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, ValidationError):
        lines = done.stderr.strip().splitlines() or [f"its process ended with code {done.returncode}"]
        return None, [f"torch cannot be used: {lines[-1][:300]}"]
    return found.model_copy(update={"seconds": time.monotonic() - started}), []


def _folders() -> dict[str, str]:
    folders = {"working directory": str(Path.cwd()), "temporary files": tempfile.gettempdir()}
    try:
        from huggingface_hub import constants
    except ImportError:
        return folders
    return folders | {"Hugging Face cache": constants.HF_HUB_CACHE, "Hugging Face home": constants.HF_HOME}


def _processor() -> str:
    """Return the name of the CPU; Python knows it on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
