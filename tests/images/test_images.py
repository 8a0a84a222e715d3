"""Both images, built and run as the README says. More is in the checklist beside."""

from pathlib import Path

import pytest

from tests.images.engine import SERVE, TRAIN, docker, inspect, running
from tests.models import LABELS, ROWS, save_plain_model
from tests.programs import TrainingJob, free_port, request, wait_until_healthy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_plain_model(tmp_path / "model")


class TestImages:
    @pytest.mark.parametrize("image", [TRAIN, SERVE])
    def test_environment(self, image: str) -> None:
        config = inspect(image)["Config"]
        assert isinstance(config, dict)
        names = {entry.split("=")[0] for entry in config["Env"]}
        assert {"LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"} <= names

    def test_the_serving_image_holds_no_torch(self) -> None:
        result = docker("run", "--rm", SERVE, "python", "-c", "import torch", check=False)
        assert "ModuleNotFoundError" in result.stderr


class TestTraining:
    def test_a_limited_container_uses_as_many_threads(self, job: TrainingJob) -> None:
        result = docker("run", "--rm", "--cpus", "1", "-v", f"{job.root}:/opt/ml", TRAIN)
        assert ", 1 thread(s)" in result.stdout

    def test_bad_input_fails_with_a_text(self, job: TrainingJob) -> None:
        job.prepare(epochs="-1")
        result = docker("run", "--rm", "-v", f"{job.root}:/opt/ml", TRAIN, check=False)
        assert result.returncode == 2
        assert job.failure.read_text().startswith("UserError: Hyperparameters: epochs=-1 must be")


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
            container.wait_for_program()
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
