"""Model packages: their requests, finding them by name, and deploying from one, with a fake AWS."""

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ResponseStreamingError

from lstm_fcn.client.sagemaker import packages
from lstm_fcn.client.sagemaker.account import NotFoundError
from lstm_fcn.client.sagemaker.batch import Batch, transform_job
from lstm_fcn.client.sagemaker.checks import check, fits, service_model
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.packages import Registration, properties, registration, statistics
from lstm_fcn.client.sagemaker.specification import inference_specification
from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS
from lstm_fcn.container.problem import Problem, Scaling, Task
from tests.unit.cloud import Cloud, refusal

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn-serve:1"
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
MODEL = "s3://models/first/output/model.tar.gz"
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/machines"
SETTINGS = Registration(image=IMAGE, model_data=MODEL, group="machines")
METRICS = {"train_loss": 0.1, "valid_accuracy": 0.9, "valid_f1": 0.8, "valid_auc": 0.95}


def metadata(task: Task = "binary", **hyperparameters: Any) -> Metadata:
    problem = Problem(task=task, classes=("a", "b"), length=16, scaling=Scaling(method="none"))
    given = {name.replace("_", "-"): value for name, value in hyperparameters.items()}
    return Metadata(problem=problem, hyperparameters=given, metrics=METRICS, versions={"lstm-fcn": "0.2.0"})


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """A `model.tar.gz`."""
    artifact.save(tmp_path, metadata(epochs=60, seed=0), b"graph", b"weights")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        file.add(tmp_path, ".")
    return content.getvalue()


def registry(archive: bytes, **answers: Any) -> Cloud:
    """An account with the model, in which the requests of `register` succeed; the group does not exist."""
    known: dict[str, Any] = {
        "get_object": lambda **_: {"Body": io.BytesIO(archive)},
        "put_object": {},
        "create_model_package_group": {},
        "create_model_package": {"ModelPackageArn": f"{ARN}/1"},
    }
    return Cloud(**known | answers)


def version(number: int, approval: str | None = "PendingManualApproval", status: str = "Completed") -> dict[str, Any]:
    """An entry of the response of `list_model_packages`, and the response of `describe_model_package`."""
    found = {"ModelPackageArn": f"{ARN}/{number}", "ModelPackageVersion": number, "ModelPackageStatus": status}
    return found | ({"ModelApprovalStatus": approval} if approval else {})


def group(*versions: dict[str, Any]) -> Cloud:
    """An account with one model package group, whose versions are listed newest first, each on a page."""
    pages = [{"ModelPackageSummaryList": [each], "NextToken": "more"} for each in versions]
    last: dict[str, Any] = {"ModelPackageSummaryList": []}
    return Cloud(describe_model_package_group={}, list_model_packages=[*pages, last], update_model_package={})


class TestRegister:
    def test_requests(self, archive: bytes) -> None:
        requests = registration(SETTINGS, registry(archive).account)
        check(requests)
        put, created, package = [request.parameters for request in requests]
        assert (put["Bucket"], put["Key"]) == ("models", "first/output/model-statistics.json")
        assert json.loads(put["Body"]) == statistics(metadata())
        assert created["ModelPackageGroupName"] == package["ModelPackageGroupName"] == "machines"
        assert package["InferenceSpecification"] == inference_specification(IMAGE, MODEL)
        assert package["ModelApprovalStatus"] == "PendingManualApproval"
        source = package["ModelMetrics"]["ModelQuality"]["Statistics"]
        assert source == {
            "ContentType": "application/json",
            "S3Uri": "s3://models/first/output/model-statistics.json",
        }
        assert package["CustomerMetadataProperties"] == {"lstm-fcn": "0.2.0", "epochs": "60"}
        json.dumps([put, created, package])  # for --dry-run

    def test_the_group_is_created_once(self, archive: bytes) -> None:
        cloud = registry(archive)
        assert packages.register(SETTINGS, cloud.account) == f"{ARN}/1"
        assert cloud.methods()[-3:] == ["put_object", "create_model_package_group", "create_model_package"]
        cloud = registry(archive, describe_model_package_group={})
        packages.register(SETTINGS, cloud.account)
        assert "create_model_package_group" not in cloud.methods()

    def test_approved_and_for_gpus(self, archive: bytes) -> None:
        settings = replace(SETTINGS, approved=True, gpu=True)
        package = registration(settings, registry(archive).account)[-1].parameters
        assert package["ModelApprovalStatus"] == "Approved"
        for key in ("SupportedTransformInstanceTypes", "SupportedRealtimeInferenceInstanceTypes"):
            assert {"ml.m5.large", "ml.g5.xlarge"} <= set(package["InferenceSpecification"][key])

    def test_a_refusal_tells_what_is_left(self, archive: bytes) -> None:
        refused = refusal("ValidationException", "The image cannot be read")
        cloud = registry(archive, create_model_package=refused, delete_model_package_group={})
        with pytest.raises(UserError, match="The image cannot be read") as error:
            packages.register(SETTINGS, cloud.account)
        assert str(error.value).endswith(
            "Created before that, and not deleted: s3://models/first/output/model-statistics.json."
        )
        assert cloud.methods()[-1] == "delete_model_package_group"
        cloud = registry(archive, create_model_package=refused, delete_model_package_group=refusal("AccessDenied"))
        with pytest.raises(UserError, match=r"not deleted: ModelPackageGroup machines, s3://models/first/"):
            packages.register(SETTINGS, cloud.account)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_data": "model.tar.gz"}, "model-data=model.tar.gz must be the address of a model: s3://BUCKET/"),
            ({"model_data": "s3://models"}, "model-data=s3://models must be the address of a model"),
            ({"group": "my_group"}, "ModelPackageGroupName is 'my_group'; its form must be letters, digits"),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        cloud = Cloud()
        with pytest.raises(UserError, match=re.escape(message)):
            packages.register(replace(SETTINGS, **changes), cloud.account)
        assert cloud.calls == []

    def test_no_model(self) -> None:
        cloud = Cloud(get_object=refusal("NoSuchKey", "The specified key does not exist."))
        with pytest.raises(UserError, match=f"There is no model at {MODEL}; correct the address"):
            packages.register(SETTINGS, cloud.account)
        with pytest.raises(UserError, match=f"^{MODEL} is not a complete tar archive"):
            packages.register(SETTINGS, registry(b"x").account)
        with pytest.raises(UserError, match=r"Access is denied \(s3:GetObject\)"):
            packages.register(SETTINGS, Cloud(get_object=refusal("AccessDenied")).account)

    def test_the_connection_breaks(self) -> None:
        class Body(io.BytesIO):
            def read(self, *_: Any) -> bytes:
                raise ResponseStreamingError(error="reset")

        with pytest.raises(UserError, match="s3:GetObject did not reach AWS"):
            packages.register(SETTINGS, Cloud(get_object={"Body": Body()}).account)


class TestMetadata:
    @pytest.mark.parametrize(("task", "kind"), [("binary", "binary"), ("multilabel", "multiclass")])
    def test_metrics(self, task: Task, kind: str) -> None:
        [(name, found)] = statistics(metadata(task)).items()
        assert name == f"{kind}_classification_metrics"
        assert {key: item["value"] for key, item in found.items()} == {
            "train_loss": 0.1,
            "accuracy": 0.9,
            "macro_f1": 0.8,
            "auc": 0.95,
        }
        assert {item["standard_deviation"] for item in found.values()} == {"NaN"}

    def test_what_the_service_does_not_accept_is_left_out(self) -> None:
        found = properties(metadata(lr=1e-06, dilations="1+2+4", views="a,b", device="x" * 257))
        assert found == {"lstm-fcn": "0.2.0", "lr": "1e-06", "dilations": "1+2+4"}
        assert not fits("", "CustomerMetadataValue")

    def test_all_hyperparameters_fit(self) -> None:
        limit = service_model("sagemaker").shape_for("CustomerMetadataMap").metadata["max"]
        assert 1 + len(PARAMETERS) <= limit
        for parameter in PARAMETERS.values():
            assert fits(parameter.name, "CustomerMetadataKey")
            assert all(fits(choice, "CustomerMetadataValue") for choice in parameter.choices)


class TestApprove:
    @pytest.mark.parametrize(("package", "found"), [("machines", 3), ("machines/2", 2)])
    def test_by_name(self, package: str, found: int) -> None:
        cloud = group(version(3), version(2), version(1))
        assert packages.approve(package, note="tested", account=cloud.account) == f"{ARN}/{found}"
        decision = {"ModelApprovalStatus": "Approved", "ApprovalDescription": "tested"}
        assert cloud.calls[-1] == ("update_model_package", {"ModelPackageArn": f"{ARN}/{found}", **decision})

    def test_rejected_by_arn(self) -> None:
        cloud = Cloud(describe_model_package=version(2), update_model_package={})
        packages.approve(f"{ARN}/2", reject=True, account=cloud.account)
        assert cloud.methods() == ["describe_model_package", "update_model_package"]
        assert cloud.calls[-1][1] == {"ModelPackageArn": f"{ARN}/2", "ModelApprovalStatus": "Rejected"}

    @pytest.mark.parametrize(
        ("package", "message"),
        [
            ("my_group", "'my_group' is not a model package; write GROUP, GROUP/VERSION, or an ARN such as"),
            ("machines/0", "'machines/0' is not a model package"),
            ("machines/two", "'machines/two' is not a model package"),
            (ARN, "is not a model package"),  # a model package without a group
            (f"{ARN.replace('model-package', 'model-package-group')}", "is not a model package"),
        ],
    )
    def test_names_of_a_wrong_form(self, package: str, message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            packages.approve(package, account=Cloud().account)

    def test_not_found(self) -> None:
        with pytest.raises(NotFoundError, match=f"There is no model package {ARN}/2 in this account and region"):
            packages.approve(f"{ARN}/2", account=Cloud().account)
        with pytest.raises(NotFoundError, match="There is no model package group machines in this account and region"):
            packages.approve("machines", account=Cloud().account)
        with pytest.raises(
            NotFoundError, match=r"The model package group machines has no version 7; the latest is 3\."
        ):
            packages.approve("machines/7", account=group(version(3), version(2)).account)
        with pytest.raises(NotFoundError, match="The model package group machines has no versions; register one"):
            packages.approve("machines", account=group().account)

    def test_a_note_is_a_line(self) -> None:
        cloud = group(version(1))
        with pytest.raises(UserError, match=r"ApprovalDescription .*; its form must be a single line"):
            packages.approve("machines", note="two\nlines", account=cloud.account)
        assert "update_model_package" not in cloud.methods()


class TestDeploy:
    def test_the_latest_approved_version(self) -> None:
        cloud = group(version(4), version(3, "Rejected"), version(2, "Approved"), version(1, "Approved"))
        assert packages.approved("machines", cloud.account) == f"{ARN}/2"
        assert packages.approved("machines/1", group(version(2), version(1, "Approved")).account) == f"{ARN}/1"
        cloud = Cloud(describe_model_package=version(1, "Approved"))
        assert packages.approved(f"{ARN}/1", cloud.account) == f"{ARN}/1"

    @pytest.mark.parametrize(
        ("package", "found", "message"),
        [
            ("machines/1", version(1), "The model package machines/1 is not approved (it is PendingManualApproval); "),
            ("machines/1", version(1, "Rejected"), "approve it with `lstm-fcn sagemaker approve machines/1`"),
            ("machines/1", version(1, None), "is not approved (it is without a status)"),
            ("machines", version(1), "The model package group machines has no approved version; approve the latest"),
            ("machines", version(1, "Approved", "Failed"), "The model package machines is Failed; wait until it is"),
        ],
    )
    def test_refused(self, package: str, found: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            packages.approved(package, group(found).account)

    def test_requests(self) -> None:
        settings = Endpoint(package=f"{ARN}/1", role=ROLE, outputs="probabilities")
        batch = Batch(package=f"{ARN}/1", role=ROLE, data="s3://data/series", output="s3://out/p")
        for requests in (endpoint("e", settings), transform_job("t", batch)):
            check(requests)
        container = endpoint("e", settings)[0].parameters["PrimaryContainer"]
        environment = {"SAGEMAKER_INFERENCE_OUTPUT": "probabilities"}
        assert container == {"ModelPackageName": f"{ARN}/1", "Environment": environment}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"role": ""}, "role is missing; a model from a model package needs a role."),
            ({"image": IMAGE}, "A model package includes image and model; leave out --image and --model-data."),
            ({"model_data": MODEL}, "A model package includes image and model"),
        ],
    )
    def test_contradictions(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            endpoint("e", replace(Endpoint(package=f"{ARN}/1", role=ROLE), **changes))
