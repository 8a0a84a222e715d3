"""The commands without AWS: the requests and plans that they print, and what they refuse."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lstm_fcn.client.__main__ import main
from lstm_fcn.client.sagemaker import account, commands, jobs
from lstm_fcn.client.sagemaker.checks import check
from lstm_fcn.client.sagemaker.commands import show_progress
from lstm_fcn.client.sagemaker.jobs import State
from lstm_fcn.client.sagemaker.request import Request
from lstm_fcn.container.errors import UserError

ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
TRAIN = ["--image", "train:1", "--role", ROLE, "--training", "s3://data/train", "--output", "s3://models"]
SERVE = ["--image", "serve:1", "--role", ROLE, "--model-data", "s3://models/model.tar.gz"]
TRANSFORM = [*SERVE, "--data", "s3://data/series", "--output", "s3://out"]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no settings, no network."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


Captured = pytest.CaptureFixture[str]


def planned(capsys: Captured, *arguments: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The requests of a command by operation, and the plan that it prints."""
    assert main(["sagemaker", *arguments, "--dry-run"]) == 0
    output = capsys.readouterr()
    listed = json.loads(output.out)
    requests = []
    for item in listed:
        service, _, operation = item["action"].partition(":")
        requests.append(Request(service, operation, item["parameters"]))
    check(requests)
    return {request.operation: request.parameters for request in requests}, output.err


def refused(capsys: Captured, *arguments: str) -> str:
    """The message of a command that exits with code 2."""
    assert main(["sagemaker", *arguments]) == UserError.exit_code
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert output.out == ""
    return output.err


class TestTrain:
    def test_request_and_plan(self, capsys: Captured) -> None:
        requests, plan = planned(
            capsys,
            *("train", *TRAIN, "--name", "job", "--validation", "s3://data/valid", "--set", "epochs=200"),
            *("--set", "lr=0.005", "--spot", "--max-runtime", "3600", "--max-wait", "7200", "--sharded"),
            *(
                "--instance-type",
                "ml.g5.xlarge",
                "--instance-count",
                "2",
                "--tag",
                "project=x",
                "--input-mode",
                "FastFile",
            ),
            *("--subnet", "subnet-1", "--security-group", "sg-1", "--encryption-key", "alias/x"),
        )
        found = requests["CreateTrainingJob"]
        assert found["HyperParameters"] == {"epochs": "200", "lr": "0.005"}
        assert found["ResourceConfig"] == {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}
        assert found["AlgorithmSpecification"]["TrainingInputMode"] == "FastFile"
        assert plan.splitlines() == [
            "Training job job",
            "  2 x ml.g5.xlarge, spot instances, at most 1:00:00 within 2:00:00",
            "  checkpoints: s3://models/job/checkpoints/",
            "  training data: s3://data/train, a part for each machine",
            "  validation data: s3://data/valid",
            "  set: epochs=200, lr=0.005",
            "  models: s3://models",
        ]

    def test_presets_and_new_instance_types(self, capsys: Captured, caplog: pytest.LogCaptureFixture) -> None:
        requests, _ = planned(capsys, "train", *TRAIN, "--set", "preset=paper", "--instance-type", "ml.m99i.xlarge")
        assert requests["CreateTrainingJob"]["HyperParameters"] == {"preset": "paper"}
        assert requests["CreateTrainingJob"]["ResourceConfig"]["InstanceType"] == "ml.m99i.xlarge"
        assert "SageMaker decides whether it exists" in caplog.text

    def test_kept_machines_are_announced(self, capsys: Captured) -> None:
        requests, plan = planned(capsys, "train", *TRAIN, "--keep-alive", "1800")
        assert requests["CreateTrainingJob"]["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 1800
        assert "the machines are kept, and billed, for up to 0:30:00 after the job" in plan

    def test_names(self, capsys: Captured) -> None:
        requests, _ = planned(capsys, "train", *TRAIN, "--base-name", "mine")
        assert re.fullmatch(r"mine-\d{8}-\d{6}-\d{3}", requests["CreateTrainingJob"]["TrainingJobName"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--set", "epoch=3"], "Error: Hyperparameters: epoch is unknown; did you mean epochs?"),
            (["--set", "epochs"], "Error: --set epochs must be NAME=VALUE."),
            (["--role", "lstm-fcn-role-of-mine"], "its form must be arn:aws:iam::123456789012:role/NAME."),
            (["--training", "data/train.csv"], "is 'data/train.csv'; its form must be s3://BUCKET/FOLDER."),
            (["--instance-type", "g5.xlarge"], "its form must be ml.FAMILY.SIZE, such as ml.m5.xlarge"),
            (["--name", "a_b"], "TrainingJobName is 'a_b'; its form must be letters, digits and single hyphens"),
            (["--tag", "a=b;c"], "Tags[0].Value is 'b;c'"),
            (["--input-mode", "slow"], "'slow' is not one of 'file', 'fastfile', 'pipe'."),
        ],
    )
    def test_refused(self, capsys: Captured, arguments: list[str], message: str) -> None:
        assert message in refused(capsys, "train", *TRAIN, *arguments)

    def test_without_region_or_credentials(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "No region is set; set AWS_DEFAULT_REGION, for example eu-west-1" in refused(capsys, "status", "job")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        assert "No AWS credentials" in refused(capsys, "train", *TRAIN)
        assert "No AWS credentials" in refused(capsys, "train", *TRAIN, "--from-job", "earlier")
        monkeypatch.setenv("AWS_PROFILE", "unknown")
        assert "The config profile (unknown) could not be found" in refused(capsys, "status", "job")

    def test_a_dry_run_sends_nothing(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        def call(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(account.Account, "call", call)
        planned(capsys, "train", *TRAIN)
        planned(capsys, "transform", *TRANSFORM)


class TestTune:
    def test_request_and_plan(self, capsys: Captured) -> None:
        requests, plan = planned(
            capsys,
            *("tune", *TRAIN, "--name", "tuning", "--validation", "s3://data/valid", "--set", "epochs=100"),
            *("--strategy", "hyperband", "--objective", "valid_accuracy", "--max-jobs", "30", "--parallel", "3"),
            *("--range", "lr=0.0001:0.1:log", "--range", "hidden-size=8,64,128", "--range", "dropout"),
            *("--warm-start", "earlier", "--spot"),
        )
        config = requests["CreateHyperParameterTuningJob"]["HyperParameterTuningJobConfig"]
        assert config["Strategy"] == "Hyperband"
        assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid_accuracy"}
        assert plan.splitlines() == [
            "Tuning job tuning: Hyperband, maximize valid_accuracy",
            "  up to 30 training jobs, 3 at a time, each of them:",
            "    1 x ml.m5.xlarge, spot instances, at most 1 day, 0:00:00 within 2 days, 0:00:00",
            "    no checkpoints: an interrupted job starts over",
            "    training data: s3://data/train",
            "    validation data: s3://data/valid",
            "    set: epochs=100",
            "    models: s3://models",
            "  tuned: lr=0.0001:0.1:log",
            "  tuned: hidden-size=8,64,128",
            "  tuned: dropout=0.2:0.9",
        ]

    def test_the_name_is_cut_to_fit(self, capsys: Captured) -> None:
        requests, _ = planned(
            capsys, "tune", *TRAIN, "--validation", "s3://v/v", "--base-name", "a-name-of-more-than-twenty"
        )
        name = requests["CreateHyperParameterTuningJob"]["HyperParameterTuningJobName"]
        assert len(name) == 32

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "The objective valid_accuracy needs validation data: give --validation"),
            (["--range", "seed=1:5"], "seed cannot be tuned; set it to a single value."),
            (
                ["--range", "lr=0.1:2"],
                "Error: Hyperparameters: lr=2 must be a number from 1e-07",
            ),
            (["--objective", "f1"], "'f1' is not one of"),
            (["--strategy", "guess"], "'guess' is not one of"),
        ],
    )
    def test_refused(self, capsys: Captured, arguments: list[str], message: str) -> None:
        assert message in refused(capsys, "tune", *TRAIN, *arguments)


class TestDeploy:
    def test_on_instances_that_scale(self, capsys: Captured) -> None:
        requests, plan = planned(
            capsys,
            *("deploy", *SERVE, "--name", "e", "--instance-type", "ml.c6i.large", "--scale-to", "4"),
            *("--data-capture", "20", "s3://out/kept", "--precision", "bfloat16", "--outputs", "probabilities"),
        )
        assert list(requests) == [
            "CreateModel",
            "CreateEndpointConfig",
            "CreateEndpoint",
            "RegisterScalableTarget",
            "PutScalingPolicy",
        ]
        environment = requests["CreateModel"]["PrimaryContainer"]["Environment"]
        assert environment == {"LSTM_FCN_PRECISION": "bfloat16", "SAGEMAKER_INFERENCE_OUTPUT": "probabilities"}
        assert plan.splitlines() == [
            "Endpoint e",
            "  1 to 4 x ml.c6i.large",
            "  billed, used or not, until it is deleted: lstm-fcn sagemaker delete e",
            "  keeps 20 % of requests and responses in s3://out/kept",
        ]

    def test_serverless(self, capsys: Captured) -> None:
        requests, plan = planned(capsys, "deploy", *SERVE, "--serverless", "--memory", "4096", "--concurrency", "9")
        [variant] = requests["CreateEndpointConfig"]["ProductionVariants"]
        assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 9}
        assert "serverless: 4096 MB, 9 simultaneous requests; billed by request" in plan

    def test_asynchronous(self, capsys: Captured) -> None:
        requests, plan = planned(capsys, "deploy", *SERVE, "--async", "s3://out/a", "--async-concurrency", "3")
        output = requests["CreateEndpointConfig"]["AsyncInferenceConfig"]["OutputConfig"]
        assert output == {"S3OutputPath": "s3://out/a"}
        assert "1 x ml.m5.large, asynchronous" in plan

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--image", "i"],
                "Select the model with one of --from-job NAME, --model-data S3, --from-package PACKAGE.",
            ),
            ([*SERVE, "--from-package", "machines/1"], "Select the model with one of"),
            (["--role", ROLE, "--from-package", "my_group"], "Error: 'my_group' is not a model package"),
            (["--model-data", "s3://m/m", "--from-job", "j"], "Select the model with one of"),
            (
                ["--model-data", "s3://m/m", "--role", ROLE],
                "Error: image is missing; a new model needs image, role and model-data.",
            ),
            (["--model-data", "s3://m/m", "--image", "i"], "Error: role is missing;"),
            ([*SERVE, "--outputs", "colour"], "outputs=colour: 'colour' is not an output"),
            ([*SERVE, "--serverless", "--memory", "2000"], "memory=2000 must be 1024"),
            ([*SERVE, "--data-capture", "0", "s3://x"], "0 is not in the range 1<=x<=100."),
        ],
    )
    def test_refused(self, capsys: Captured, arguments: list[str], message: str) -> None:
        assert message in refused(capsys, "deploy", *arguments)


class TestTransform:
    def test_request_and_plan(self, capsys: Captured) -> None:
        requests, plan = planned(
            capsys,
            *(
                "transform",
                *TRANSFORM,
                "--name",
                "t",
                "--join",
                "--input-filter",
                "$[1:]",
                "--output-filter",
                "$[0,-1]",
            ),
            *("--batch-strategy", "SingleRecord", "--max-payload", "1", "--max-concurrent", "50"),
        )
        assert list(requests) == ["CreateModel", "CreateTransformJob"]
        found = requests["CreateTransformJob"]
        assert found["BatchStrategy"] == "SingleRecord"
        assert found["DataProcessing"]["JoinSource"] == "Input"
        assert (found["MaxPayloadInMB"], found["MaxConcurrentTransforms"]) == (1, 50)
        assert plan.splitlines() == [
            "Transform job t: s3://data/series",
            "  1 x ml.m5.large, until all files are predicted",
            "  predictions: s3://out",
            "  the model t is kept, at no cost; to delete it: lstm-fcn sagemaker delete t",
        ]

    def test_with_an_existing_model(self, capsys: Captured) -> None:
        requests, plan = planned(
            capsys, "transform", "--model", "m", "--data", "s3://d/d", "--output", "s3://o/o", "--split", "None"
        )
        assert list(requests) == ["CreateTransformJob"]
        assert "is kept" not in plan

    def test_refused(self, capsys: Captured) -> None:
        assert "Select the model with one of" in refused(capsys, "transform", *TRANSFORM, "--model", "m")
        assert "must be at most 100 MB" in refused(
            capsys, "transform", *TRANSFORM, "--max-payload", "60", "--max-concurrent", "2"
        )


class TestSpecification:
    ARGUMENTS = ("specification", "--training-image", "train:1", "--serving-image", "serve:1")

    def test_printed_and_written(self, capsys: Captured, tmp_path: Path) -> None:
        full = [*self.ARGUMENTS, "--model-data", "s3://m/model.tar.gz", "--role", ROLE]
        full += ["--training", "s3://d/t", "--series", "s3://d/s", "--output", "s3://d/o"]
        assert main(["sagemaker", *full]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert list(printed) == ["CreateAlgorithm", "CreateModelPackage"]
        check([Request("sagemaker", name, parameters) for name, parameters in printed.items()])
        assert main(["sagemaker", *full, "--write", str(tmp_path / "s.json")]) == 0
        assert capsys.readouterr().out == ""
        assert json.loads((tmp_path / "s.json").read_text()) == printed

    def test_refused(self, capsys: Captured) -> None:
        text = refused(capsys, *self.ARGUMENTS, "--role", ROLE)
        assert "--role, --training, --series and --output go together" in text


class TestProgress:
    STATE = State("training", "job", "arn:job", "InProgress", finished=False)

    def states(self) -> Iterable[State]:
        for number in range(3):
            yield State(
                "training",
                "job",
                "arn:job",
                "InProgress",
                finished=False,
                detail="Training",
                metrics={"valid_loss": 0.5 - number / 10},
                done=number,
                total=20,
            )
        yield State("training", "job", "arn:job", "Completed", finished=True, done=20, total=20)

    def test_a_line_for_each_change(self, capsys: Captured) -> None:
        assert show_progress(self.states()).succeeded
        assert capsys.readouterr().err.splitlines() == [
            "job: InProgress Training, 0 of 20, valid_loss: 0.5",
            "job: Completed, 20 of 20",
        ]

    def test_metrics_at_intervals(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commands, "METRICS_SECONDS", -1.0)
        show_progress(self.states())
        assert len(capsys.readouterr().err.splitlines()) == 4

    def test_a_bar_on_a_terminal(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        show_progress(self.states())
        shown = capsys.readouterr().err
        assert "20/20" in shown
        assert "job: Completed" in shown


@pytest.mark.parametrize(("status", "code"), [("Completed", 0), ("Failed", 1), ("Stopped", 1)])
def test_exit_code_of_wait(status: str, code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State("training", "job", "arn:job", status, finished=True, reason="UserError: no data")
    monkeypatch.setattr(jobs, "watch", lambda *_: [state])
    assert main(["sagemaker", "wait", "job"]) == code
    assert "reason:          UserError: no data" in capsys.readouterr().out


def test_ctrl_c_leaves_the_job_running(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_: object) -> Iterable[State]:
        yield TestProgress.STATE
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "watch", watch)
    assert main(["sagemaker", "wait", "job"]) == 130
    assert "No longer waiting; job keeps running." in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(commands.sagemaker.commands))
def test_every_command_has_help(command: str, capsys: Captured) -> None:
    assert main(["sagemaker", command, "--help"]) == 0
    assert "Usage: lstm-fcn sagemaker" in capsys.readouterr().out
