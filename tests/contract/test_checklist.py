"""What the platform asks of a training container, row by row; `python -m tests.checklist` prints the table.

Rows that need a container are in `tests/images/test_checklist.py`. A number is kept for ever.
"""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.metrics import METRICS
from tests.contract.conftest import Mount, stop_in_training
from tests.contract.test_continuing import member, pack, pack_strange
from tests.programs import (
    MODEL_FILES,
    SMALL,
    Result,
    TrainingJob,
    assert_all_refused,
    assert_refused,
    assert_succeeded,
    assert_was_refused,
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
    """No more than there must be: data and hyperparameters. It is the second try."""
    write(job)
    job.write("output/failure", "of an earlier try")


def write_quoted(job: TrainingJob) -> None:
    """Every value with quotes of its own, and all that SDKs add; channels as local mode declares them."""
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
    """Integers with a decimal point; FastFile; strangers everywhere; a machine with many properties."""
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
    """A byte order mark, CRLF, blank lines, no last newline; in a sub-folder beside what is no data."""
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
    """One and the same job, written in different ways."""
    jobs = {name: TrainingJob(tmp_path_factory.mktemp("way")) for name in WAYS}
    for name, prepare_as in WAYS.items():
        prepare_as(jobs[name])
    return dict(zip(jobs, zip(jobs.values(), run_all(jobs.values()), strict=True), strict=True))


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path / "ml").prepare()


def assert_same(finished: Finished, *ways: str) -> None:
    """Jobs written in these ways end as the plain one does, to the last bit."""
    plain, result = finished["plain"]
    assert_succeeded(plain, result)
    for way in ways:
        other, other_result = finished[way]
        assert_succeeded(other, other_result)
        assert other.read("weights.safetensors") == plain.read("weights.safetensors"), way
        assert other.read("model.onnx") == plain.read("model.onnx"), way


def assert_refused_for(tmp_path: Path, cases: dict[str, str]) -> None:
    """Training data that is refused, each with its message."""
    jobs = [TrainingJob(tmp_path / str(number)).prepare(text) for number, text in enumerate(cases)]
    assert_all_refused(zip(jobs, cases.values(), strict=True))


def metric_values(result: Result, name: str) -> list[str]:
    (metric,) = (metric for metric in METRICS if metric.name == name)
    return re.findall(metric.regex, result.stdout)


# Configuration and data


def test_row_14_hyperparameters_may_be_empty_or_missing(tmp_path: Path) -> None:
    """With `{}` or without the file of hyperparameters, the defaults are used."""
    jobs = [TrainingJob(tmp_path / str(number)).prepare() for number in range(2)]
    jobs[0].write("input/config/hyperparameters.json", {})
    (jobs[1].root / "input/config/hyperparameters.json").unlink()

    def stop_after_an_epoch(job: TrainingJob) -> Result:
        background = job.start()
        background.wait_for("epoch: 1/2000, ")
        background.terminate()
        return background.finish()

    for job, result in zip(jobs, side_by_side(stop_after_an_epoch, jobs), strict=True):
        assert_succeeded(job, result)
        saved = json.loads(job.read("model.json"))["hyperparameters"]
        assert saved == Hyperparameters().model_dump(by_alias=True)


def test_row_15_encodings_of_an_integer(finished: Finished) -> None:
    """10, "10" in quotes and 10.0 give the same run."""
    assert_same(finished, "quoted", "other numbers")


def test_row_16_encodings_of_a_number(finished: Finished) -> None:
    """1e-05, 0.00001 and 1.0E-5 give the same run."""
    assert_same(finished, "quoted", "other numbers")
    assert json.loads(finished["quoted"][0].read("model.json"))["hyperparameters"]["lr"] == 1e-05


def test_row_17_booleans_and_unset_values(finished: Finished) -> None:
    """True, true, "true" and 1 mean the same (no hyperparameter is one yet); None and null mean unset."""
    assert not [name for name, info in Hyperparameters.model_fields.items() if info.annotation is bool]
    assert_same(finished, "quoted", "other numbers")


def test_row_18_keys_that_platform_and_sdks_add(finished: Finished) -> None:
    """`_tuning_objective_metric` and `sagemaker_*` are accepted, quoted or bare."""
    assert_same(finished, "quoted", "other numbers")


def test_row_19_an_unknown_hyperparameter(job: TrainingJob) -> None:
    """An unknown key is refused by name in the failure file."""
    assert_refused(job.set(filters="4"), "filters is unknown; did you mean filters-")


def test_row_20_wrong_values(tmp_path: Path) -> None:
    """Values out of range or of the wrong type are refused with name, value and range, before any data is read."""
    job = TrainingJob(tmp_path)  # without data
    job.write("input/config/hyperparameters.json", {"epochs": "0", "dropout": "1.5", "filters": "4", "lr": "fast"})
    assert_refused(
        job,
        "epochs=0 must be an integer from 1 to 20000.",
        "dropout=1.5 must be a number from 0.0 to 0.99.",
        "lr=fast must be a number from 1e-07 to 1.0.",
        "filters is unknown; did you mean filters-",
    )


def test_row_21_channels_with_an_input_mode_only(finished: Finished) -> None:
    """Channels of which nothing but TrainingInputMode is said are read, as in local mode."""
    assert_same(finished, "quoted")
    assert "validation: 6 series" in finished["quoted"][1].stdout


def test_row_22_content_types(finished: Finished) -> None:
    """No content type, csv, text/csv with or without parameters, in any case: all are CSV."""
    assert_same(finished, "quoted", "other numbers", "dialect")


def test_row_23_an_unsupported_content_type(job: TrainingJob) -> None:
    """Another content type is refused, and the text names the supported ones."""
    config = {"training": {"TrainingInputMode": "File", "ContentType": "application/x-parquet"}}
    job.write("input/config/inputdataconfig.json", config)
    assert_refused(job, "Channel training: content type application/x-parquet is not supported; use text/csv or csv.")


def test_row_24_names_of_the_training_channel(finished: Finished) -> None:
    """The channel may be called training or train."""
    assert (finished["quoted"][0].root / "input/data/train").is_dir()
    assert_same(finished, "quoted")


def test_row_25_strangers(finished: Finished) -> None:
    """Manifest files beside the channels and unknown files in input/config are ignored."""
    assert_same(finished, "other numbers")


def test_row_26_sub_folders_and_markers(finished: Finished) -> None:
    """CSV files in sub-folders are read; hidden files, `_SUCCESS` and empty files are skipped."""
    assert_same(finished, "dialect")
    assert "training: 12 series of 16 values from 1 file(s)" in finished["dialect"][1].stdout


def test_row_27_dialects_of_csv(finished: Finished) -> None:
    """CRLF, byte order mark, no last newline, trailing blank lines: the same model as of the plain file."""
    assert_same(finished, "dialect")


def test_row_28_header_rows(tmp_path: Path) -> None:
    """A header is read if its names start with y and x, else refused; it is never trained on."""
    job = TrainingJob(tmp_path / "good").prepare("y,x0,x1\n0,1,2\n1,2,1\n0,1,3\n1,3,1\n", epochs="1")
    (result,) = run_all([job])
    assert_succeeded(job, result)
    assert "training: 4 series of 2 values" in result.stdout
    assert_refused_for(
        tmp_path,
        {
            "label,t0,t1\na,1,2\nb,1,2\n": "train.csv, row 1 looks like a header ('t0,t1')",
            "y,t0,t1\n0,1,2\n1,1,2\n": "train.csv, row 1 looks like a header ('t0,t1')",
        },
    )


def test_row_29_two_files(finished: Finished) -> None:
    """Two files, the first without a last newline, count as all their rows; the model is that of one file."""
    assert "training: 12 series of 16 values from 2 file(s)" in finished["two files"][1].stdout
    assert_same(finished, "two files")


def test_row_30_missing_and_empty_channels(tmp_path: Path) -> None:
    """A missing required channel and an empty one end the job; the failure names the channel and those found."""
    missing, empty = TrainingJob(tmp_path / "missing"), TrainingJob(tmp_path / "empty")
    missing.write("input/config/inputdataconfig.json", {"validation": {"TrainingInputMode": "File"}})
    (empty.root / "input/data/train").mkdir(parents=True)
    assert_all_refused(
        [
            (missing, "Channel training (or train) is missing; channels found: validation."),
            (empty, f"Channel train has no data: {empty.root / 'input/data/train'} contains no files with content."),
        ]
    )


def test_row_31_input_modes(finished: Finished, tmp_path: Path) -> None:
    """FastFile is as File; Pipe reads the first pipe of each channel; any other is refused."""
    assert_same(finished, "other numbers", "pipes")
    assert "training: 12 series of 16 values from a pipe" in finished["pipes"][1].stdout
    job = TrainingJob(tmp_path).prepare()
    job.write("input/config/inputdataconfig.json", {"training": {"TrainingInputMode": "Stream"}})
    assert_refused(job, "Channel training: input mode Stream is not supported; use File or FastFile or Pipe.")


def test_row_32_symbols_in_the_data(tmp_path: Path) -> None:
    """NaN, an empty cell, or text in a value's place are refused by file, row and column."""
    assert_refused_for(
        tmp_path,
        {
            "a,1,2\nb,NaN,2\n": "train.csv, row 2, column 2 is 'NaN'",
            "a,1,2\nb,,2\n": "train.csv, row 2, column 2 is empty",
            "a,1,2\nb,3,x\n": "train.csv, row 2, column 3 is 'x'; every value must be a finite number.",
        },
    )


def test_row_33_descriptions_of_the_machine(finished: Finished) -> None:
    """resourceconfig.json may be missing, say the least, or say more than is known."""
    assert not (finished["plain"][0].root / "input/config/resourceconfig.json").exists()
    assert_same(finished, "quoted", "other numbers")


def test_row_34_a_network_interface_that_is_not_there(finished: Finished) -> None:
    """The interface `ethwe`, which local mode names and the container does not have, does no harm."""
    assert "ethwe" not in [path.name for path in Path("/sys/class/net").iterdir()]
    assert_same(finished, "quoted")


# Results, failure, stop


def test_row_36_the_model_folder(finished: Finished) -> None:
    """It holds no links, no checkpoints, no training data: three plain files."""
    for job, _ in finished.values():
        assert [path.name for path in sorted(job.model.rglob("*"))] == MODEL_FILES
        for path in job.model.iterdir():
            assert path.is_file()
            assert not path.is_symlink()
            assert LINES[0].split(",")[1].encode() not in path.read_bytes()


def test_row_38_the_failure_file(job: TrainingJob) -> None:
    """A job that fails exits with another code than 0; the failure file is UTF-8, its cause within 1024 characters."""
    job.prepare("ä" * 5000 + ",1,2\nb,1,ö\n")
    result = job.run()
    assert result.code == 2
    text = job.failure.read_bytes().decode("utf-8")
    assert re.match(
        r"UserError: .*train\.csv, row 2, column 3 is 'ö'; every value must be a finite number\.", text[:1024]
    )


def test_row_39_no_failure_file_after_success(finished: Finished) -> None:
    """A job that succeeds leaves no failure file, not even that of an earlier try."""
    for job, result in finished.values():
        assert_succeeded(job, result)
        assert not job.failure.exists()


def test_row_40_an_output_folder_that_cannot_be_written_to(tmp_path: Path, mount: Mount) -> None:
    """Without a place for the failure file, a job still fails with its cause on stderr."""
    missing, file, read_only = (TrainingJob(tmp_path / name).prepare(epochs="0") for name in ("no", "file", "read"))
    file.write("output", "a file where a folder should be")
    results = run_all((missing, file))
    assert_was_refused(missing, results[0], "epochs=0 must be")
    assert (results[1].code, "epochs=0 must be" in results[1].stderr) == (2, True)
    mount(read_only.root / "output", "ro")
    result = read_only.run()
    assert (result.code, "epochs=0 must be" in result.stderr) == (2, True)


def test_row_41_a_full_disk(job: TrainingJob, mount: Mount) -> None:
    """A model that does not fit is no model, and no success."""
    mount(job.model, "size=8k")
    assert_refused(job, "The model cannot be written to ", "No space left on device")
    assert list(job.model.iterdir()) == []


# Checkpoints


def test_row_45_another_place_for_checkpoints(stopped: TrainingJob, tmp_path: Path) -> None:
    """The LocalPath in checkpointconfig.json is where checkpoints are read from and written to."""
    job = stopped.copy(tmp_path / "ml")
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    job.checkpoints.rename(elsewhere)
    job.write("input/config/checkpointconfig.json", {"S3Uri": "s3://bucket/prefix", "LocalPath": str(elsewhere)})
    before = sorted(path.name for path in elsewhere.iterdir())
    (result,) = side_by_side(stop_in_training, [job])
    assert re.search(r"^resumed: epoch \d+, step \d$", result.stdout, re.MULTILINE)
    after = sorted(path.name for path in elsewhere.iterdir())
    assert len(after) == 2
    assert after[0] > before[-1]
    assert not job.checkpoints.exists()


def test_row_46_damaged_and_strange_checkpoints(stopped: TrainingJob, tmp_path: Path) -> None:
    """A truncated newest checkpoint is passed over for the one before; the platform's marker files are ignored."""
    job = stopped.copy(tmp_path / "ml")
    older, newest = sorted(job.checkpoints.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    good = older.read_bytes()
    for ending in ("uploading", "uploaded", "ignore"):
        for name in ("x", "lstm-fcn-round99-epoch99999-step00000000.safetensors"):
            (job.checkpoints / f"{name}.sagemaker-{ending}").write_bytes(good)
    (job.checkpoints / "x.safetensors").write_bytes(b"of somebody else")
    (result,) = run_all([job])
    assert_succeeded(job, result)
    assert f"WARNING: checkpoint {newest} is damaged" in result.stdout
    epoch = int(re.findall(r"epoch(\d{5})", older.name)[0])
    assert f"\nresumed: epoch {epoch}, step " in result.stdout
    left = {path.name for path in job.checkpoints.iterdir()}
    assert {"x.safetensors", "x.sagemaker-uploading", "x.sagemaker-uploaded", "x.sagemaker-ignore"} <= left


def test_row_47_without_a_folder_for_checkpoints(finished: Finished) -> None:
    """Where the platform gives no folder for checkpoints, as in local mode, the job runs all the same."""
    assert_succeeded(*finished["plain"])
    assert not (finished["plain"][0].root / "input/config/checkpointconfig.json").exists()


def test_row_48_the_channel_model(finished: Finished, tmp_path: Path) -> None:
    """Training starts from the model.tar.gz in the channel `model`; an archive with `..` or links is refused."""
    model = finished["plain"][0].model
    modes = {"TrainingInputMode": "File"}
    good, outside, link = (TrainingJob(tmp_path / name).prepare() for name in ("good", "outside", "link"))
    channels = {"training": modes, "model": modes | {"ContentType": "application/x-sagemaker-model"}}
    good.write("input/config/inputdataconfig.json", channels)
    good.write("input/data/model/model.tar.gz", pack(model))
    outside.write("input/data/model/model.tar.gz", pack_strange(member("../model.json")))
    link.write("input/data/model/model.tar.gz", pack_strange(member("model.json", tarfile.SYMTYPE, "/etc/passwd")))
    results = run_all((good, outside, link))
    assert_succeeded(good, results[0])
    assert "earlier model: 2 classes, length 16, from " in results[0].stdout
    assert_was_refused(outside, results[1], "'../model.json' would lie outside of it; it was not read.")
    assert_was_refused(link, results[2], "'model.json' is a link or a device; it was not read.")
    assert not list(tmp_path.rglob("data/model.json"))


# Metrics


def test_row_50_metric_lines_are_plain(finished: Finished) -> None:
    """No metric line holds a tab, an escape or a carriage return; values of any form are matched whole."""
    for _, result in finished.values():
        for line in result.metric_lines():
            assert re.fullmatch(r"[ -~]+", line)
    for metric in METRICS:
        for text in ("1e-05", "-0.5", "1.5E+10", "0.000001", "12"):
            assert re.findall(metric.regex, f"epoch: 1/3, {metric.name}: {text}, lr: 0.1") == [text]


def test_row_51_each_regex_matches_its_own_metric(finished: Finished) -> None:
    """No regex matches another metric's place; the last value of each is that of the saved model."""
    _, result = finished["plain"]
    saved = json.loads(finished["plain"][0].read("model.json"))["metrics"]
    assert set(saved) == {metric.name for metric in METRICS}
    for metric in METRICS:
        assert not any(re.search(metric.regex, f"{other.name}: 0.5") for other in METRICS if other != metric)
        values = metric_values(result, metric.name)
        assert len(values) == len(result.metric_lines()) == 3 + 1
        assert float(values[-1]) == pytest.approx(saved[metric.name], abs=1e-6)


def test_row_52_limits_of_metric_definitions() -> None:
    """At most 20 definitions, names of 255 and regexes of 500 characters; each has a direction to be tuned in."""
    assert len(METRICS) <= 20
    for metric in METRICS:
        assert len(metric.name) <= 255
        assert len(metric.regex) <= 500
        assert metric.objective in ("Minimize", "Maximize")


def test_row_53_the_hyperparameter_of_the_epochs() -> None:
    """`epochs` is an integer of at most 20000, so that Hyperband knows what a job may use."""
    info = Hyperparameters.model_fields["epochs"]
    assert info.annotation is int
    assert max(getattr(item, "le", 0) for item in info.metadata) <= 20000
