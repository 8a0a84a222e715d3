"""`train` as a black box: the platform's rules for training (T…), metrics (M…), and what bad input is told."""

import json
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.metrics import METRICS
from tests.contract.conftest import Mount
from tests.programs import (
    PROGRAMS,
    Background,
    Result,
    TrainingJob,
    assert_all_refused,
    assert_refused,
    assert_succeeded,
    assert_succeeds,
    assert_was_refused,
    labelled_csv,
    run_all,
)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path).prepare()


def seconds_of_files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


class Finished(NamedTuple):
    job: TrainingJob
    result: Result
    input_was_written_to: bool


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    job = TrainingJob(tmp_path_factory.mktemp("ml")).prepare(validation=labelled_csv(6, seed=1))
    job.write("output/failure", "left behind by an earlier run")
    before = seconds_of_files(job.root / "input")
    result = assert_succeeds(job)
    return Finished(job, result, seconds_of_files(job.root / "input") != before)


class TestAGoodJob:
    """One job with validation data, and what is true of it."""

    @pytest.mark.checklist("50: metric lines have no tabs or escapes; 51: each regex finds its own metric only")
    def test_metric_lines(self, finished: Finished) -> None:
        result = finished.result
        lines = result.metric_lines()
        assert len(lines) == 3 + 1  # one an epoch, one for the model that was saved
        for metric in METRICS:
            for line in lines:
                (text,) = re.findall(metric.regex, line)
                float(text)
        assert not re.search(r"[\t\r\x1b]", result.stdout)
        assert lines[-1] == result.stdout.splitlines()[-1]
        saved = json.loads(finished.job.read("model.json"))
        assert set(saved["metrics"]) == {metric.name for metric in METRICS}
        for name, value in saved["metrics"].items():
            assert f"{name}: {value:.6f}" in lines[-1]

    def test_the_first_lines_say_device_precision_and_versions(self, finished: Finished) -> None:
        lines = finished.result.stdout.splitlines()
        assert len(lines) == 9 + 3 + 6  # before, in and after the epochs; nothing of a library's own
        assert re.search(r"torch \d", lines[0])
        assert re.search(r"^device: (CPU|\d+ GPU)", lines[1])
        assert re.search(r"^precision: (bfloat16|float32)", lines[2])
        assert lines[4:7] == [
            "training: 12 series of 16 values from 1 file(s)",
            "validation: 6 series of 16 values from 1 file(s)",
            "task: binary; classes: 'down': 6, 'up': 6",
        ]
        assert lines[7] == "schedule: batch-size=16, epochs=3, 3 steps; batch-size chosen for 12 training series"

    def test_metadata(self, finished: Finished) -> None:
        metadata, graph = artifact.load(finished.job.model)
        assert metadata.problem.task == "binary"
        assert metadata.problem.classes == ("down", "up")
        assert not metadata.problem.has_header
        assert metadata.problem.length == 16
        assert metadata.hyperparameters["epochs"] == 3
        assert metadata.hyperparameters["lr-schedule"] == "one-cycle"
        assert metadata.hyperparameters["batch-size"] == 16  # resolved from 0
        (given,) = onnxruntime.InferenceSession(graph).get_inputs()
        assert (given.name, given.type, given.shape[1:]) == ("series", "tensor(double)", [1, 16])

    def test_the_report_lies_beside_the_model(self, finished: Finished) -> None:
        folder = finished.job.root / "output/data"
        assert sorted(path.name for path in folder.iterdir()) == ["curves.csv", "metrics.json", "report.html"]
        saved = json.loads(finished.job.read("model.json"))
        found = json.loads((folder / "metrics.json").read_text())
        assert found["metrics"] == pytest.approx(saved["metrics"])
        assert [row["class"] for row in found["classes"]] == ["down", "up"]
        assert (found["evaluated_on"]["data"], found["evaluated_on"]["rows"]) == ("validation", 6)
        rows = (folder / "curves.csv").read_text().splitlines()
        assert len(rows) == 1 + 3
        assert rows[0].startswith("round,epoch,train_loss,train_accuracy,valid_loss")
        assert len(saved["curves"]) == 3
        assert saved["best_epoch"][0] in (1, 2, 3)
        assert "class activation map" in (folder / "report.html").read_text().lower()

    def test_input_may_be_read_only(self, finished: Finished) -> None:
        assert not finished.input_was_written_to

    def test_model_files_are_plain_and_world_readable(self, finished: Finished) -> None:
        for path in finished.job.model.iterdir():
            assert stat.S_ISREG(path.lstat().st_mode)
            assert path.stat().st_mode & stat.S_IROTH

    def test_no_checkpoint_is_left_behind(self, finished: Finished) -> None:
        checkpoints = finished.job.checkpoints
        assert not checkpoints.exists() or list(checkpoints.iterdir()) == []

    def test_another_seed_gives_another_model(self, finished: Finished, tmp_path: Path) -> None:
        other = TrainingJob(tmp_path).prepare(validation=labelled_csv(6, seed=1), seed="1")
        assert_succeeds(other)
        assert other.read("model.onnx") != finished.job.read("model.onnx")
        assert other.read("weights.safetensors") != finished.job.read("weights.safetensors")


class TestGoodJobs:
    def test_labels_are_kept_exactly_as_written(self, job: TrainingJob) -> None:
        text = labelled_csv(labels=("1.0", "01", " x", "ä")).replace(" x,", '" x, y",')
        result = assert_succeeds(job.prepare(text, validation=text))
        metadata, _ = artifact.load(job.model)
        assert (metadata.problem.task, metadata.problem.classes) == ("multiclass", (" x, y", "01", "1.0", "ä"))
        for line in result.metric_lines():  # all but the area under the curve, which several classes do not have
            found = [metric.name for metric in METRICS if re.search(metric.regex, line)]
            assert found == [metric.name for metric in METRICS if metric.name != "valid_auc"]

    def test_the_exported_model_predicts_what_it_was_trained_on(self, tmp_path: Path) -> None:
        """Also where a large offset leaves few digits for the shape."""
        learning = {"epochs": "60", "lr": "0.01", "lr_schedule": "one-cycle"}
        jobs = [TrainingJob(tmp_path / "plain").prepare(labelled_csv(40), **learning)]
        rows = [line.split(",") for line in labelled_csv(40).splitlines()]
        shifted = "\n".join(",".join([row[0], *(repr(float(cell) + 1e7) for cell in row[1:])]) for row in rows)
        jobs += [
            TrainingJob(tmp_path / kind).prepare(shifted, scaling=kind, **learning) for kind in ("dataset", "series")
        ]
        for job, result, offset in zip(jobs, run_all(jobs), (0.0, 1e7, 1e7), strict=True):
            assert_succeeded(job, result)
            assert "train_accuracy: 1.000000" in result.metric_lines()[-1]
            metadata, graph = artifact.load(job.model)
            others = [line.split(",") for line in labelled_csv(40, seed=5).splitlines()]
            series = np.array([row[1:] for row in others], dtype=np.float64)[:, None] + offset
            (probabilities,) = onnxruntime.InferenceSession(graph).run(["probabilities"], {"series": series})
            predicted = [metadata.problem.classes[k] for k in probabilities.argmax(axis=1)]
            assert np.mean([a == row[0] for a, row in zip(predicted, others, strict=True)]) >= 0.95

    def test_hyperparameters(self, tmp_path: Path) -> None:
        jobs = [
            TrainingJob(tmp_path / str(number)).prepare(**hyperparameters)
            for number, hyperparameters in enumerate(
                [
                    {"num_layers": "3", "class_weight": "none", "precision": "float32"},
                    {"lr_schedule": "constant", "precision": "bfloat16", "scaling": "none"},
                    {"lr_schedule": "one-cycle", "epochs": "1", "batch_size": "5", "kernel_size_2": "40"},
                ]
            )
        ]
        for job, result in zip(jobs, run_all(jobs), strict=True):
            assert_succeeded(job, result)


class TestLengthOfTraining:
    """What ends an epoch's round, and what the best epoch is chosen by."""

    def test_fine_tuning_rounds_halve_lr_and_batch_size(self, job: TrainingJob) -> None:
        result = assert_succeeds(job.prepare(fine_tune_rounds="2", lr="0.01", batch_size="7", lr_schedule="constant"))
        assert "fine-tuning round 1: lr 0.005, batch size 3\n" in result.stdout
        assert "fine-tuning round 2: lr 0.0025, batch size 1\n" in result.stdout
        epochs = re.findall(r"^((?:round: \d, )?epoch: \d/3), .*lr: ([0-9.]+)", result.stdout, re.MULTILINE)
        assert epochs == [
            *((f"epoch: {k}/3", "0.010000") for k in (1, 2, 3)),
            *((f"round: 1, epoch: {k}/3", "0.005000") for k in (1, 2, 3)),
            *((f"round: 2, epoch: {k}/3", "0.002500") for k in (1, 2, 3)),
        ]
        best = min(result.metric_lines()[:-1], key=lambda line: float(re.findall(METRICS[0].regex, line)[0]))
        place = re.match(r"(?:round: (\d), )?epoch: (\d)/3", best)
        assert place is not None
        words = f"epoch {place[2]}" + (f" of round {place[1]}" if place[1] else "")
        assert f"\nsaved: {words}, " in result.stdout

    def test_early_stopping_counts_epochs_without_a_lower_validation_loss(self, job: TrainingJob) -> None:
        job.prepare(validation=labelled_csv(6, labels=("down", "up")), epochs="20000", early_stopping_patience="3")
        job.set(epochs="20000", early_stopping_patience="3", lr="0.02")  # what is learned is wrong in validation
        result = assert_succeeds(job)
        assert "early stopping: the validation loss has not decreased for 3 epochs\n" in result.stdout
        losses = [float(re.findall(METRICS[2].regex, line)[0]) for line in result.metric_lines()[:-1]]
        best = losses.index(min(losses))
        assert len(losses) == best + 1 + 3
        assert f"\nsaved: epoch {best + 1}, " in result.stdout

    def test_validation_fraction_holds_out_some_of_each_class(self, job: TrainingJob) -> None:
        labels = ("a", "b", "a", "a")
        result = assert_succeeds(job.prepare(labelled_csv(40, labels=labels), validation_fraction="0.2"))
        assert "validation: 8 of 40 series held out\n" in result.stdout
        metrics = json.loads(job.read("model.json"))["metrics"]
        assert all("valid_loss: " in line for line in result.metric_lines())
        assert metrics["train_accuracy"] * 32 == pytest.approx(round(metrics["train_accuracy"] * 32))
        assert metrics["valid_accuracy"] * 8 == pytest.approx(round(metrics["valid_accuracy"] * 8))
        # 2 of 10 series of b, 6 of 30 of a: any balanced accuracy is a mean of sixths and halves.
        assert metrics["valid_balanced_accuracy"] * 12 == pytest.approx(round(metrics["valid_balanced_accuracy"] * 12))

    def test_validation_fraction_has_limits(self, tmp_path: Path) -> None:
        few, both = TrainingJob(tmp_path / "few"), TrainingJob(tmp_path / "both")
        assert_all_refused(
            [
                (
                    few.prepare(validation_fraction="0.01"),
                    "validation-fraction=0.01 of 12 series is less than one series of a class that has at least two.",
                ),
                (
                    both.prepare(validation=labelled_csv(6), validation_fraction="0.2"),
                    "validation-fraction must be 0 if the job has a validation channel.",
                ),
            ]
        )


class TestBadData:
    def test_empty_file(self, job: TrainingJob) -> None:
        assert_refused(job.prepare(""), "Channel training has no data")

    @pytest.mark.checklist("32: NaN, empty cells and text are refused by file, row and column")
    def test_wrong_content(self, tmp_path: Path) -> None:
        cases: list[tuple[str | bytes, str]] = [
            (
                "a,1,2\nb,3\n",
                "train.csv, row 2 has 1 value, but row 1 has 2 values; all series must have the same length. "
                "Set length-policy=pad or resample to allow different lengths.",
            ),
            (
                'a,"1,000",2\nb,"2,000",3\n',
                "train.csv, row 1, column 2 is '1,000'; every value must be a finite number.",
            ),
            ("a,1,2\nb,NaN,2\n", "train.csv, row 2, column 2 is 'NaN'"),
            ("a,1,2\nb,,2\n", "train.csv, row 2, column 2 is empty"),
            ("label,t0,t1\na,1,2\nb,1,2\n", "train.csv, row 1 looks like a header ('t0,t1')"),
            ("a\nb\n", "train.csv, row 1 has a label and no values"),
            ("a,1\nb,2\n", "The training series have one value each"),
            ("a,1,2\na,3,4\n", "only one class ('a', 2 rows)"),
            ("a,1e308,-1e308\nb,1e308,1\n", "too large"),
            (b"\x89PNG\r\n\x1a\n\x00\x00", "train.csv, row 1 is not UTF-8 text"),
        ]
        assert_all_refused(
            (TrainingJob(tmp_path / str(number)).prepare(text), message) for number, (text, message) in enumerate(cases)
        )

    def test_validation_that_does_not_fit(self, tmp_path: Path) -> None:
        label, length = TrainingJob(tmp_path / "label"), TrainingJob(tmp_path / "length")
        assert_all_refused(
            [
                (
                    label.prepare(validation=labelled_csv(6, labels=("up", "sideways"))),
                    "valid.csv, row 2, column 1: the label 'sideways' is not in the training data, whose labels are "
                    "'down', 'up'.",
                ),
                (
                    length.prepare(validation=labelled_csv(6, length=9)),
                    "valid.csv has series of 9 values, but the training data has series of 16; all series must have "
                    "the same length. Set length-policy=pad or resample to allow different lengths.",
                ),
            ]
        )

    def test_too_large_without_scaling(self, job: TrainingJob) -> None:
        assert_refused(job.prepare("a,1e300,2\nb,3,4\n", scaling="none"), "too large for float32")


class TestBadSettings:
    def test_a_channel_of_another_name(self, job: TrainingJob) -> None:
        job.write("input/config/inputdataconfig.json", {"training": {}, "test": {}})
        assert_refused(job, "Channel test is unknown; a job can have the channels training, train, validation, model.")

    @pytest.mark.checklist("30: a missing and an empty channel are refused by name")
    def test_missing_and_empty_channels(self, tmp_path: Path) -> None:
        missing, empty = TrainingJob(tmp_path / "missing"), TrainingJob(tmp_path / "empty")
        missing.write("input/config/inputdataconfig.json", {"validation": {"TrainingInputMode": "File"}})
        (empty.root / "input/data/train").mkdir(parents=True)
        folder = empty.root / "input/data/train"
        assert_refused(missing, "Channel training (or train) is missing; channels found: validation.")
        assert_refused(empty, f"Channel train has no data: {folder} contains no files with content.")

    @pytest.mark.checklist("23: another content type or input mode is refused, and the supported ones are named")
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"ContentType": "application/x-recordio-protobuf"},
                "content type application/x-recordio-protobuf is not supported; use te",
            ),
            ({"TrainingInputMode": "Stream"}, "input mode Stream is not supported; use File or FastFile or Pipe."),
        ],
    )
    def test_an_unsupported_channel(self, job: TrainingJob, settings: dict[str, str], message: str) -> None:
        job.write("input/config/inputdataconfig.json", {"training": settings})
        assert_refused(job, f"Channel training: {message}")

    @pytest.mark.checklist("20: wrong hyperparameters are refused with name, value and range, before data is read")
    def test_wrong_hyperparameters(self, tmp_path: Path) -> None:
        job = TrainingJob(tmp_path)  # without data
        job.write("input/config/hyperparameters.json", {"epochs": "-1", "dropout": "1.5", "filters": "4", "lr": "fast"})
        assert_refused(
            job,
            "epochs=-1 must be an integer from 0 to 20000.",
            "dropout=1.5 must be a number from 0.0 to 0.99.",
            "lr=fast must be a number from 1e-07 to 1.0.",
            "filters is unknown; did you mean filters-",
        )

    @pytest.mark.checklist("38: a failed job has another exit code than 0; the failure file is short UTF-8 text")
    def test_the_failure_file(self, job: TrainingJob) -> None:
        result = job.prepare("ä" * 5000 + ",1,2\nb,1,ö\n").run()  # as a program, for its exit code
        assert result.code == 2
        text = job.failure.read_bytes().decode("utf-8")
        assert re.match(r"UserError: .*train\.csv, row 2, column 3 is 'ö'; every value must", text[:1024])

    @pytest.mark.checklist("40: without a place for the failure file, the cause is on stderr")
    def test_an_output_folder_that_cannot_be_written_to(self, tmp_path: Path, mount: Mount) -> None:
        file, read_only = (TrainingJob(tmp_path / name).prepare(epochs="-1") for name in ("file", "read"))
        file.write("output", "a file where a folder should be")
        mount(read_only.root / "output", "ro")
        for job in (file, read_only):
            result = job.run_here()
            assert (result.code, "epochs=-1 must be" in result.stderr) == (2, True)

    @pytest.mark.checklist("41: a model that does not fit on the disk is no success")
    def test_a_full_disk(self, job: TrainingJob, mount: Mount) -> None:
        mount(job.model, "size=4k")
        assert_was_refused(job, job.run(), "cannot be written: No space left on device")
        assert list(job.model.iterdir()) == []

    def test_broken_configuration_files(self, tmp_path: Path) -> None:
        jobs = [TrainingJob(tmp_path / str(number)).prepare() for number in range(2)]
        jobs[0].write("input/config/hyperparameters.json", '{"epochs": 3')
        jobs[1].write("input/config/checkpointconfig.json", "not even JSON")
        messages = ["hyperparameters.json cannot be read as JSON", "checkpointconfig.json cannot be read as JSON"]
        assert_all_refused(zip(jobs, messages, strict=True))

    def test_unwritable_model_folder(self, job: TrainingJob) -> None:
        job.write("model", "a file where a folder should be")
        assert_refused(job, f"The model folder {job.model} cannot be written to: File exists.")

    def test_divergence(self, job: TrainingJob) -> None:
        huge = "a,3e38,-3e38,3e38,3e38\nb,-3e38,3e38,-3e38,-3e38\n"
        assert_refused(
            job.prepare(huge, scaling="none"),
            "Training diverged: the loss or the weights are not finite in epoch 1",
        )

    @pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--epochs", "3"], UserError.exit_code)])
    def test_arguments_are_explained(self, arguments: list[str], code: int) -> None:
        process = subprocess.run([PROGRAMS / "train", *arguments], capture_output=True, text=True, check=False)
        assert process.returncode == code
        assert "Usage: train" in process.stdout
        assert "kernel-size-3" in process.stdout


def test_our_own_fault_has_another_exit_code_and_its_traceback_in_the_log_only(job: TrainingJob) -> None:
    job.write("broken/safetensors/__init__.py", "raise RuntimeError('a broken installation')")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(job.root / "broken")
    try:
        result = job.run(program=True)
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    assert result.code == AlgorithmError.exit_code
    assert job.failure.read_text() == "AlgorithmError: RuntimeError: a broken installation\n"
    assert "Traceback" in result.stderr


class TestStop:
    """SIGTERM: stop at the next step, save what there is, exit 0 if that is a usable model (T61 to T63)."""

    @pytest.fixture
    def endless(self, job: TrainingJob) -> Iterator[Background]:
        background = job.prepare(epochs="20000").start(program=True)
        yield background
        background.kill()
        background.finish()

    def test_in_mid_training_a_usable_model_is_saved(self, job: TrainingJob, endless: Background) -> None:
        endless.wait_for("epoch: 3/")
        stopped = time.monotonic()
        endless.terminate()
        result = endless.finish()
        assert time.monotonic() - stopped < 100
        assert_succeeded(job, result)
        assert "stop requested in epoch" in result.stdout
        assert result.stdout.splitlines()[-1].startswith("saved: epoch ")
        assert artifact.load(job.model)[0].problem.classes == ("down", "up")

    def test_before_the_first_step_nothing_is_written(self, job: TrainingJob) -> None:
        # The job waits for a pipe that never appears, so the signal always comes before the first step.
        job.write("input/config/inputdataconfig.json", {"training": {"TrainingInputMode": "Pipe"}})
        background = job.prepare(epochs="20000").start(program=True)
        background.wait_for("hyperparameters: ")
        background.terminate()
        assert background.finish().code == 143
        assert "Stopped before the first training step" in job.failure.read_text()
        assert job.files() == []

    def test_a_kill_while_saving_leaves_the_earlier_model_or_the_new_one_or_none(self, job: TrainingJob) -> None:
        """Between the renaming of two files, there is none: the mixture of both is refused."""
        assert_succeeds(job)
        before = artifact.load(job.model)
        background = job.prepare(seed="1").start()
        background.wait_for("export: ")
        threading.Timer(0.01, background.kill).start()
        background.finish()
        try:
            after = artifact.load(job.model)
        except UserError as error:
            assert "its checksum differs" in str(error)  # noqa: PT017 - it is raised if the kill came at that moment
        else:
            assert after == before or after[0].hyperparameters["seed"] == 1
