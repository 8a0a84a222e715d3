"""Both images, built and run as the README says. More is in the checklist beside."""

import shutil
import time
from pathlib import Path

import pytest

from tests.contract.test_serving import GOLDEN, LABELS, ROWS
from tests.images.engine import SERVE, TRAIN, docker, inspect, running
from tests.programs import TrainingJob, free_port, request, wait_until_healthy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "model", tmp_path / "model"))


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
    def test_a_limited_container_uses_as_many_threads(self, job: TrainingJob) -> None:
        result = docker("run", "--rm", "--cpus", "1", "-v", f"{job.root}:/opt/ml", TRAIN)
        assert ", 1 thread(s)" in result.stdout

    def test_bad_input_fails_with_a_text(self, job: TrainingJob) -> None:
        job.prepare(epochs="0")
        result = docker("run", "--rm", "-v", f"{job.root}:/opt/ml", TRAIN, check=False)
        assert result.returncode == 2
        assert job.failure.read_text().startswith("UserError: Hyperparameters: epochs=0 must be")


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
