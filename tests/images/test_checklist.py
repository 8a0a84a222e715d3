"""The rows of the checklist that need a container; other tests are marked with their row."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lstm_fcn.container.metrics import METRICS
from tests.images.engine import SERVE, TRAIN, Container, docker, inspect, running
from tests.models import LABELS, ROWS, save_plain_model
from tests.programs import (
    MODEL_FILES,
    TrainingJob,
    free_port,
    labelled_csv,
    request,
    wait_until_healthy,
    without_labels,
)

BOTH = pytest.mark.parametrize(("image", "verb"), [(TRAIN, "train"), (SERVE, "serve")], ids=["train", "serve"])


def configuration(image: str) -> dict[str, Any]:
    config: dict[str, Any] = inspect(image)["Config"]  # type: ignore[assignment]
    return config


@BOTH
def test_row_01_entry_point(image: str, verb: str) -> None:
    """ENTRYPOINT is a JSON array that starts no shell, CMD the image's word."""
    assert configuration(image)["Entrypoint"] == ["/usr/bin/env"]
    assert configuration(image)["Cmd"] == [verb]


@BOTH
def test_row_02_user_and_volumes(image: str, verb: str) -> None:  # noqa: ARG001
    """Root, amd64, no volume, and nothing below /opt/ml."""
    assert configuration(image)["User"] in ("", "root")
    assert not configuration(image)["Volumes"]
    assert inspect(image)["Architecture"] == "amd64"
    docker("run", "--rm", image, "test", "!", "-e", "/opt/ml")


@BOTH
def test_row_03_labels(image: str, verb: str) -> None:
    """The serving image binds to a port it is told, serves many models, and promises nothing that it does not have."""
    labels = configuration(image)["Labels"]
    sagemaker = {name: value for name, value in labels.items() if name.startswith("com.amazonaws.sagemaker")}
    names = ("accept-bind-to-port", "multi-models") if verb == "serve" else ()
    assert sagemaker == {f"com.amazonaws.sagemaker.capabilities.{name}": "true" for name in names}


@BOTH
def test_row_04_other_commands(image: str, verb: str, tmp_path: Path) -> None:  # noqa: ARG001
    """Another command than the image's word is run, and its exit code is the container's."""
    (tmp_path / "file").touch(mode=0o600)
    docker("run", "--rm", "-v", f"{tmp_path}:/tmp/x", image, "chmod", "-R", "777", "/tmp/x")  # noqa: S108
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o777
    assert docker("run", "--rm", image, "bash", "-c", "exit 7", check=False).returncode == 7


def test_row_06_gpus_and_size() -> None:
    """The training image asks for GPUs and brings no driver; the serving image is small enough to be serverless."""
    environment = set(configuration(TRAIN)["Env"])
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= environment
    assert docker("run", "--rm", TRAIN, "find", "/", "-xdev", "-name", "libcuda.so*").stdout == ""
    size = inspect(SERVE)["Size"]
    assert isinstance(size, int)
    assert size <= 550e6


@BOTH
def test_row_07_everyone_may_read_the_program(image: str, verb: str) -> None:
    """Whoever the container runs as may read all of the program."""
    program = f"/usr/local/bin/{verb}"
    docker("run", "--rm", image, "test", "-r", program, "-a", "-x", program)
    assert docker("run", "--rm", image, "find", "/opt/lstm-fcn", program, "!", "-perm", "-o+r").stdout == ""


class Run(NamedTuple):
    """A training job in a container, after its end."""

    job: TrainingJob
    code: int
    output: str
    shared_memory: str
    gpus: str
    environment: str

    def assert_succeeded(self) -> None:
        assert self.code == 0, self.output
        assert self.job.files() == MODEL_FILES
        assert not self.job.failure.exists()


# How each job is run, beside the mounted folder: options and command.
WAYS: dict[str, tuple[list[str], list[str]]] = {
    "train": ([], ["train"]),
    "no argument": ([], []),
    "no network": (["--network", "none"], ["train"]),
    "read-only input": ([], ["train"]),
    "terminal": (["-t"], []),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One and the same job, run in different ways, two at a time."""

    def run(way: str) -> Run:
        options, command = WAYS[way]
        job = TrainingJob(tmp_path_factory.mktemp("ml")).prepare(validation=labelled_csv(6, seed=1))
        mounts = ["-v", f"{job.root}:/opt/ml"]
        if way == "read-only input":
            mounts += ["-v", f"{job.root / 'input'}:/opt/ml/input:ro"]
        with running(*options, *mounts, TRAIN, *command) as container:
            code = container.wait()
            memory, gpus = (container.setting(f".HostConfig.{name}") for name in ("ShmSize", "DeviceRequests"))
            return Run(job, code, container.logs(), memory, gpus, container.setting(".Config.Env"))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WAYS, pool.map(run, WAYS), strict=True))


def test_row_08_the_word_train(finished: dict[str, Run]) -> None:
    """`docker run IMAGE train` with a good job exits with 0 and leaves a model."""
    finished["train"].assert_succeeded()


def test_row_09_no_argument(finished: dict[str, Run]) -> None:
    """`docker run IMAGE` without an argument does the same."""
    finished["no argument"].assert_succeeded()


def test_row_10_no_network(finished: dict[str, Run]) -> None:
    """The same without a network, and without variables of AWS or of a toolkit."""
    finished["no network"].assert_succeeded()
    assert not re.search(r'"(AWS|SM|SAGEMAKER)_', finished["no network"].environment)


def test_row_11_read_only_input(finished: dict[str, Run]) -> None:
    """The same with input that is mounted read-only."""
    finished["read-only input"].assert_succeeded()


def test_row_12_little_shared_memory(finished: dict[str, Run]) -> None:
    """The same with the 64 MB of shared memory that a container has by default."""
    assert finished["train"].shared_memory == str(64 * 1024 * 1024)
    finished["train"].assert_succeeded()


def test_row_13_no_gpu(finished: dict[str, Run]) -> None:
    """The same without a GPU: on the CPU, which the log says."""
    assert finished["train"].gpus == "null"
    assert "\ndevice: CPU (x86_64), " in finished["train"].output
    finished["train"].assert_succeeded()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[str]:
    name = f"lstm-fcn-{tmp_path.name}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


def test_row_35_two_machines_on_one_network(network: str, tmp_path: Path) -> None:
    """Two containers with a shared model folder both exit with 0; one model, metrics printed by one only."""
    hosts = ["algo-1-x", "algo-2-x"]
    model = tmp_path / "model"
    model.mkdir()

    def run(host: str) -> tuple[int, str]:
        job = TrainingJob(tmp_path / host).prepare(batch_size="4")
        resources = {"current_host": host, "hosts": hosts, "network_interface_name": "eth0"}
        job.write("input/config/resourceconfig.json", resources)
        mounts = ["-v", f"{job.root}:/opt/ml", "-v", f"{model}:/opt/ml/model"]
        with running("--network", network, "--network-alias", host, *mounts, TRAIN, "train") as container:
            return container.wait(), container.logs()

    with ThreadPoolExecutor(2) as pool:
        (first, printed), (second, other) = pool.map(run, hosts)
    assert (first, second) == (0, 0), printed + other
    assert sorted(path.name for path in model.iterdir()) == MODEL_FILES
    assert len(re.findall("train_loss: ", printed)) == 3 + 1
    assert "train_loss: " not in other
    assert not any((tmp_path / host / "output" / "failure").exists() for host in hosts)


def test_row_37_a_model_goes_from_one_image_to_the_other(job: TrainingJob, tmp_path: Path) -> None:
    """The training image's model, packed and unpacked, is loaded by the serving image and predicts."""
    job.prepare(labelled_csv(40), epochs="60", lr="0.01", lr_schedule="one-cycle")
    docker("run", "--rm", "--cpus", "1", "-v", f"{job.root}:/opt/ml", TRAIN)
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


def test_row_42_docker_stop_in_training(job: TrainingJob) -> None:
    """`docker stop -t 120` in mid training: an end within 120 seconds, exit code 0, a whole model."""
    job.prepare(epochs="20000")
    with running("-v", f"{job.root}:/opt/ml", TRAIN) as container:
        container.wait_for_log("epoch: 3/")
        code, seconds = container.stop(120)
        assert (code, seconds < 60) == (0, True), container.logs()[-5000:]
    assert job.files() == MODEL_FILES


def test_row_43_docker_stop_in_the_first_second(job: TrainingJob) -> None:
    """`docker stop` before anything has happened: an end within 120 seconds, and nothing half-written."""
    job.prepare(epochs="20000")
    with running("-v", f"{job.root}:/opt/ml", TRAIN) as container:
        container.wait_for_program()
        code, seconds = container.stop(120)
        assert (code, seconds < 60) == (143, True), container.logs()[-5000:]
    assert not job.model.exists() or not list(job.model.iterdir())


def test_row_44_docker_kill_and_a_new_start(job: TrainingJob) -> None:
    """After SIGKILL in mid training, a restart with the checkpoints goes on at a later epoch, up to the last one."""
    job.prepare(epochs="300", checkpoint_epochs="1", batch_size="2")
    options = ["--cpus", "1", "-v", f"{job.root}:/opt/ml"]
    with running(*options, TRAIN) as container:
        container.wait_for_log("epoch: 5/")
        docker("kill", "-s", "KILL", container.name)
        assert container.wait() == 137
        assert job.files() == []
    assert [path for path in job.checkpoints.iterdir() if path.suffix == ".safetensors"]
    with running(*options, TRAIN) as container:
        assert container.wait() == 0, container.logs()
        lines = container.logs().splitlines()
    (resumed,) = [line for line in lines if line.startswith("resumed: epoch ")]
    first = int(re.findall(r"\d+", resumed)[0])
    assert first > 5
    epochs = [line for line in lines if line.startswith("epoch: ")]
    assert epochs[0].startswith(f"epoch: {first}/300, ")
    assert epochs[-1].startswith("epoch: 300/300, ")
    assert len(epochs) == 300 - first + 1
    assert job.files() == MODEL_FILES


def test_row_49_metrics_on_a_pipe_and_on_a_terminal(finished: dict[str, Run]) -> None:
    """Each regex finds its metric once an epoch and once for the saved model, with and without a terminal."""
    for way in ("train", "terminal"):
        finished[way].assert_succeeded()
        output = finished[way].output
        lines = [line.removesuffix("\r") for line in output.split("\n") if "train_loss: " in line]
        assert len(lines) == 3 + 1
        for line in lines:
            assert re.fullmatch(r"[ -~]+", line)
            for metric in METRICS:
                (text,) = re.findall(metric.regex, line)
                float(text)


def serve_model(tmp_path: Path) -> Path:
    """A model to mount, which everyone may read."""
    return save_plain_model(tmp_path / "model")


@pytest.mark.parametrize("command", [["serve"], []], ids=["serve", "no argument"])
def test_row_55_the_word_serve(tmp_path: Path, command: list[str]) -> None:
    """`docker run IMAGE serve`, and without an argument: GET /ping is 200 and empty within 120 seconds."""
    port = free_port()
    options = ["-p", f"127.0.0.1:{port}:8080", "-v", f"{serve_model(tmp_path)}:/opt/ml/model"]
    with running(*options, SERVE, *command, port=port) as container:
        wait_until_healthy(container.url)
        reply = request(f"{container.url}/ping")
        assert (reply.status, reply.body) == (200, b"")


INSIDE = (
    "import sys, time, urllib.request as u\n"
    "def ask(path, body=None):\n"
    "    r = u.Request(f'http://localhost:{sys.argv[1]}/{path}', body, {'Content-Type': 'text/csv'})\n"
    "    return u.urlopen(r, timeout=5).read().decode()\n"
    "for _ in range(200):\n"
    "    try: ask('ping'); break\n"
    "    except OSError: time.sleep(0.05)\n"
    "print(ask('invocations', sys.argv[2].encode()), end='')"
)


def ask_inside(container: Container, port: int = 8080) -> list[str]:
    """Labels of the golden series, asked for within the container."""
    return docker("exec", container.name, "python", "-c", INSIDE, str(port), ROWS).stdout.split("\n")


def test_row_56_read_only_and_without_a_network(tmp_path: Path) -> None:
    """The same with a read-only root and model, /tmp in memory, and no network."""
    options = ["--read-only", "--tmpfs", "/tmp", "--network", "none"]  # noqa: S108
    with running(*options, "-v", f"{serve_model(tmp_path)}:/opt/ml/model:ro", SERVE) as container:
        assert ask_inside(container) == LABELS


def test_row_61_docker_stop(tmp_path: Path) -> None:
    """`docker stop -t 30` ends within 30 seconds, and a request in flight gets its answer."""
    port = free_port()
    options = ["-p", f"127.0.0.1:{port}:8080", "-v", f"{serve_model(tmp_path)}:/opt/ml/model"]
    with running(*options, SERVE, port=port) as container, ThreadPoolExecutor(1) as pool:
        wait_until_healthy(container.url)
        reply = pool.submit(request, f"{container.url}/invocations", ROWS * 20_000)
        time.sleep(0.5)
        code, seconds = container.stop(30)
        assert (code, seconds < 28) == (0, True), container.logs()
        assert reply.result().text.count("\n") == 8 * 20_000 - 1


def test_row_62_another_user(tmp_path: Path) -> None:
    """With `--user 1000:1000`, as serverless endpoints may have it, the container still answers."""
    with running("--user", "1000:1000", "-v", f"{serve_model(tmp_path)}:/opt/ml/model:ro", SERVE) as container:
        assert ask_inside(container) == LABELS
