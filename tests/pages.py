"""The code blocks of the README and of the pages in `docs/`, to be run as a reader would type them.

So that this does not take hours, trainings have few epochs, and searches few trials.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.programs import PROGRAMS, free_port, wait_until_healthy

PROJECT = Path(__file__).parents[1]
# Commands that run until they are stopped.
SERVER = re.compile(r"([A-Z_]+=\S* )*(((lstm-fcn|mlflow models) )?serve\b.*|docker run (?!.*--detach).*-serve(:\S+)?)")
TIMEOUT = 600  # seconds that the commands of a block may take
FEWER = (
    (r" --epochs \d+", ""),
    (r"lstm-fcn (train|train-many|tune) ", r"lstm-fcn \1 --epochs 2 "),
    (r"--trials \d+", "--trials 2"),
    (r'(epochs"?[=:] ?"?)\d+', r"\g<1>2"),
    (r"LSTMFCNClassifier\(\)", "LSTMFCNClassifier(epochs=2)"),
)


def code_blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block in Python or for a shell."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return re.findall(r"^ *```(python|sh)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def run_blocks(blocks: list[tuple[str, str]], folder: Path, replaced: dict[str, str]) -> None:
    """Run blocks one after the other in `folder`, which is the current one; servers run until the last has ended.

    Args:
        blocks: see `code_blocks`.
        folder: see above.
        replaced: patterns to replace in them, such as names of images.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    ports = {port: str(free_port()) for port in ("8080", "8081", "5001")}
    pattern_of_ports = re.compile(r"\b(8080|8081|5001)\b(?! -v)")  # but for the port within a container
    with ExitStack() as servers:
        for language, text in blocks:
            for pattern, better in FEWER:
                text = re.sub(pattern, better, text)
            text = pattern_of_ports.sub(lambda match: ports[match[1]], text)
            for old, new in replaced.items():
                text = re.sub(old, new, text)
            if language == "python":
                exec(compile(text, "a block of a page", "exec"), names)  # noqa: S102 - the repository's own pages
                continue
            before: list[str] = []
            for command in text.replace("\\\n", " ").splitlines():
                if not SERVER.fullmatch(command):
                    before.append(command)
                    continue
                _shell("\n".join(before), folder)
                before = []
                servers.enter_context(_server(command, folder, ports))
            _shell("\n".join(before), folder)


@contextmanager
def _server(command: str, folder: Path, ports: dict[str, str]) -> Iterator[None]:
    named = [port for port in ports.values() if port in command]
    if not named:
        command, named = f"{command} --port {ports['8080']}", [ports["8080"]]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", command], cwd=folder, env=_variables(), stdout=log, stderr=log)
        try:
            wait_until_healthy(f"http://127.0.0.1:{named[0]}", process)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _shell(text: str, folder: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", text]
    result = subprocess.run(
        command, cwd=folder, env=_variables(), capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}{result.stderr}"


def _variables() -> dict[str, str]:
    return os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
