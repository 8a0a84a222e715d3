"""`lstm-fcn sagemaker` against moto, which simulates AWS, and its requests against the programs of the containers."""

import contextlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from lstm_fcn.client.__main__ import main
from lstm_fcn.client.sagemaker import images, jobs
from lstm_fcn.client.sagemaker.account import Account, send
from lstm_fcn.client.sagemaker.batch import MAX_LOAD_MB, Batch, check_load, transform_job
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.specification import Specification, publication
from lstm_fcn.client.sagemaker.training import Training, metric_definitions, training_job
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.metrics import METRICS, metric_text
from tests.models import GOLDEN
from tests.programs import (
    PROGRAMS,
    TrainingJob,
    assert_succeeded,
    assert_succeeds,
    free_port,
    labelled_csv,
    without_labels,
)
from tests.programs import endpoint as serving

REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn:1"
TRAIN = ["train", "--image", IMAGE, "--role", ROLE, "--training", "s3://data/train/", "--output", "s3://models/out"]
MODEL = "s3://models/model.tar.gz"
SERVE = ["--image", IMAGE, "--role", ROLE, "--model-data", MODEL]
NUMBERS = {"train_loss": 1e-07, "train_accuracy": 1.0, "valid_loss": 12345.678, "valid_f1": -0.5, "valid_auc": 0.5}

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    """Address of a moto server in a separate process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [str(PROGRAMS / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                post(f"{address}/moto-api/reset")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield address
        process.kill()


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """One session for all tests, because each session takes seconds to load the descriptions of the services."""
    return boto3.Session()


@pytest.fixture(autouse=True)
def aws(cloud: str, session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty account, with buckets, data and the artifact of an earlier job."""
    post(f"{cloud}/moto-api/reset")
    for name, value in {
        "AWS_ENDPOINT_URL": cloud,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(boto3, "Session", lambda: session)
    monkeypatch.setattr(boto3, "client", session.client)
    s3 = boto3.client("s3")
    for bucket in ("data", "models"):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ("train/train.csv", "valid/valid.csv", "series/series.csv"):
        s3.put_object(Bucket="data", Key=key, Body=b"a,1,2\n")
    s3.put_object(Bucket="models", Key="model.tar.gz", Body=b"x")


def post(url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10):
        pass


def run(capsys: Captured, *arguments: str, code: int = 0) -> str:
    """Run a command; returns its standard output, or its standard error if it fails."""
    capsys.readouterr()
    result = main(["sagemaker", *arguments])
    output = capsys.readouterr()
    assert result == code, output.err
    assert "Traceback" not in output.err
    return output.out if code == 0 else output.err


class TestJobs:
    def test_a_training_job_from_start_to_end(self, capsys: Captured) -> None:
        name = run(
            capsys,
            *(*TRAIN, "--validation", "s3://data/valid", "--set", "epochs=20", "--set", "lr=0.005", "--spot"),
            *("--max-runtime", "3600", "--instance-count", "2", "--sharded", "--tag", "project=x"),
            *("--encryption-key", "alias/x", "--subnet", "subnet-1", "--security-group", "sg-1"),
        ).strip()
        found = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
        assert found["HyperParameters"] == {"epochs": "20", "lr": "0.005"}
        assert [channel["ChannelName"] for channel in found["InputDataConfig"]] == ["training", "validation"]
        assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
        assert found["CheckpointConfig"]["S3Uri"] == f"s3://models/out/{name}/checkpoints/"
        assert found["ResourceConfig"]["InstanceCount"] == 2
        artifact = f"s3://models/out/{name}/output/model.tar.gz"
        shown = run(capsys, "status", name)
        assert f"training:        {name}" in shown
        assert artifact in shown
        assert artifact in run(capsys, "wait", name, "--kind", "training")
        assert jobs.wait(name).artifact == artifact
        assert re.search(rf"training +Completed +{name}", run(capsys, "list"))

    def test_continuing_training_from_an_earlier_job(self, capsys: Captured) -> None:
        earlier = run(capsys, *TRAIN, "--name", "earlier").strip()
        missing = run(capsys, *TRAIN, "--from-job", earlier, code=2)
        assert "There is no data at s3://models/out/earlier/output/model.tar.gz" in missing
        boto3.client("s3").put_object(Bucket="models", Key="out/earlier/output/model.tar.gz", Body=b"x")
        name = run(capsys, *TRAIN, "--from-job", earlier).strip()
        *_, channel = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)["InputDataConfig"]
        assert channel["ChannelName"] == "model"
        assert channel["ContentType"] == "application/x-sagemaker-model"
        assert channel["DataSource"]["S3DataSource"]["S3Uri"] == "s3://models/out/earlier/output/model.tar.gz"

    def test_a_tuning_job(self, capsys: Captured) -> None:
        arguments = ["tune", *TRAIN[1:], "--validation", "s3://data/valid", "--objective", "valid_f1"]
        name = run(capsys, *arguments, "--range", "lr=0.0001:0.1:log", "--range", "hidden-size=8,64").strip()
        found = boto3.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        config = found["HyperParameterTuningJobConfig"]
        assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid_f1"}
        assert config["ParameterRanges"]["CategoricalParameterRanges"] == [
            {"Name": "hidden-size", "Values": ["8", "64"]}
        ]
        assert "tuning:" in run(capsys, "status", name)
        assert "Tuning jobs have no log" in run(capsys, "logs", name, code=2)

    def test_a_transform_job_and_its_model(self, capsys: Captured) -> None:
        arguments = ["transform", *SERVE, "--data", "s3://data/series", "--output", "s3://data/predictions", "--join"]
        name = run(capsys, *arguments, "--outputs", "probabilities").strip()
        found = boto3.client("sagemaker").describe_transform_job(TransformJobName=name)
        assert found["DataProcessing"]["JoinSource"] == "Input"
        assert found["TransformOutput"]["AssembleWith"] == "Line"
        assert found["Environment"] == {"SAGEMAKER_INFERENCE_OUTPUT": "probabilities"}
        assert "s3://data/predictions" in run(capsys, "wait", name)
        again = run(
            capsys, "transform", "--model", name, "--data", "s3://data/series", "--output", "s3://data/again"
        ).strip()
        assert boto3.client("sagemaker").describe_transform_job(TransformJobName=again)["ModelName"] == name
        run(capsys, "delete", name, "--yes")
        assert boto3.client("sagemaker").list_models()["Models"] == []

    def test_logs(self, capsys: Captured) -> None:
        name = run(capsys, *TRAIN, "--name", "logged").strip()
        assert run(capsys, "logs", name) == ""
        written = ["device: CPU", "epoch: 1/2, train_loss: 0.9", "epoch: 2/2, train_loss: 0.5"]
        write_log("/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1700000000", written)
        write_log("/aws/sagemaker/TrainingJobs", f"{name}/algo-2-1700000000", ["device: GPU"])
        assert sorted(run(capsys, "logs", name, "--follow").splitlines()) == ["algo-2: device: GPU", *written]
        assert (jobs.wait(name).done, jobs.wait(name).total) == (2, 2)


def write_log(group: str, stream: str, lines: list[str]) -> None:
    client = boto3.client("logs")
    with contextlib.suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


def test_the_model_package_is_accepted() -> None:
    settings = Specification(training_image=IMAGE, serving_image=IMAGE, model_data=MODEL, role=ROLE)
    folders = {"training": "s3://data/train", "series": "s3://data/series", "output": "s3://data/o"}
    _, package = publication(replace(settings, **folders))
    send([package], Account())
    found = boto3.client("sagemaker").describe_model_package(ModelPackageName="lstm-fcn")
    assert found["InferenceSpecification"]["Containers"] == [{"Image": IMAGE, "ModelDataUrl": MODEL}]


class TestEndpoints:
    def test_created_scaled_and_deleted(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        arguments = ["deploy", *SERVE, "--name", "e", "--scale-to", "3", "--data-capture", "10", "s3://data/kept"]
        assert run(capsys, *arguments, "--precision", "bfloat16") == "e\n"
        client = boto3.client("sagemaker")
        model = client.describe_model(ModelName="e")
        assert model["PrimaryContainer"]["Environment"] == {"LSTM_FCN_PRECISION": "bfloat16"}
        config = client.describe_endpoint_config(EndpointConfigName="e")
        assert config["DataCaptureConfig"]["InitialSamplingPercentage"] == 10
        scaling = boto3.client("application-autoscaling")
        [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        assert (target["ResourceId"], target["MaxCapacity"]) == ("endpoint/e/variant/all", 3)
        [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
        assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 1000
        assert "InService" in run(capsys, "wait", "e")
        monkeypatch.setattr("sys.stdin", io.StringIO())  # no answer
        assert "Interrupted." in run(capsys, "delete", "e", code=130)
        assert "endpoint" in run(capsys, "list", "--kind", "endpoint")
        run(capsys, "delete", "e", "--yes")
        assert run(capsys, "list", "--kind", "endpoint") == ""
        assert client.list_models()["Models"] == []
        assert client.list_endpoint_configs()["EndpointConfigs"] == []
        assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
        assert "There is no endpoint, endpoint configuration or model e" in run(capsys, "delete", "e", "--yes", code=2)

    def test_a_refusal_deletes_the_model(self, capsys: Captured) -> None:
        # SageMaker has this type, but moto does not list it.
        text = run(capsys, "deploy", *SERVE, "--name", "e", "--instance-type", "ml.c6in.large", code=2)
        assert "AWS refuses sagemaker:CreateEndpointConfig: ValidationException" in text
        assert boto3.client("sagemaker").list_models()["Models"] == []


class TestModelRegistry:
    """moto keeps groups, packages and their status. It cannot delete groups, forgets the properties of a package when
    its status is updated, and checks neither S3 addresses nor, in CreateModel, that the package exists or is approved.
    """

    REGISTER = ("register", "--image", IMAGE, "--model-data", MODEL, "--group", "machines")
    ARN = f"arn:aws:sagemaker:{REGION}:123456789012:model-package/machines"

    @pytest.fixture(autouse=True)
    def model(self) -> None:
        """A real model instead of a file that is not read."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            archive.add(GOLDEN / "model", ".")
        boto3.client("s3").put_object(Bucket="models", Key="model.tar.gz", Body=content.getvalue())

    def test_registered_approved_and_deployed(self, capsys: Captured) -> None:
        assert run(capsys, *self.REGISTER) == f"{self.ARN}/1\n"
        client = boto3.client("sagemaker")
        found = client.describe_model_package(ModelPackageName=f"{self.ARN}/1")
        assert found["ModelApprovalStatus"] == "PendingManualApproval"
        assert found["InferenceSpecification"]["Containers"] == [{"Image": IMAGE, "ModelDataUrl": MODEL}]
        assert found["CustomerMetadataProperties"]["recurrent"] == "alstm"
        bucket, _, key = found["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"][5:].partition("/")
        written = json.load(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"])
        assert written["multiclass_classification_metrics"]["train_accuracy"]["value"] == 1.0

        deploy = ("deploy", "--role", ROLE, "--name", "e", "--from-package")
        text = run(capsys, *deploy, "machines", code=2)
        assert "has no approved version; approve the latest with `lstm-fcn sagemaker approve machines`" in text
        assert run(capsys, "approve", "machines", "--note", "tested on line 3") == f"{self.ARN}/1\n"
        assert client.describe_model_package(ModelPackageName=f"{self.ARN}/1")["ApprovalDescription"] == (
            "tested on line 3"
        )
        assert run(capsys, *self.REGISTER) == f"{self.ARN}/2\n"
        assert run(capsys, *deploy, "machines", "--outputs", "probabilities") == "e\n"
        assert client.describe_model(ModelName="e")["PrimaryContainer"] == {
            "ModelPackageName": f"{self.ARN}/1",
            "Environment": {"SAGEMAKER_INFERENCE_OUTPUT": "probabilities"},
        }
        run(capsys, "approve", "machines/1", "--reject")
        text = run(capsys, *deploy, f"{self.ARN}/1", code=2)
        assert f"The model package {self.ARN}/1 is not approved (it is Rejected); approve it with" in text

    def test_of_a_job_and_in_a_batch_job(self, capsys: Captured) -> None:
        s3 = boto3.client("s3")
        s3.copy_object(
            Bucket="models", Key="out/j/output/model.tar.gz", CopySource={"Bucket": "models", "Key": "model.tar.gz"}
        )
        run(capsys, *TRAIN, "--name", "j")
        arn = run(capsys, "register", "--image", IMAGE, "--from-job", "j", "--approved").strip()
        assert arn.endswith(":model-package/lstm-fcn/1")
        data = ("--data", "s3://data/series", "--output", "s3://data/predictions")
        name = run(capsys, "transform", "--role", ROLE, "--from-package", arn, *data).strip()
        found = boto3.client("sagemaker").describe_model(ModelName=name)
        assert found["PrimaryContainer"] == {"ModelPackageName": arn}

    def test_a_dry_run_creates_nothing(self, capsys: Captured) -> None:
        actions = [item["action"] for item in json.loads(run(capsys, *self.REGISTER, "--dry-run"))]
        assert actions == ["s3:PutObject", "sagemaker:CreateModelPackageGroup", "sagemaker:CreateModelPackage"]
        assert boto3.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []
        assert boto3.client("s3").list_objects_v2(Bucket="models")["KeyCount"] == 1
        run(capsys, *self.REGISTER)
        [item] = json.loads(run(capsys, "approve", "machines", "--dry-run"))
        assert item["parameters"] == {"ModelPackageArn": f"{self.ARN}/1", "ModelApprovalStatus": "Approved"}
        assert "has no approved version" in run(capsys, "deploy", "--role", ROLE, "--from-package", "machines", code=2)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model-data", "s3://models/none.tar.gz"], "There is no model at s3://models/none.tar.gz; correct the"),
            (["--model-data", "s3://no-such-bucket/m.tar.gz"], "There is no model at s3://no-such-bucket/m.tar.gz"),
            (["--model-data", "s3://data/series/series.csv"], "s3://data/series/series.csv is not a complete tar"),
            (["--from-job", "unknown"], "There is no training job unknown in this account and region"),
        ],
    )
    def test_without_a_model(self, capsys: Captured, arguments: list[str], message: str) -> None:
        assert message in run(capsys, "register", "--image", IMAGE, *arguments, code=2)
        assert boto3.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []

    def test_unknown_packages(self, capsys: Captured) -> None:
        run(capsys, *self.REGISTER)
        for command in (("approve",), ("deploy", "--role", ROLE, "--from-package")):
            assert "There is no model package group x in this" in run(capsys, *command, "x", code=2)
            assert "has no version 2; the latest is 1." in run(capsys, *command, "machines/2", code=2)
            assert f"There is no model package {self.ARN}/2" in run(capsys, *command, f"{self.ARN}/2", code=2)
            assert "is not a model package; write GROUP" in run(capsys, *command, "arn:aws:s3:::models", code=2)


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--training", "s3://data/nothing"], "There is no data at s3://data/nothing; upload it"),
            (
                ["--training", "s3://no-such-bucket/x"],
                "The bucket no-such-bucket of s3://no-such-bucket/x does not exist",
            ),
            (
                ["--output", "s3://no-such-bucket/x"],
                "The bucket no-such-bucket of s3://no-such-bucket/x does not exist",
            ),
            (["--from-job", "unknown"], "There is no training job unknown in this account and region"),
        ],
    )
    def test_refused_jobs_are_not_created(self, capsys: Captured, arguments: list[str], message: str) -> None:
        assert message in run(capsys, *TRAIN, *arguments, code=2)
        assert boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []

    def test_not_found(self, capsys: Captured) -> None:
        assert "There is no job or endpoint x" in run(capsys, "status", "x", code=2)
        assert "There is no endpoint x" in run(capsys, "wait", "x", "--kind", "endpoint", code=2)

    def test_aws_cannot_be_reached(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert "did not reach AWS" in run(capsys, "status", "x", code=2)


class TestPush:
    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with both Dockerfiles, and a program `docker` that records its arguments."""
        for name in ("Dockerfile.train", "Dockerfile.serve"):
            (tmp_path / name).touch()
        docker = tmp_path / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n[ "$1" != login ] || cat >> {tmp_path}/password\n')
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
        return tmp_path

    @staticmethod
    def images(media_type: str) -> None:
        """Put images into the registry, as docker would."""
        client = boto3.client("ecr")
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": "sha256:0"},
            "layers": [],
        }
        for name in ("lstm-fcn-train", "lstm-fcn-serve"):
            client.create_repository(repositoryName=name)
            client.put_image(
                repositoryName=name,
                imageManifest=json.dumps(manifest),
                imageManifestMediaType=media_type,
                imageTag="7",
            )

    def test_printed(self, capsys: Captured, source: Path) -> None:
        lines = run(capsys, "push", "--image-tag", "7", "--context", str(source)).splitlines()
        assert lines[0] == f"aws ecr create-repository --region {REGION} --repository-name lstm-fcn-train"
        assert "docker login --username AWS --password-stdin 123456789012.dkr.ecr.eu-west-1.amazonaws.com" in lines[2]
        assert [line.split()[1] for line in lines[3:]] == ["build", "tag", "push"] * 2
        assert "--platform linux/amd64 --provenance=false --sbom=false" in lines[3]
        assert not (source / "told").exists()
        assert boto3.client("ecr").describe_repositories()["repositories"] == []

    def test_run(self, capsys: Captured, source: Path) -> None:
        self.images(images.DOCKER_MANIFEST)
        address = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        printed = run(capsys, "push", "--image-tag", "7", "--context", str(source), "--run").splitlines()
        assert printed == [f"{address}/lstm-fcn-train:7", f"{address}/lstm-fcn-serve:7"]
        told = (source / "told").read_text().splitlines()
        assert [line.split()[0] for line in told] == ["login", *["build", "tag", "push"] * 2]
        assert told[-1] == f"push {address}/lstm-fcn-serve:7"
        assert (source / "password").read_text()

    def test_repositories_are_created(self, capsys: Captured, source: Path) -> None:
        text = run(capsys, "push", "--context", str(source), "--run", code=2)
        assert "Not found in this account and region (ecr:DescribeImages)" in text  # nothing was pushed
        found = boto3.client("ecr").describe_repositories()["repositories"]
        assert [item["repositoryName"] for item in found] == ["lstm-fcn-train", "lstm-fcn-serve"]
        assert found[0]["imageScanningConfiguration"] == {"scanOnPush": True}

    def test_a_manifest_that_sagemaker_refuses(self, capsys: Captured, source: Path) -> None:
        self.images("application/vnd.oci.image.manifest.v1+json")
        text = run(capsys, "push", "--image-tag", "7", "--context", str(source), "--run", code=2)
        assert "which SageMaker refuses" in text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, str]:
    """A training job with the hyperparameters and channels of a request, and its log."""
    small = {"filters-1": "4", "filters-2": "4", "filters-3": "4", "kernel-size-1": "3", "hidden-size": "2"}
    settings = Training(
        image=IMAGE,
        role=ROLE,
        training="s3://data/train/",
        validation="s3://data/valid",
        output="s3://models/out",
        hyperparameters={**small, "epochs": "4", "lr": "0.01"},
        input_mode="FastFile",
    )
    sent = training_job("job", settings).parameters
    job = TrainingJob(tmp_path_factory.mktemp("trained") / "ml")
    job.write("input/data/training/train.csv", labelled_csv())
    job.write("input/data/validation/valid.csv", labelled_csv(6, seed=1))
    job.write("input/config/hyperparameters.json", sent["HyperParameters"])
    channels = {item["ChannelName"]: item for item in sent["InputDataConfig"]}
    job.write("input/config/inputdataconfig.json", {name: as_channel(item) for name, item in channels.items()})
    result = job.run()
    assert_succeeded(job, result)
    return job, result.stdout + result.stderr


class TestContainers:
    """The programs of the containers with the hyperparameters, channels and environment of real requests."""

    @pytest.mark.checklist("49, 50, 51: each regex matches its metric once per epoch, and last the saved model's value")
    def test_m02_to_m06_the_log_of_a_real_job(self, trained: tuple[TrainingJob, str]) -> None:
        _, log = trained
        lines = [line for line in log.splitlines() if "train_loss: " in line]
        epochs = [line for line in lines if line.startswith("epoch: ")]
        assert len(epochs) == 4
        assert lines[-1].startswith("saved: ")  # M4: the objective of the saved model comes last
        for line in lines:
            assert line.isascii()  # M2
            assert not re.search(r"[\t\r\x1b]|nan", line)
        for item in metric_definitions():
            values = [match[1] for line in lines for match in re.finditer(item["Regex"], line)]
            assert [float(value) for value in values]  # M3
            assert len(values) == len(epochs) + 1  # M4 to M6: once an epoch and once more, on no other line
            assert len(re.findall(item["Regex"], log)) == len(values)
            for value in values:
                assert re.search(rf"{item['Name']}: {re.escape(value)}(,|$)", log, re.MULTILINE)  # in full

    @pytest.mark.checklist("50: values such as 1e-05 and -0.5 are matched whole")
    def test_m03_regexes_at_unusual_numbers(self) -> None:
        line = f"epoch: 1/2, {metric_text(NUMBERS)}, lr: 0.1"
        for item in metric_definitions():
            found = [float(match) for match in re.findall(item["Regex"], line)]
            expected = [NUMBERS[item["Name"]]] if item["Name"] in NUMBERS else []
            assert found == pytest.approx(expected, abs=1e-6)
        assert len(metric_definitions()) == len(METRICS)

    def test_the_channel_of_an_earlier_model(self, trained: tuple[TrainingJob, str], tmp_path: Path) -> None:
        job, _ = trained
        settings = Training(
            image=IMAGE, role=ROLE, training="s3://data/t", output="s3://m/o", model=MODEL, input_mode="Pipe"
        )
        [_, channel] = training_job("job", settings).parameters["InputDataConfig"]
        later = job.copy(tmp_path / "later")
        (later.root / "input" / "data" / "model").mkdir()
        subprocess.run(["tar", "czf", later.root / "input/data/model/model.tar.gz", "-C", job.model, "."], check=True)
        config = json.loads((later.root / "input/config/inputdataconfig.json").read_text())
        later.write("input/config/inputdataconfig.json", {**config, "model": as_channel(channel)})
        assert "weights kept from the earlier model" in assert_succeeds(later).stdout

    def test_batch_jobs_match_the_execution_parameters(self, trained: tuple[TrainingJob, str]) -> None:
        job, _ = trained
        batch = Batch(model="m", data="s3://d/d", output="s3://o/o", outputs="probability")
        [sent] = [request.parameters for request in transform_job("t", batch)]
        with serving(job.root, SAGEMAKER_BATCH="true", **sent["Environment"]) as server:
            asked = json.loads(server.get("/execution-parameters").text)
            check_load(asked["MaxPayloadInMB"], asked["MaxConcurrentTransforms"])
            assert asked["BatchStrategy"].replace("_", "").lower() == sent["BatchStrategy"].lower()
            # The default payload of `check_load` is the one that the container asks for.
            check_load(None, MAX_LOAD_MB // asked["MaxPayloadInMB"])
            with pytest.raises(UserError, match="must be at most 100 MB"):
                check_load(None, MAX_LOAD_MB // asked["MaxPayloadInMB"] + 1)
            reply = server.invoke(
                without_labels(labelled_csv(6)),
                Content_Type=sent["TransformInput"]["ContentType"],
                Accept=sent["TransformOutput"]["Accept"],
            )
        assert (
            sent["TransformOutput"]["AssembleWith"] == "None"
        )  # because each response of a batch job ends with a newline
        assert len(reply.text.splitlines()) == 6
        assert reply.text.endswith("\n")

    def test_the_environment_of_every_kind_of_endpoint(self, trained: tuple[TrainingJob, str]) -> None:
        job, _ = trained
        common: dict[str, Any] = {"image": IMAGE, "role": ROLE, "model_data": MODEL}
        for settings in (
            Endpoint(**common, precision="float32", outputs="predicted_label,probability"),
            Endpoint(**common, serverless=True),
            Endpoint(**common, async_output="s3://o/a"),
        ):
            [model, *_] = endpoint("e", settings)
            environment = model.parameters["PrimaryContainer"].get("Environment", {})
            with serving(job.root, **environment) as server:
                assert server.invoke(without_labels(labelled_csv(2))).status == 200


def as_channel(sent: dict[str, Any]) -> dict[str, str]:
    """The entry of `inputdataconfig.json` that the platform writes for a channel of a request (T23)."""
    assert sent["InputMode"] in next(item for item in CHANNELS if item.name == sent["ChannelName"]).input_modes
    mode = "File" if sent["InputMode"] == "Pipe" else sent["InputMode"]
    return {
        "TrainingInputMode": mode,
        "ContentType": sent["ContentType"],
        "S3DistributionType": sent["DataSource"]["S3DataSource"]["S3DataDistributionType"],
        "RecordWrapperType": "None",
    }
