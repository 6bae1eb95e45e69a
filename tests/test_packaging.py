"""What a person gets who installs the package."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement

import madtp_cli
from tests.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_the_version_stands_in_one_place() -> None:
    """`madtp --version`, the wheel and `pip show` cannot disagree."""
    assert PROJECT["dynamic"] == ["version"]
    source = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert source.samefile(madtp_cli.__file__)
    assert f'__version__ = "{madtp_cli.__version__}"' in source.read_text(encoding="utf-8").splitlines()


def test_every_dependency_is_pinned_for_a_fresh_install() -> None:
    """A dependency missing from constraints.txt would be whatever is newest on the day."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {Requirement(line).name.lower(): Requirement(line) for line in lines if line and not line.startswith("#")}
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        (pin,) = pins[wanted.name.lower()].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), text


@pytest.mark.parametrize("named", ["digits.npz", "10.24432/C50P49", "CC BY 4.0", "BLIP", "CLIP", "UPop", "2403.02991"])
def test_the_notice_names_what_is_others(named: str) -> None:
    """The handwriting and the method are not ours; their authors are named in what we ship."""
    assert named in (ROOT / "NOTICE").read_text(encoding="utf-8")
