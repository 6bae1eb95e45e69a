"""What users get when they install the package."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import madtp_cli
from tests.paths import EXAMPLES, PACKAGE, ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
#: What NOTICE names: data, papers, and the code that the reference cases of the tests were computed with.
WORKS = ["digits.npz", "10.24432/C50P49", "CC BY 4.0", "2403.02991", "BLIP", "MADTP", "CLIP", "UPop"]
WORKS += ["EViT", "ToMe", "PiToMe", "OpenCLIP", "timm"]


def test_the_version_is_written_in_one_place() -> None:
    """So `madtp --version`, the wheel and `pip show` agree."""
    assert PROJECT["dynamic"] == ["version"]
    source = ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]
    assert source.samefile(madtp_cli.__file__)
    assert f'__version__ = "{madtp_cli.__version__}"' in source.read_text(encoding="utf-8").splitlines()


def test_every_dependency_has_a_version_in_the_constraints() -> None:
    """Otherwise `make` would install the newest version of the day."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {Requirement(line).name.lower(): Requirement(line) for line in lines if line and not line.startswith("#")}
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        wanted = Requirement(text)
        (pin,) = pins[wanted.name.lower()].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), text


def limits(name: str) -> dict[str, str]:
    """Return the versions of a package that madtp allows: `{">=": "5.21", "<": "6"}`."""
    (wanted,) = (needed for needed in map(Requirement, PROJECT["dependencies"]) if needed.name == name)
    return {each.operator: each.version for each in wanted.specifier}


def test_the_readme_names_the_oldest_versions() -> None:
    """Users read it before they change the packages of an environment."""
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    torch, transformers = limits("torch"), limits("transformers")
    below = f"{transformers['>=']} or newer, below {transformers['<']}."
    assert f"torch {torch['>=']} or newer and transformers {below}" in readme


def test_the_tests_with_the_oldest_versions_install_them(tmp_path) -> None:
    """And all other packages in the versions of constraints.txt."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    written = tmp_path / "build/oldest.txt"
    subprocess.run(["make", "-sf", ROOT / "Makefile", "build/oldest.txt"], cwd=tmp_path, check=True)
    usual, old = (set(path.read_text("utf-8").splitlines()) for path in (ROOT / "constraints.txt", written))
    assert old - usual == {f"{name}=={limits(name)['>=']}" for name in ("torch", "transformers")}
    assert {line.partition("==")[0] for line in usual - old} == {"torch", "transformers"}


@pytest.mark.parametrize("named", WORKS)
def test_the_notice_names_the_work_of_others(named: str) -> None:
    """The handwritten digits and the method have other authors."""
    assert named in (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_the_notice_names_the_file_of_digits_at_its_place() -> None:
    """The path is that of the file in the wheel."""
    (path,) = re.findall(r"\S+digits\.npz", (ROOT / "NOTICE").read_text(encoding="utf-8"))
    assert (ROOT / path).is_file()


def test_no_text_installs_madtp_from_a_package_index() -> None:
    """No index has the package, so such a command would fail or install something else."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *PACKAGE.rglob("*.py"), *EXAMPLES.rglob("*.py")]
    pages += [*EXAMPLES.rglob("*.yml"), *EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.md")]
    command = re.compile(r"pip install ['\"]?madtp(?!(\[\w+\])? @)\b")
    named = {page.relative_to(ROOT).as_posix() for page in pages if command.search(page.read_text("utf-8"))}
    assert named == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend in this environment, because the tests have no network."""
    pytest.importorskip("hatchling", reason="pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    """The digits, the type marker and the licences belong to the package; tests and examples do not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"madtp_cli/scenes/digits.npz", "madtp_cli/py.typed"} <= set(names)
    assert {Path(name).name for name in names} >= {"LICENSE", "NOTICE", "METADATA", "entry_points.txt"}
    assert {name.split("/")[0] for name in names} == {"madtp_cli", f"madtp-{madtp_cli.__version__}.dist-info"}


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel; it finds all other packages in the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = sysconfig.get_path("purelib", "venv", paths)
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(site, "others.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return Path(sysconfig.get_path("scripts", "venv", paths))


@pytest.mark.slow
def test_the_wheel_runs_in_a_new_environment(environment: Path, tmp_path: Path) -> None:
    """The command is installed, and the package loads a checkpoint without the checkout."""
    shown = subprocess.run([environment / "madtp", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == (f"madtp {madtp_cli.__version__}\n", "")
    code = (
        "import sys, madtp_cli\n"
        "model, processor = madtp_cli.load(sys.argv[1])\n"
        "print(madtp_cli.__file__, type(model).__name__)"
    )
    command = [str(environment / "python"), "-c", code, str(EXAMPLES / "blip.pt")]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    file, model = loaded.stdout.split()
    assert Path(file).is_relative_to(environment.parent)
    assert model == "MadtpBlipForNLVR2"
