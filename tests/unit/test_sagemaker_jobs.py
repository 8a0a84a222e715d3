"""Creating, watching and deleting, with a fake AWS whose responses each test sets."""

import base64
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
)

from lstm_fcn.client.sagemaker import images, jobs
from lstm_fcn.client.sagemaker.account import NotFoundError
from lstm_fcn.client.sagemaker.batch import Batch
from lstm_fcn.client.sagemaker.endpoint import Endpoint
from lstm_fcn.client.sagemaker.jobs import ENDPOINT, KINDS, TRAINING, TUNING
from lstm_fcn.client.sagemaker.training import Search, Training
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.metrics import EpochLine
from tests.unit.cloud import Cloud, refusal

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn:1"
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
MODEL = "s3://models/job/output/model.tar.gz"
JOB = Training(image=IMAGE, role=ROLE, training="s3://data/train", validation="s3://data/valid", output="s3://models")
DEPLOYED = Endpoint(image=IMAGE, role=ROLE, model_data=MODEL)


def described(**changes: Any) -> dict[str, Any]:
    """Response of `describe_training_job` for a running job."""
    return {
        "TrainingJobName": "job",
        "TrainingJobArn": "arn:job",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "SecondaryStatusTransitions": [{"StatusMessage": "Downloading"}, {"StatusMessage": "Training in progress"}],
        "HyperParameters": {"epochs": "20"},
        **changes,
    }


ENDED = described(
    TrainingJobStatus="Completed",
    SecondaryStatus="Completed",
    SecondaryStatusTransitions=[{"StatusMessage": "Training job completed"}],
    FinalMetricDataList=[{"MetricName": "valid_loss", "Value": 0.25}],
    ModelArtifacts={"S3ModelArtifacts": MODEL},
    BillableTimeInSeconds=90,
)


def event(number: int, message: str, host: str = "algo-1", when: int = 1_000_000) -> dict[str, Any]:
    return {"eventId": str(number), "message": message, "timestamp": when, "logStreamName": f"job/{host}-1700000000"}


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (NoCredentialsError(), "No AWS credentials: Unable to locate credentials. Run `aws configure`"),
            (ProfileNotFound(profile="x"), "No AWS credentials: The config profile (x) could not be found"),
            (NoRegionError(), "No region is set; set AWS_DEFAULT_REGION"),
            (EndpointConnectionError(endpoint_url="https://x"), "did not reach AWS: Could not connect"),
            (
                refusal("AccessDeniedException", "User x is not authorized to perform: sagemaker:CreateTrainingJob"),
                "Access is denied (sagemaker:DescribeTrainingJob): User x is not authorized to perform: "
                "sagemaker:CreateTrainingJob. Ask for a policy that allows it",
            ),
            (refusal("ExpiredTokenException"), "AWS does not accept the credentials (sagemaker:DescribeTrainingJob)"),
            (
                refusal("ResourceLimitExceeded", "The account-level service limit 'ml.g5.xlarge' is 0 Instances."),
                "A quota is exhausted (sagemaker:DescribeTrainingJob): The account-level service limit 'ml.g5.xlarge' "
                "is 0 Instances. Use fewer or other instances, or request more in the Service Quotas console.",
            ),
            (refusal("ResourceInUse", "Training job names must be unique"), "The name is already in use"),
            (refusal("ValidationException", "Cannot create already existing model"), "The name is already in use"),
            (refusal("ThrottlingException", "Rate exceeded"), "Too many requests"),
            (
                refusal("ValidationException", "Could not assume role x"),
                "AWS refuses sagemaker:DescribeTrainingJob: Val",
            ),
        ],
    )
    def test_messages_give_advice(self, error: Exception, message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)) as raised:
            jobs.status("job", TRAINING, Cloud(describe_training_job=error).account)
        assert "\n" not in str(raised.value)

    def test_not_found(self) -> None:
        with pytest.raises(NotFoundError, match="There is no job or endpoint job in this account and region"):
            jobs.status("job", account=Cloud().account)
        with pytest.raises(NotFoundError, match="There is no training job job"):
            jobs.status("job", TRAINING, Cloud().account)

    def test_an_unknown_profile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "unknown")
        with pytest.raises(UserError, match="No AWS credentials"):
            jobs.status("job")


class TestCreating:
    def test_a_training_job(self) -> None:
        cloud = Cloud(create_training_job={"TrainingJobArn": "arn:job"})
        created = jobs.train(JOB, account=cloud.account)
        assert created == jobs.Created("training", created.name, "arn:job")
        assert created.name.startswith("lstm-fcn-")
        assert cloud.calls[-1][1]["TrainingJobName"] == created.name

    def test_a_tuning_job(self) -> None:
        cloud = Cloud(create_hyper_parameter_tuning_job={"HyperParameterTuningJobArn": "arn:tuning"})
        created = jobs.tune(JOB, Search(), account=cloud.account)
        assert len(created.name) <= 32

    def test_wrong_requests_are_not_sent(self) -> None:
        cloud = Cloud()
        with pytest.raises(UserError, match="InstanceType"):
            jobs.train(replace(JOB, instance_type="m5.xlarge"), account=cloud.account)
        assert cloud.calls == []

    def test_missing_data_is_reported(self) -> None:
        cloud = Cloud(list_objects_v2=lambda **wanted: {"KeyCount": int(wanted["Bucket"] != "data")})
        with pytest.raises(UserError, match="There is no data at s3://data/train; upload it"):
            jobs.train(JOB, account=cloud.account)
        cloud = Cloud(list_objects_v2=refusal("NoSuchBucket", "The specified bucket does not exist"))
        with pytest.raises(UserError, match="The bucket data of s3://data/train does not exist"):
            jobs.train(JOB, account=cloud.account)
        assert cloud.methods() == []

    def test_all_addresses_are_checked(self) -> None:
        cloud = Cloud(create_training_job={"TrainingJobArn": "arn:job"})
        jobs.train(replace(JOB, spot=True), "job", cloud.account)
        looked = [(call["Bucket"], call["Prefix"]) for name, call in cloud.calls if name == "list_objects_v2"]
        assert looked == [("data", "train"), ("data", "valid"), ("models", ""), ("models", "")]

    def test_data_that_may_not_be_listed_is_not_checked(self) -> None:
        cloud = Cloud(list_objects_v2=refusal("AccessDenied"), create_training_job={"TrainingJobArn": "arn:job"})
        assert jobs.train(JOB, "job", cloud.account).arn == "arn:job"

    def test_a_refusal_undoes_earlier_requests(self) -> None:
        cloud = Cloud(
            create_model={},
            create_endpoint_config={},
            create_endpoint=refusal("ResourceLimitExceeded", "no instance is left"),
            delete_endpoint_config={},
            delete_model=refusal("AccessDenied"),
        )
        with pytest.raises(UserError, match=r"A quota is exhausted.* Created before that, and not deleted: Model e\.$"):
            jobs.deploy(DEPLOYED, "e", cloud.account)
        assert cloud.methods()[-2:] == ["delete_endpoint_config", "delete_model"]

    def test_an_endpoint_is_scaled_once_it_is_in_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
        endpoint = {"EndpointName": "e", "EndpointArn": "arn:e", "EndpointStatus": "Creating"}
        cloud = Cloud(
            create_model={},
            create_endpoint_config={},
            create_endpoint={"EndpointArn": "arn:e"},
            describe_endpoint=[endpoint, endpoint, {**endpoint, "EndpointStatus": "InService"}],
            register_scalable_target={},
            put_scaling_policy={},
        )
        assert jobs.deploy(replace(DEPLOYED, scale_to=3), "e", cloud.account).arn == "arn:e"
        assert cloud.methods()[-3:] == ["describe_endpoint", "register_scalable_target", "put_scaling_policy"]
        cloud.answers["describe_endpoint"] = [{**endpoint, "EndpointStatus": "Failed", "FailureReason": "No ping."}]
        with pytest.raises(UserError, match=r"The endpoint e is Failed and not scaled: No ping\."):
            jobs.deploy(replace(DEPLOYED, scale_to=3), "e", cloud.account)

    def test_a_transform_job(self) -> None:
        cloud = Cloud(create_model={}, create_transform_job={"TransformJobArn": "arn:t"})
        batch = Batch(image=IMAGE, role=ROLE, model_data=MODEL, data="s3://data/x", output="s3://out/y")
        assert jobs.transform(batch, "t", cloud.account) == jobs.Created("transform", "t", "arn:t")
        assert cloud.methods() == ["create_model", "create_transform_job"]

    def test_the_artifact_of_an_earlier_job(self) -> None:
        assert jobs.artifact_of("job", Cloud(describe_training_job=ENDED).account) == MODEL
        for changes, word in (({}, "InProgress"), ({"TrainingJobStatus": "Failed", **ENDED}, "Completed")):
            reply = {**described(**changes), "ModelArtifacts": {}}
            with pytest.raises(UserError, match=f"The training job job is {word} and has no model"):
                jobs.artifact_of("job", Cloud(describe_training_job=reply).account)


class TestWatching:
    def test_a_training_job(self) -> None:
        state = jobs.status("job", account=Cloud(describe_training_job=ENDED).account)
        assert (state.kind, state.status, state.finished, state.succeeded) == ("training", "Completed", True, True)
        assert state.detail == "Completed: Training job completed"
        assert state.metrics == {"valid_loss": 0.25}
        assert state.artifact == MODEL
        assert state.billable == 90

    def test_a_tuning_job(self) -> None:
        reply = {
            "HyperParameterTuningJobName": "tuning",
            "HyperParameterTuningJobArn": "arn:tuning",
            "HyperParameterTuningJobStatus": "InProgress",
            "HyperParameterTuningJobConfig": {"ResourceLimits": {"MaxNumberOfTrainingJobs": 20}},
            "TrainingJobStatusCounters": {"Completed": 7, "InProgress": 2, "NonRetryableError": 1, "Stopped": 0},
            "BestTrainingJob": {
                "TrainingJobName": "tuning-004",
                "TunedHyperParameters": {"lr": "0.004"},
                "FinalHyperParameterTuningJobObjectiveMetric": {"MetricName": "valid_loss", "Value": 0.2},
            },
        }
        cloud = Cloud(describe_hyper_parameter_tuning_job=reply)
        state = jobs.status("tuning", account=cloud.account)
        assert state.detail == "7 Completed, 2 InProgress, 1 NonRetryableError"
        assert (state.done, state.total, state.best) == (8, 20, "tuning-004")
        assert (state.metrics, state.hyperparameters) == ({"valid_loss": 0.2}, {"lr": "0.004"})
        with pytest.raises(
            UserError, match=r"Tuning jobs have no log; read the log of a training job, such as tuning-004\."
        ):
            list(jobs.logs("tuning", account=cloud.account))

    def test_tuning_jobs_are_skipped_for_long_names(self) -> None:
        reply = {"TransformJobName": "t" * 40, "TransformJobArn": "arn:t", "TransformJobStatus": "Failed"}
        cloud = Cloud(describe_transform_job={**reply, "FailureReason": "bad input"})
        state = jobs.status("t" * 40, account=cloud.account)
        assert (state.kind, state.finished, state.succeeded, state.reason) == ("transform", True, False, "bad input")
        assert "describe_hyper_parameter_tuning_job" not in cloud.methods()

    def test_epochs_come_from_the_log(self) -> None:
        cloud = Cloud(
            describe_training_job=[described(), described(), described(), ENDED],
            filter_log_events=[
                refusal("ResourceNotFoundException", "The specified log group does not exist."),
                {"events": [event(1, "device: CPU"), event(2, "epoch: 1/20, train_loss: 0.9")]},
                {"events": [event(2, "epoch: 1/20, train_loss: 0.9"), event(3, "epoch: 7/20, train_loss: 0.5")]},
            ],
        )
        states = list(jobs.watch("job", account=cloud.account, pause=0))
        assert [(state.done, state.total) for state in states] == [(0, 0), (1, 20), (7, 20), (7, 20)]
        assert states[-1].succeeded

    def test_epochs_of_fine_tuning_rounds(self) -> None:
        line = EpochLine(epoch=5, epochs=20, metrics={"train_loss": 0.1}, round=2).format(0.001, timedelta(seconds=9))
        cloud = Cloud(
            describe_training_job={**ENDED, "HyperParameters": {"epochs": "20", "fine-tune-rounds": "3"}},
            filter_log_events={"events": [event(1, "epoch: 20/20, train_loss: 0.9"), event(2, line)]},
        )
        state = jobs.wait("job", account=cloud.account, pause=0)
        assert (state.done, state.total) == (45, 80)

    def test_without_access_to_the_log_only_epochs_are_missing(self) -> None:
        cloud = Cloud(describe_training_job=ENDED, filter_log_events=refusal("AccessDeniedException"))
        assert jobs.wait("job", account=cloud.account, pause=0).succeeded

    def test_each_line_of_a_log_is_read_once(self) -> None:
        cloud = Cloud(
            describe_training_job=ENDED,
            filter_log_events=[
                {"events": [event(1, "first\n")], "nextToken": "more"},
                {"events": [event(2, "second", "algo-2"), event(1, "first\n")]},
            ],
        )
        assert list(jobs.logs("job", account=cloud.account)) == ["first", "algo-2: second"]
        first, second = (call for name, call in cloud.calls if name == "filter_log_events")
        assert first["logGroupName"] == "/aws/sagemaker/TrainingJobs"
        assert first["logStreamNamePrefix"] == "job/"
        assert second["nextToken"] == "more"

    def test_follow_ends_with_the_job(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "POLL_SECONDS", 0.0)
        hour = 3_600_000
        cloud = Cloud(
            describe_training_job=[described(), described(), ENDED],
            filter_log_events=[
                {"events": [event(1, "one", when=hour)]},
                {"events": [event(1, "one", when=hour), event(2, "late", when=hour - 1000)]},
                {"events": [event(3, "three", when=hour + 1000)]},
            ],
        )
        assert list(jobs.logs("job", follow=True, account=cloud.account)) == ["one", "late", "three"]
        starts = [call["startTime"] for name, call in cloud.calls if name == "filter_log_events"]
        assert starts == [0, hour - 120_000, hour - 120_000]

    def test_the_log_group_of_an_endpoint(self) -> None:
        reply = {"EndpointName": "e", "EndpointArn": "arn:e", "EndpointStatus": "InService"}
        line = {**event(1, "GET /ping"), "logStreamName": "all/i-0123"}
        cloud = Cloud(describe_endpoint=reply, filter_log_events={"events": [line]})
        assert list(jobs.logs("e", ENDPOINT, account=cloud.account)) == ["GET /ping"]
        assert cloud.calls[-1][1] == {"logGroupName": "/aws/sagemaker/Endpoints/e", "startTime": 0}

    def test_listing(self) -> None:
        def item(noun: str, day: int) -> dict[str, Any]:
            created = datetime(2026, 1, day, tzinfo=UTC)
            name = f"{noun}-{day}"
            return {
                f"{noun}Name": name,
                f"{noun}Arn": f"arn:{name}",
                f"{noun}Status": "Completed",
                "CreationTime": created,
            }

        cloud = Cloud(
            list_training_jobs={"TrainingJobSummaries": [item("TrainingJob", 3), item("TrainingJob", 1)]},
            list_hyper_parameter_tuning_jobs={"HyperParameterTuningJobSummaries": []},
            list_transform_jobs={"TransformJobSummaries": []},
            list_endpoints={"Endpoints": [item("Endpoint", 2)]},
        )
        found = jobs.listing(account=cloud.account)
        assert [entry.name for entry in found] == ["TrainingJob-3", "Endpoint-2", "TrainingJob-1"]
        assert [entry.kind for entry in jobs.listing([TUNING], 5, cloud.account)] == []
        assert cloud.calls[-1][1]["MaxResults"] == 5
        assert list(KINDS) == ["training", "tuning", "transform", "endpoint"]


CONFIG = {"ProductionVariants": [{"VariantName": "all", "ModelName": "m1"}, {"VariantName": "b", "ModelName": "m2"}]}
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/e/variant/all",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


class TestDeleting:
    def test_an_endpoint_with_configuration_models_and_scaling(self) -> None:
        cloud = Cloud(
            describe_endpoint={"EndpointConfigName": "c"},
            describe_endpoint_config=CONFIG,
            describe_model=[{}, refusal("ValidationException", "Could not find model m2.")],
            describe_scalable_targets={"ScalableTargets": [{**TARGET, "MinCapacity": 1}]},
            deregister_scalable_target={},
            delete_endpoint={},
            delete_endpoint_config={},
            delete_model={},
        )
        done = jobs.delete("e", cloud.account)
        assert [request.action for request in done] == [
            "application-autoscaling:DeregisterScalableTarget",
            "sagemaker:DeleteEndpoint",
            "sagemaker:DeleteEndpointConfig",
            "sagemaker:DeleteModel",
        ]
        assert [parameters for _, parameters in cloud.calls[-4:]] == [
            TARGET,
            {"EndpointName": "e"},
            {"EndpointConfigName": "c"},
            {"ModelName": "m1"},
        ]

    def test_remains_of_an_endpoint(self) -> None:
        cloud = Cloud(describe_model={})
        assert [request.action for request in jobs.removal("e", cloud.account)] == ["sagemaker:DeleteModel"]
        with pytest.raises(NotFoundError, match="There is no endpoint, endpoint configuration or model e"):
            jobs.removal("e", Cloud().account)

    def test_without_rights_to_automatic_scaling(self) -> None:
        cloud = Cloud(
            describe_endpoint={"EndpointConfigName": "c"},
            describe_endpoint_config=CONFIG,
            describe_model={},
            describe_scalable_targets=refusal("AccessDeniedException"),
        )
        assert len(jobs.removal("e", cloud.account)) == 4


class TestPush:
    @pytest.fixture
    def context(self, tmp_path: Path) -> Path:
        for name in ("Dockerfile.train", "Dockerfile.serve"):
            (tmp_path / name).touch()
        return tmp_path

    @pytest.fixture
    def commands(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str | None]]:
        """The commands that were run, with their standard input."""
        found: list[tuple[list[str], str | None]] = []

        def run(command: list[str], **options: Any) -> None:
            if command[1] == "explode":
                raise subprocess.CalledProcessError(3, command)
            found.append((list(command), options["input"]))

        monkeypatch.setattr("lstm_fcn.client.sagemaker.images.subprocess.run", run)
        return found

    @staticmethod
    def cloud(manifest: str = images.DOCKER_MANIFEST) -> Cloud:
        token = base64.b64encode(b"AWS:secret").decode()
        return Cloud(
            get_caller_identity={"Account": "123456789012"},
            describe_repositories=[{}, refusal("RepositoryNotFoundException", "not found")],
            create_repository={},
            get_authorization_token={"authorizationData": [{"authorizationToken": token}]},
            describe_images={"imageDetails": [{"imageManifestMediaType": manifest}]},
        )

    def test_both_images(self, context: Path, commands: list[tuple[list[str], str | None]]) -> None:
        cloud = self.cloud()
        said: list[str] = []
        found = images.push("7", context, cloud.account, said.append)
        address = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
        assert list(found.values()) == [f"{address}/lstm-fcn-train:7", f"{address}/lstm-fcn-serve:7"]
        created = [call["repositoryName"] for name, call in cloud.calls if name == "create_repository"]
        assert created == ["lstm-fcn-serve"]  # the other one exists
        login, *others = commands
        assert login == (["docker", "login", "--username", "AWS", "--password-stdin", address], "secret")
        assert [command[1] for command, _ in others] == ["build", "tag", "push"] * 2
        assert not [line for line in said if "secret" in line]

    @pytest.mark.usefixtures("commands")
    def test_a_manifest_that_sagemaker_refuses(self, context: Path) -> None:
        cloud = self.cloud("application/vnd.oci.image.index.v1+json")
        with pytest.raises(UserError, match=r"was pushed as application/vnd\.oci.*, which SageMaker refuses"):
            images.push("7", context, cloud.account, lambda _: None)

    def test_missing_dockerfiles(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"Dockerfile\.train does not exist; --context must be the folder with the source code"
        ):
            images.push("7", tmp_path, self.cloud().account)

    def test_docker_is_missing_or_fails(self, monkeypatch: pytest.MonkeyPatch, context: Path) -> None:
        monkeypatch.setenv("PATH", str(context))
        with pytest.raises(UserError, match="docker is not installed"):
            images.push("7", context, self.cloud().account, lambda _: None)
        docker = context / "docker"
        docker.write_text("#!/bin/sh\nexit 3\n")
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", f"{context}:/bin:/usr/bin")
        with pytest.raises(UserError, match=r"`docker login .*` failed with exit code 3\."):
            images.push("7", context, self.cloud().account, lambda _: None)
