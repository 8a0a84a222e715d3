"""Empty Python environments for the tests of the package."""

import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
UV = [sys.executable, "-m", "uv", "--quiet", "--no-progress"]
# What torch needs besides CUDA. The tests link the torch that they run with: PyPI's build takes gigabytes.
TORCH = ("torch", "torchgen", "functorch", "torch-*.dist-info", "nvidia", "triton")
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions")
TIMEOUT = 600  # seconds that a program may take: everything is imported and compiled for the first time
# Folders of a user's project that share their names with folders of this repository.
USERS_FOLDERS = ("benchmarks", "client", "container", "serving", "training")


class Environment:
    """An environment in which only this package and what it depends on are installed."""

    def __init__(self, folder: Path, requirements: list[str], *options: str, torch: bool) -> None:
        """Install the requirements with these options of `uv pip install`.

        Args:
            torch: link torch into the environment; if not, torch is missing.
        """
        self.folder = folder
        excluded = folder.with_suffix(".excluded")
        excluded.write_text((PROJECT / "requirements" / "excluded.txt").read_text() + "torch\n")
        subprocess.run([*UV, "venv", "--python", sys.executable, folder], check=True)
        install = [*UV, "pip", "install", "--python", str(folder / "bin" / "python"), "--excludes", str(excluded)]
        subprocess.run([*install, *options, *requirements], check=True)
        if torch:
            subprocess.run([*install, *TORCH_NEEDS], check=True)
            self._link_torch()

    def _link_torch(self) -> None:
        [packages] = (self.folder / "lib").glob("python*/site-packages")
        for pattern in TORCH:
            for path in Path(sysconfig.get_path("platlib")).glob(pattern):
                (packages / path.name).symlink_to(path)

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def run(self, folder: Path, name: str, *arguments: str | Path, **environment: str) -> str:
        """Run a program in this folder and return what it prints. It must succeed."""
        result = self.result(folder, name, *arguments, **environment)
        assert result.returncode == 0, f"{result.args}\n{result.stdout}{result.stderr}"
        return result.stdout

    def result(
        self, folder: Path, name: str, *arguments: str | Path, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        command = [self.program(name), *arguments]
        settings = variables(**environment)
        return subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )


def variables(**more: str) -> dict[str, str]:
    """The environment variables of this process without those that lead to this repository or its environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))} | more


def users_folder(folder: Path) -> Path:
    """A folder of a user whose own packages have the names of this repository's folders."""
    for name in USERS_FOLDERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('a folder of the user was imported')\n")
    return folder
