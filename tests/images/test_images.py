"""Both images, built and run as the README says."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.test_serving import GOLDEN, LABELS, ROWS
from tests.programs import TrainingJob, free_port, labelled_csv, request, wait_until_healthy, without_labels

PROJECT = Path(__file__).parents[2]
TRAIN, SERVE = "lstm-fcn-train:test", "lstm-fcn-serve:test"
MODEL_FILES = ["model.json", "model.onnx", "weights.safetensors"]


def docker(*arguments: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    command = ["docker", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert not check or result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result


def engine_answers() -> bool:
    return shutil.which("docker") is not None and docker("info", check=False).returncode == 0


pytestmark = pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers here")


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    for file, tag in (("Dockerfile.train", TRAIN), ("Dockerfile.serve", SERVE)):
        docker("build", "--provenance=false", "--sbom=false", "-f", PROJECT / file, "-t", tag, PROJECT)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path).prepare()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "model", tmp_path / "model"))


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

    def stop(self, seconds: int) -> tuple[int, float]:
        """`docker stop`: exit code, and how many seconds it took."""
        started = time.monotonic()
        docker("stop", "-t", str(seconds), self.name)
        code = docker("inspect", "-f", "{{.State.ExitCode}}", self.name).stdout
        return int(code), time.monotonic() - started


@contextmanager
def running(*arguments: str | Path, port: int = 0) -> Iterator[Container]:
    """`docker run --detach` with these arguments; removed in the end."""
    name = docker("run", "--detach", *arguments).stdout.strip()
    try:
        yield Container(name, port)
    finally:
        docker("rm", "--force", name)


class TestImages:
    """What an image is, before anything runs in it (T2 to T12, T45, S2, S34 to S37)."""

    @pytest.mark.parametrize(("image", "command"), [(TRAIN, ["train"]), (SERVE, ["serve"])])
    def test_configuration(self, image: str, command: list[str]) -> None:
        details = inspect(image)
        config = details["Config"]
        assert isinstance(config, dict)
        assert config["Entrypoint"] == ["/usr/bin/env"]
        assert config["Cmd"] == command
        assert config["User"] in ("", "root")
        assert not config["Volumes"]
        assert details["Architecture"] == "amd64"
        names = {entry.split("=")[0] for entry in config["Env"]}
        assert {"LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"} <= names
        labels = config["Labels"]
        sagemaker = {name: value for name, value in labels.items() if name.startswith("com.amazonaws.sagemaker")}
        expected = {"com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true"}
        assert sagemaker == (expected if image == SERVE else {})

    def test_the_training_image_asks_for_gpus(self) -> None:
        config = inspect(TRAIN)["Config"]
        assert isinstance(config, dict)
        assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])

    @pytest.mark.parametrize("image", [TRAIN, SERVE])
    def test_nothing_lies_in_opt_ml_and_everyone_may_read_the_program(self, image: str) -> None:
        program = "/usr/local/bin/train" if image == TRAIN else "/usr/local/bin/serve"
        docker("run", "--rm", image, "test", "!", "-e", "/opt/ml")
        docker("run", "--rm", image, "test", "-r", program, "-a", "-x", program)
        assert docker("run", "--rm", image, "find", "/opt/lstm-fcn", program, "!", "-perm", "-o+r").stdout == ""

    @pytest.mark.parametrize("image", [TRAIN, SERVE])
    def test_other_commands_run(self, image: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch(mode=0o600)
        docker("run", "--rm", "-v", f"{tmp_path}:/delete", image, "chmod", "-R", "777", "/delete")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o777
        assert docker("run", "--rm", image, "bash", "-c", "exit 7", check=False).returncode == 7

    def test_the_serving_image_holds_no_torch(self) -> None:
        result = docker("run", "--rm", SERVE, "python", "-c", "import torch", check=False)
        assert "ModuleNotFoundError" in result.stderr


class TestTraining:
    @pytest.mark.parametrize("command", [["train"], []])
    def test_a_job_without_network_on_read_only_input(self, job: TrainingJob, command: list[str]) -> None:
        mounts = ["-v", f"{job.root}:/opt/ml", "-v", f"{job.root / 'input'}:/opt/ml/input:ro"]
        result = docker("run", "--rm", "--network", "none", *mounts, TRAIN, *command)
        assert "device: CPU" in result.stdout
        assert sorted(path.name for path in job.model.iterdir()) == MODEL_FILES
        assert not job.failure.exists()

    def test_on_a_terminal_the_metric_lines_are_plain_too(self, job: TrainingJob) -> None:
        command = ["docker", "run", "--rm", "-t", "-v", f"{job.root}:/opt/ml", TRAIN]
        output = subprocess.run(command, capture_output=True, check=True).stdout
        lines = [line for line in output.split(b"\r\n") if b"train_loss: " in line]
        assert len(lines) == 3 + 1
        assert not any(character in line for line in lines for character in (b"\r", b"\n", b"\t", b"\x1b"))

    def test_a_limited_container_uses_as_many_threads(self, job: TrainingJob) -> None:
        result = docker("run", "--rm", "--cpus", "1", "-v", f"{job.root}:/opt/ml", TRAIN)
        assert ", 1 thread(s)" in result.stdout

    def test_bad_input_fails_with_a_text(self, job: TrainingJob) -> None:
        job.prepare(epochs="0")
        result = docker("run", "--rm", "-v", f"{job.root}:/opt/ml", TRAIN, check=False)
        assert result.returncode == 2
        assert job.failure.read_text().startswith("UserError: Hyperparameters: epochs=0 must be")

    def test_docker_stop_saves_a_model(self, job: TrainingJob) -> None:
        job.prepare(epochs="20000")
        with running("-v", f"{job.root}:/opt/ml", TRAIN) as container:
            container.wait_for_log("epoch: 3/")
            code, seconds = container.stop(120)
            assert (code, seconds < 60) == (0, True), container.logs()
        assert sorted(path.name for path in job.model.iterdir()) == MODEL_FILES

    def test_docker_stop_in_the_first_second(self, job: TrainingJob) -> None:
        job.prepare(epochs="20000")
        with running("-v", f"{job.root}:/opt/ml", TRAIN) as container:
            time.sleep(0.5)
            code, seconds = container.stop(120)
            assert (code, seconds < 60) == (143, True), container.logs()
        assert not job.model.exists() or not list(job.model.iterdir())


class TestServing:
    @pytest.mark.parametrize("command", [["serve"], []])
    def test_the_strictest_container(self, model: Path, command: list[str]) -> None:
        """Read-only, without network, as another user, in little memory (S9, S35, S38)."""
        limits = ["--read-only", "--network", "none", "--user", "1000", "--memory", "512m"]
        script = (
            "import time, urllib.request as u\n"
            "for _ in range(200):\n"
            "    try: u.urlopen('http://localhost:8080/ping'); break\n"
            "    except OSError: time.sleep(0.05)\n"
            f"r = u.Request('http://localhost:8080/invocations', {ROWS.encode()!r}, {{'Content-Type': 'text/csv'}})\n"
            "print(u.urlopen(r).read().decode(), end='')"
        )
        with running(*limits, "-v", f"{model}:/opt/ml/model:ro", SERVE, *command) as container:
            answer = docker("exec", container.name, "python", "-c", script).stdout
            assert answer.split("\n") == LABELS
            code, seconds = container.stop(30)
            assert (code, seconds < 28) == (0, True), container.logs()

    def test_docker_stop_in_the_first_second(self, model: Path) -> None:
        with running("-v", f"{model}:/opt/ml/model:ro", SERVE) as container:
            time.sleep(0.2)
            assert container.stop(30)[1] < 10, container.logs()

    def test_another_port(self, model: Path) -> None:
        port = free_port()
        mounts = ["-v", f"{model}:/opt/ml/model:ro", "-e", "SAGEMAKER_BIND_TO_PORT=9090"]
        with running("-p", f"127.0.0.1:{port}:9090", *mounts, SERVE, port=port) as container:
            wait_until_healthy(container.url)
            assert request(container.url + "/invocations", ROWS).text.split("\n") == LABELS

    def test_no_model(self, tmp_path: Path) -> None:
        result = docker("run", "--rm", "-v", f"{tmp_path}:/opt/ml/model:ro", SERVE, check=False)
        assert result.returncode == 2
        assert "/opt/ml/model holds no model: model.json is missing" in result.stderr


def test_a_model_goes_from_one_image_to_the_other_in_an_archive(job: TrainingJob, tmp_path: Path) -> None:
    job.prepare(labelled_csv(40), epochs="60", lr="0.01", lr_schedule="one-cycle")
    docker("run", "--rm", "-v", f"{job.root}:/opt/ml", TRAIN)
    archive = tmp_path / "model.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", job.model, "."], check=True)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", unpacked], check=True)
    test = labelled_csv(20, seed=1)
    port = free_port()
    with running("-p", f"127.0.0.1:{port}:8080", "-v", f"{unpacked}:/opt/ml/model", SERVE, port=port) as container:
        wait_until_healthy(container.url)
        predicted = request(container.url + "/invocations", without_labels(test)).text.split("\n")
    assert predicted == [line.split(",")[0] for line in test.splitlines()]
