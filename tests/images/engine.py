"""The Docker engine and the two images, as the image tests use them."""

import fcntl
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]
TRAIN, SERVE = "lstm-fcn-train:test", "lstm-fcn-serve:test"


def docker(*arguments: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    command = ["docker", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert not check or result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result


def engine_answers() -> bool:
    return shutil.which("docker") is not None and docker("info", check=False).returncode == 0


def build_images() -> None:
    """Build both images, the training image with the torch that the tests run with: the default brings 4 GB of CUDA."""
    options = ("--provenance=false", "--sbom=false", "--build-arg", "TORCH=-r requirements/torch.txt")
    with (Path(tempfile.gettempdir()) / "lstm-fcn-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes, one builds; the others find the layers
        docker("build", *options, "-f", PROJECT / "Dockerfile.train", "-t", TRAIN, PROJECT)
        docker("build", *options[:2], "-f", PROJECT / "Dockerfile.serve", "-t", SERVE, PROJECT)


def inspect(image: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(docker("image", "inspect", image).stdout)[0]
    return loaded


class Container:
    """A container in the background."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"

    def logs(self) -> str:
        result = docker("logs", self.name)
        return result.stdout + result.stderr

    def wait_for_log(self, text: str) -> None:
        deadline = time.monotonic() + 120
        while text not in self.logs():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def wait_for_program(self) -> None:
        """Wait until process 1 is Python: the kernel drops a SIGTERM for process 1 that comes before any program."""
        deadline = time.monotonic() + 60
        while "python" not in docker("top", self.name, "-o", "pid,comm").stdout:
            assert time.monotonic() < deadline, self.logs()

    def wait(self) -> int:
        """The exit code, once it ends."""
        return int(docker("wait", self.name).stdout)

    def setting(self, name: str) -> str:
        """A property as `docker inspect` tells it, such as `.HostConfig.ShmSize`."""
        return docker("inspect", "-f", f"{{{{json {name}}}}}", self.name).stdout.strip()

    def stop(self, seconds: int) -> tuple[int, float]:
        """`docker stop`: exit code, and how many seconds it took."""
        started = time.monotonic()
        docker("stop", "-t", str(seconds), self.name)
        return int(self.setting(".State.ExitCode")), time.monotonic() - started


@contextmanager
def running(*arguments: str | Path, port: int = 0) -> Iterator[Container]:
    """`docker run --detach` with these arguments; removed in the end."""
    name = docker("run", "--detach", *arguments).stdout.strip()
    try:
        yield Container(name, port)
    finally:
        docker("rm", "--force", name)
