"""The package, built once, and environments with one extra each."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.environments import PROJECT, Environment, users_folder


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the source distribution and of the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    # A copy, because setuptools writes into the folder that it builds, where another process may build, too.
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "demo", "job", "my", "results", "tests"
    )
    source = shutil.copytree(PROJECT, folder / "source", symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    [wheel] = distributions.glob("*.whl")
    return wheel


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Callable[[str], Environment]:
    """Install the wheel with an extra ("" for none) in an empty environment."""

    def install_extra(extra: str) -> Environment:
        requirement = f"{wheel}[{extra}]" if extra else str(wheel)
        return Environment(tmp_path / "environment", [requirement], torch=extra in ("train", "tune", "benchmark"))

    return install_extra


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's folder, in which the commands run."""
    return users_folder(tmp_path / "project")
