"""One training job, written in all the ways of the platform and its SDKs: the model is always the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_fcn.container.hyperparameters import Hyperparameters
from tests.programs import (
    MODEL_FILES,
    SMALL,
    Result,
    TrainingJob,
    assert_succeeded,
    labelled_csv,
    offer_pipe,
    run_all,
    side_by_side,
)

ROWS = labelled_csv()
LINES = ROWS.splitlines(keepends=True)
VALID = labelled_csv(6, seed=1)
VALUES = {"lr": "1e-05", "batch-size": "10", "epochs": "3"}
Finished = dict[str, tuple[TrainingJob, Result]]


def write(job: TrainingJob, training: str = "training/train.csv", values: dict[str, str] = VALUES) -> None:
    job.write(f"input/data/{training}", ROWS)
    job.write("input/data/validation/valid.csv", VALID)
    job.write("input/config/hyperparameters.json", SMALL | values)


def write_plain(job: TrainingJob) -> None:
    """Data and hyperparameters only; the job was tried before, and failed."""
    write(job)
    job.write("output/failure", "of an earlier try")


def write_quoted(job: TrainingJob) -> None:
    """Quoted values, the hyperparameters that SDKs add, and channels as local mode declares them."""
    extra = {
        "_tuning_objective_metric": "valid_loss",
        "sagemaker_estimator_class_name": '"Estimator"',
        "sagemaker_estimator_module": '"sagemaker.estimator"',
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"s3://b/s.tar.gz"',
        "sagemaker_region": '"eu-west-1"',
        "sagemaker_container_log_level": "20",
        "sagemaker_job_name": '"job"',
        "sagemaker_enable_cloudwatch_metrics": "false",
        "sagemaker_s3_output": "null",
    }
    values = {name: json.dumps(value) for name, value in (SMALL | VALUES | {"lr": "0.00001"}).items()}
    write(job, "train/train.csv", values | {"seed": "None", "dropout": "null"} | extra)
    modes = {"TrainingInputMode": "File"}
    job.write("input/config/inputdataconfig.json", {"train": modes, "validation": modes})
    resources = {"current_host": "algo-1-ab3cd", "hosts": ["algo-1-ab3cd"], "network_interface_name": "ethwe"}
    job.write("input/config/resourceconfig.json", resources)


def write_other_numbers(job: TrainingJob) -> None:
    """Integers with a decimal point, FastFile, unknown files, and a machine with many properties."""
    extra = {"_tuning_objective_metric": '"valid_loss"', "sagemaker_job_name": "job", "sagemaker_new": "1"}
    write(job, values={"lr": "1.0E-5", "batch-size": "10.0", "epochs": "3.0", "seed": '"null"'} | extra)
    job.write(
        "input/config/inputdataconfig.json",
        {
            "training": {"TrainingInputMode": "FastFile", "ContentType": "csv", "RecordWrapperType": "None"},
            "validation": {"TrainingInputMode": "FastFile", "ContentType": "text/csv"},
        },
    )
    for name in ("init-config", "trainingjobconfig", "debughookconfig", "profilerconfig", "metric-definition-regex"):
        job.write(f"input/config/{name}.json", "not even JSON")
    for name in ("training-manifest", "train-manifest", "validation-manifest"):
        job.write(f"input/data/{name}", "{}")
    group = {"instance_group_name": "g", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]}
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
    more = {"current_instance_type": "ml.c5.xlarge", "current_group_name": "g", "instance_groups": [group]}
    job.write("input/config/resourceconfig.json", resources | more | {"topology": {"unheard": "of"}})


def write_dialect(job: TrainingJob) -> None:
    """A byte order mark, CRLF, blank lines, no last newline; in a sub-folder beside files that are not data."""
    write(job, "training/deep/er/train.csv")
    job.write("input/data/training/deep/er/train.csv", "\ufeff" + ROWS.replace("\n", "\r\n") + "\r\n \r\n\r\n")
    job.write("input/data/validation/valid.csv", VALID.rstrip("\n"))
    for name in ("_SUCCESS", ".hidden", ".ipynb_checkpoints/train.csv", "_temporary/part.csv"):
        job.write(f"input/data/training/{name}", "none,of,this,is,data")
    job.write("input/data/training/empty.csv", "")
    job.write(
        "input/config/inputdataconfig.json",
        {
            "training": {"TrainingInputMode": "File", "ContentType": "text/csv; label_size=1"},
            "validation": {"TrainingInputMode": "File", "ContentType": "TEXT/CSV; charset=utf-8"},
        },
    )


def write_two_files(job: TrainingJob) -> None:
    write(job)
    job.write("input/data/training/train.csv", "".join(LINES[:7]).rstrip("\n"))
    job.write("input/data/training/train2.csv", "".join(LINES[7:]))


def write_pipes(job: TrainingJob) -> None:
    modes = {"TrainingInputMode": "Pipe", "ContentType": "text/csv"}
    job.write("input/config/inputdataconfig.json", {"training": modes, "validation": modes})
    job.write("input/config/hyperparameters.json", SMALL | VALUES | {"checkpoint-epochs": "1"})
    for name, text in (("training", ROWS), ("validation", VALID)):
        for number in range(2):
            offer_pipe(job.root / "input" / "data" / f"{name}_{number}", text.encode(), delay=0.5 * number)


WAYS: dict[str, Callable[[TrainingJob], None]] = {
    "plain": write_plain,
    "quoted": write_quoted,
    "other numbers": write_other_numbers,
    "dialect": write_dialect,
    "two files": write_two_files,
    "pipes": write_pipes,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The job, written in each way and run."""
    jobs = {name: TrainingJob(tmp_path_factory.mktemp("way")) for name in WAYS}
    for name, prepare_as in WAYS.items():
        prepare_as(jobs[name])
    return dict(zip(jobs, zip(jobs.values(), run_all(jobs.values()), strict=True), strict=True))


def row(text: str, *ways: str) -> object:
    """A row of the checklist, and the ways that show it."""
    return pytest.param(ways, id=text.partition(":")[0], marks=pytest.mark.checklist(text))


@pytest.mark.parametrize(
    "ways",
    [
        row("15: an integer may be written 10, 10.0 or with quotes", "quoted", "other numbers"),
        row("16: a number may be written 1e-05, 0.00001 or 1.0E-5", "quoted", "other numbers"),
        row("17: None and null mean unset", "quoted", "other numbers"),
        row("18: `_tuning_objective_metric` and `sagemaker_*` are ignored, quoted or bare", "quoted", "other numbers"),
        row("21: channels may be declared by their TrainingInputMode only", "quoted"),
        row("22: no content type, csv, and text/csv with parameters in any case are CSV", "quoted", "dialect"),
        row("24: the training channel may be called training or train", "quoted"),
        row("25: manifest files and unknown files in input/config are ignored", "other numbers"),
        row("26: sub-folders are read; hidden files, `_SUCCESS` and empty files are ignored", "dialect"),
        row("27: CRLF, byte order mark, no last newline and blank lines are accepted", "dialect"),
        row("29: several files are one data set, also if the first has no last newline", "two files"),
        row("31: FastFile is read like File, and Pipe from the first pipe of a channel", "other numbers", "pipes"),
        row("33: resourceconfig.json may be missing, short, or have unknown fields", "quoted", "other numbers"),
        row("34: a network interface that does not exist is ignored", "quoted"),
    ],
)
def test_every_way_gives_the_same_model(finished: Finished, ways: tuple[str, ...]) -> None:
    plain, result = finished["plain"]
    assert_succeeded(plain, result)
    for way in ways:
        other, other_result = finished[way]
        assert_succeeded(other, other_result)
        assert other.read("weights.safetensors") == plain.read("weights.safetensors"), way
        assert other.read("model.onnx") == plain.read("model.onnx"), way


@pytest.mark.parametrize(
    ("way", "source"),
    [("plain", "1 file(s)"), ("two files", "2 file(s)"), ("pipes", "a pipe")],
)
def test_the_log_names_the_source_of_the_data(finished: Finished, way: str, source: str) -> None:
    assert f"training: 12 series of 16 values from {source}\n" in finished[way][1].stdout


@pytest.mark.checklist("36: the model folder holds plain files only, and no training data")
def test_the_model_folder(finished: Finished) -> None:
    for job, _ in finished.values():
        assert [path.name for path in sorted(job.model.rglob("*"))] == MODEL_FILES
        for path in job.model.iterdir():
            assert path.is_file()
            assert not path.is_symlink()
            assert LINES[0].split(",")[1].encode() not in path.read_bytes()


@pytest.mark.checklist("39: a job that succeeds leaves no failure file, not even that of an earlier try")
def test_no_failure_file(finished: Finished) -> None:
    for job, result in finished.values():
        assert_succeeded(job, result)
        assert not job.failure.exists()


@pytest.mark.checklist("47: without checkpointconfig.json, as in local mode, the job runs")
def test_without_a_checkpoint_configuration(finished: Finished) -> None:
    job, result = finished["plain"]
    assert not (job.root / "input/config/checkpointconfig.json").exists()
    assert_succeeded(job, result)


@pytest.mark.checklist("14: hyperparameters.json may be empty or missing; then the defaults are used")
def test_hyperparameters_may_be_missing(tmp_path: Path) -> None:
    jobs = [TrainingJob(tmp_path / str(number)).prepare() for number in range(2)]
    jobs[0].write("input/config/hyperparameters.json", {})
    (jobs[1].root / "input/config/hyperparameters.json").unlink()

    def stop_after_an_epoch(job: TrainingJob) -> Result:
        background = job.start()
        background.wait_for("epoch: 1/200, ")
        background.terminate()
        return background.finish()

    for job, result in zip(jobs, side_by_side(stop_after_an_epoch, jobs), strict=True):
        assert_succeeded(job, result)
        saved = json.loads(job.read("model.json"))["hyperparameters"]
        assert saved == Hyperparameters().with_schedule(12).model_dump(by_alias=True)
        assert "schedule: batch-size=16, epochs=200, 200 steps; batch-size and epochs chosen for 12 " in result.stdout
