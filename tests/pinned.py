"""Environments for packages that cannot stand beside the project's own, with the pinned versions in `requirements/`."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TIMEOUT = 400  # seconds for one program or one installation; each takes a sixth of them


def pinned_python(name: str, module: str, env: dict[str, str] | None = None) -> Path:
    """Python of `.venv/<name>`, which holds what `requirements/<name>.txt` lists; made anew when that has changed.

    Of the packages' many modules those are compiled that `module` imports, for users who may not write there.
    """
    folder = PROJECT / ".venv" / name
    requirements = PROJECT / "requirements" / f"{name}.txt"
    python = folder / "bin" / "python"
    installed = folder / "installed"
    content = f"# Python {sys.version}\n{requirements.read_text()}"
    if not installed.exists() or installed.read_text() != content:
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", folder)
        options = ["--quiet", "--no-deps", "--python", str(python)]  # every package is named there
        run(sys.executable, "-m", "uv", "pip", "install", *options, "-r", requirements)
        run(python, "-c", f"import {module}", env=env)
        installed.write_text(content)
    return python


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a program, which must succeed."""
    words = list(map(str, command))
    result = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert result.returncode == 0, result.stdout[-10000:] + result.stderr[-10000:]
