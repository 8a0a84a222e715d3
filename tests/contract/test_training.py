"""`train` as a black box: the platform's rules for training (T…), metrics (M…), and what bad input is told."""

import json
import os
import re
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from container import artifact
from container.errors import AlgorithmError, UserError
from container.metrics import METRICS
from tests.programs import PROGRAMS, SMALL, Result, TrainingJob, finish, labelled_csv

MODEL_FILES = ["model.json", "model.onnx", "weights.safetensors"]


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path).prepare()


def model_files(job: TrainingJob) -> list[str]:
    return sorted(path.name for path in job.model.iterdir()) if job.model.is_dir() else []


def assert_succeeds(job: TrainingJob) -> Result:
    result = job.run()
    assert result.code == 0, result.stderr
    assert model_files(job) == MODEL_FILES
    assert not job.failure.exists()
    return result


def assert_refused(job: TrainingJob, *messages: str) -> None:
    """The job ends as the user's fault; the cause stands first in the failure file, and in the log (T55 to T57)."""
    result = job.run()
    assert result.code == UserError.exit_code, result.stdout + result.stderr
    text = job.failure.read_text(encoding="utf-8")
    assert text.startswith("UserError: ")
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in text[:1024]
    assert model_files(job) == []


def graph_bytes(job: TrainingJob) -> bytes:
    return (job.model / "model.onnx").read_bytes()


class TestGoodJobs:
    def test_a_job_with_validation(self, job: TrainingJob) -> None:
        job.write("input/data/validation/valid.csv", labelled_csv(6, seed=1))
        job.write("output/failure", "left behind by an earlier run")
        result = assert_succeeds(job)
        lines = result.metric_lines()
        assert len(lines) == 3 + 1  # one an epoch, one for the model that was saved
        for metric in METRICS:
            for line in lines:
                (text,) = re.findall(metric.regex, line)
                float(text)
        assert not re.search(r"[\t\r\x1b]", result.stdout)
        assert lines[-1] == result.stdout.splitlines()[-1]
        saved = json.loads((job.model / "model.json").read_text())
        for name, value in saved["metrics"].items():
            assert f"{name}: {value:.6f}" in lines[-1]

    def test_the_first_lines_say_device_precision_and_versions(self, job: TrainingJob) -> None:
        lines = assert_succeeds(job).stdout.splitlines()
        assert len(lines) == 6 + 3 + 4  # before, in and after the epochs; nothing of a library's own
        assert re.search(r"torch \d", lines[0])
        assert re.search(r"^device: (CPU|\d+ GPU)", lines[1])
        assert re.search(r"^precision: (bfloat16|float32)", lines[2])

    def test_metadata(self, job: TrainingJob) -> None:
        assert_succeeds(job)
        metadata, graph = artifact.load(job.model)
        assert metadata.classes == ["down", "up"]
        assert metadata.length == 16
        assert metadata.hyperparameters["epochs"] == 3
        assert metadata.hyperparameters["lr-schedule"] == "plateau"
        (given,) = onnxruntime.InferenceSession(graph).get_inputs()
        assert (given.name, given.type, given.shape[1:]) == ("series", "tensor(double)", [1, 16])

    def test_without_configuration_files_and_with_many_strange_ones(self, job: TrainingJob) -> None:
        for name in ("init-config", "trainingjobconfig", "debughookconfig", "profilerconfig", "checkpointconfig"):
            job.write(f"input/config/{name}.json", "not even JSON")
        job.write("input/config/resourceconfig.json", {"current_host": "h-1-x", "hosts": ["h-1-x"], "extra": 1})
        job.write("input/data/training-manifest", "{}")
        assert_succeeds(job)

    def test_the_same_data_in_other_dialects_and_files_gives_the_same_model(self, job: TrainingJob) -> None:
        assert_succeeds(job)
        expected = graph_bytes(job)
        lines = labelled_csv().splitlines()
        (job.root / "input" / "data" / "training" / "train.csv").unlink()
        job.write("input/data/training/1.csv", "\ufeff" + "\r\n".join(lines[:7]))
        job.write("input/data/training/2/more.csv", "\n".join(lines[7:]) + "\n\n \n")
        job.write("input/data/training/_SUCCESS", "")
        job.write("input/data/training/.hidden", "x")
        job.write("input/config/inputdataconfig.json", {"training": {"TrainingInputMode": "FastFile"}})
        job.write("input/config/hyperparameters.json", {name: json.dumps(value) for name, value in SMALL.items()})
        assert_succeeds(job)
        assert graph_bytes(job) == expected

    def test_another_seed_gives_another_model(self, job: TrainingJob) -> None:
        assert_succeeds(job)
        first = graph_bytes(job)
        job.prepare(seed="1")
        assert_succeeds(job)
        assert graph_bytes(job) != first

    def test_labels_are_kept_exactly_as_written(self, job: TrainingJob) -> None:
        job.prepare(labelled_csv(labels=("1.0", "01", " x", "ä")).replace(" x,", '" x, y",'))
        assert_succeeds(job)
        assert artifact.load(job.model)[0].classes == [" x, y", "01", "1.0", "ä"]

    @pytest.mark.parametrize("scaling", ["dataset", "series"])
    def test_a_large_offset_does_no_harm(self, job: TrainingJob, scaling: str) -> None:
        rows = [line.split(",") for line in labelled_csv(40).splitlines()]
        shifted = [",".join([row[0], *(repr(float(cell) + 1e7) for cell in row[1:])]) for row in rows]
        job.prepare("\n".join(shifted), scaling=scaling, epochs="60", lr="0.01", lr_schedule="one-cycle")
        result = assert_succeeds(job)
        assert "train_accuracy: 1.000000" in result.metric_lines()[-1]

    @pytest.mark.parametrize(
        "hyperparameters",
        [
            {"num_layers": "3", "class_weight": "none", "precision": "float32"},
            {"lr_schedule": "constant", "precision": "bfloat16", "scaling": "none"},
            {"lr_schedule": "one-cycle", "epochs": "1", "batch_size": "5", "kernel_size_2": "40"},
        ],
    )
    def test_hyperparameters(self, job: TrainingJob, hyperparameters: dict[str, str]) -> None:
        job.prepare(**hyperparameters)
        assert_succeeds(job)

    def test_input_may_be_read_only(self, job: TrainingJob) -> None:
        before = {path: path.stat().st_mtime_ns for path in (job.root / "input").rglob("*")}
        assert_succeeds(job)
        assert {path: path.stat().st_mtime_ns for path in (job.root / "input").rglob("*")} == before

    def test_model_files_are_plain_and_world_readable(self, job: TrainingJob) -> None:
        assert_succeeds(job)
        for path in job.model.iterdir():
            assert stat.S_ISREG(path.lstat().st_mode)
            assert path.stat().st_mode & stat.S_IROTH

    def test_the_exported_model_predicts_what_it_was_trained_on(self, job: TrainingJob) -> None:
        job.prepare(labelled_csv(40), epochs="60", lr="0.01", lr_schedule="one-cycle")
        assert_succeeds(job)
        metadata, graph = artifact.load(job.model)
        rows = [line.split(",") for line in labelled_csv(40, seed=5).splitlines()]
        series = np.array([row[1:] for row in rows], dtype=np.float64)[:, None]
        (probabilities,) = onnxruntime.InferenceSession(graph).run(None, {"series": series})
        predicted = [metadata.classes[k] for k in probabilities.argmax(axis=1)]
        assert np.mean([a == row[0] for a, row in zip(predicted, rows, strict=True)]) >= 0.95


class TestBadData:
    def test_missing_channel(self, tmp_path: Path) -> None:
        job = TrainingJob(tmp_path)
        job.write("input/config/inputdataconfig.json", {"validation": {"TrainingInputMode": "File"}})
        assert_refused(job, "Channel training (or train) is missing; channels found: validation.")

    def test_empty_file(self, job: TrainingJob) -> None:
        assert_refused(job.prepare(""), "Channel training has no data")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,1,2\nb,3\n", "train.csv, row 2 has 1 value, but row 1 has 2 values"),
            ("a,1,2\nb,3,x\n", "train.csv, row 2, column 3 is 'x'; every value must be a finite number."),
            ("a,1,2\nb,NaN,2\n", "train.csv, row 2, column 2 is 'NaN'"),
            ("a,1,2\nb,,2\n", "train.csv, row 2, column 2 is empty"),
            (
                'a,"1,000",2\nb,"2,000",3\n',
                "train.csv, row 1, column 2 is '1,000'; every value must be a finite number.",
            ),
            ("a\nb\n", "train.csv, row 1 has a label and no values"),
            ("a,1\nb,2\n", "The training series have one value each"),
            ("label,t0,t1\na,1,2\nb,1,2\n", "train.csv, row 1 looks like a header"),
            ("a,1,2\na,3,4\n", "one class only ('a', 2 rows)"),
            ("a,1e308,-1e308\nb,1e308,1\n", "too large"),
        ],
    )
    def test_wrong_content(self, job: TrainingJob, text: str, message: str) -> None:
        assert_refused(job.prepare(text), message)

    def test_binary_file(self, job: TrainingJob) -> None:
        assert_refused(job.prepare(b"\x89PNG\r\n\x1a\n\x00\x00"), "train.csv, row 1 is not UTF-8 text")

    def test_validation_with_an_unknown_label(self, job: TrainingJob) -> None:
        job.write("input/data/validation/v.csv", labelled_csv(6, labels=("up", "sideways")))
        assert_refused(job, "v.csv, row 2, column 1: the training data has no label 'sideways'; it has 'down', 'up'.")

    def test_validation_of_another_length(self, job: TrainingJob) -> None:
        job.write("input/data/validation/v.csv", labelled_csv(6, length=9))
        assert_refused(
            job, "v.csv has series of 9 values, but the training data has series of 16; all must be of one length."
        )

    def test_too_large_without_scaling(self, job: TrainingJob) -> None:
        assert_refused(job.prepare("a,1e300,2\nb,3,4\n", scaling="none"), "too large for float32")


class TestBadSettings:
    def test_all_wrong_hyperparameters_at_once_before_any_data_is_read(self, tmp_path: Path) -> None:
        job = TrainingJob(tmp_path)  # without data
        job.write("input/config/hyperparameters.json", {"epochs": "0", "dropout": "1.5", "filters": "4", "lr": "fast"})
        assert_refused(
            job,
            "epochs=0 must be an integer from 1 to 20000.",
            "dropout=1.5 must be a number from 0.0 to 0.99.",
            "lr=fast must be a number",
            "filters is unknown; did you mean filters-",
        )

    def test_pipe_mode(self, job: TrainingJob) -> None:
        job.write("input/config/inputdataconfig.json", {"training": {"TrainingInputMode": "Pipe"}})
        assert_refused(job, "Channel training: input mode Pipe is not supported; use File or FastFile.")

    def test_content_type(self, job: TrainingJob) -> None:
        config = {"training": {"TrainingInputMode": "File", "ContentType": "application/x-parquet"}}
        job.write("input/config/inputdataconfig.json", config)
        assert_refused(job, "application/x-parquet is not supported; use text/csv or csv.")

    def test_several_machines(self, job: TrainingJob) -> None:
        job.write("input/config/resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
        assert_refused(job, "The job has 2 machines, but one machine is all that is supported.")

    def test_a_channel_of_another_name(self, job: TrainingJob) -> None:
        job.write("input/config/inputdataconfig.json", {"training": {}, "model": {}})
        assert_refused(job, "Channel model is unknown")

    def test_broken_hyperparameter_file(self, job: TrainingJob) -> None:
        job.write("input/config/hyperparameters.json", '{"epochs": 3')
        assert_refused(job, "hyperparameters.json cannot be read as JSON")

    def test_unwritable_model_folder(self, job: TrainingJob) -> None:
        job.write("model", "a file where a folder should be")
        assert_refused(job, f"The model folder {job.model} cannot be written to: File exists.")

    def test_a_failure_file_that_cannot_be_written(self, job: TrainingJob) -> None:
        job.prepare(epochs="0")
        job.write("output", "a file where a folder should be")
        result = job.run()
        assert result.code == UserError.exit_code
        assert "epochs=0 must be" in result.stderr

    def test_divergence(self, job: TrainingJob) -> None:
        huge = "a,3e38,-3e38,3e38,3e38\nb,-3e38,3e38,-3e38,-3e38\n"
        assert_refused(
            job.prepare(huge, scaling="none"),
            "Training diverged: the loss or the weights of epoch 1 are not finite numbers",
        )

    @pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--epochs", "3"], UserError.exit_code)])
    def test_arguments_are_explained(self, arguments: list[str], code: int) -> None:
        process = subprocess.run([PROGRAMS / "train", *arguments], capture_output=True, text=True, check=False)
        assert process.returncode == code
        assert "Usage: train" in process.stdout
        assert "kernel-size-3" in process.stdout


def test_a_full_disk_is_an_error(job: TrainingJob) -> None:
    """A model that does not fit is no model, and no success (T55)."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    job.model.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", job.model], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no file systems")
    try:
        result = job.run()
        assert result.code == UserError.exit_code
        assert "No space left on device" in job.failure.read_text()
        assert model_files(job) == []
    finally:
        subprocess.run(["umount", job.model], check=True)


def test_our_own_fault_has_another_exit_code_and_its_traceback_in_the_log_only(job: TrainingJob) -> None:
    job.write("broken/sklearn/__init__.py", "raise RuntimeError('a broken installation')")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(job.root / "broken")
    try:
        result = job.run()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    assert result.code == AlgorithmError.exit_code
    assert job.failure.read_text() == "AlgorithmError: RuntimeError: a broken installation\n"
    assert "Traceback" in result.stderr


class TestStop:
    """SIGTERM: stop at the next step, save what there is, exit 0 if that is a usable model (T61 to T63)."""

    @staticmethod
    def lines_until(process: "subprocess.Popen[str]", text: str) -> list[str]:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return lines
        raise AssertionError("".join(lines))

    @pytest.fixture
    def endless(self, job: TrainingJob) -> Iterator["subprocess.Popen[str]"]:
        process = job.prepare(epochs="20000").start()
        yield process
        process.kill()
        process.communicate()

    def test_in_mid_training_a_usable_model_is_saved(self, job: TrainingJob, endless: "subprocess.Popen[str]") -> None:
        self.lines_until(endless, "epoch: 3/")
        stopped = time.monotonic()
        endless.send_signal(signal.SIGTERM)
        result = finish(endless)
        assert time.monotonic() - stopped < 100
        assert result.code == 0, result.stderr
        assert "stop requested in epoch" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("saved: epoch ")
        assert artifact.load(job.model)[0].classes == ["down", "up"]
        assert not job.failure.exists()

    def test_before_the_first_step_nothing_is_half_written(
        self, job: TrainingJob, endless: "subprocess.Popen[str]"
    ) -> None:
        self.lines_until(endless, "versions: ")
        endless.send_signal(signal.SIGTERM)
        result = finish(endless)
        if result.code == 0:  # the first step was quicker than the signal
            artifact.load(job.model)
        else:
            assert result.code == 143
            assert "Stopped before the first training step" in job.failure.read_text()
            assert model_files(job) == []

    def test_during_start_up(self, job: TrainingJob, endless: "subprocess.Popen[str]") -> None:
        time.sleep(0.7)
        endless.send_signal(signal.SIGTERM)
        result = finish(endless)
        assert result.code in (143, -signal.SIGTERM)
        assert model_files(job) == []

    def test_a_kill_while_saving_leaves_the_earlier_model_whole(self, job: TrainingJob) -> None:
        assert_succeeds(job)
        before = artifact.load(job.model)
        process = job.prepare(seed="1").start()
        killer = threading.Timer(0.01, process.kill)
        self.lines_until(process, "export: ")
        killer.start()
        finish(process)
        after = artifact.load(job.model)
        assert after == before or after[0].hyperparameters["seed"] == 1
