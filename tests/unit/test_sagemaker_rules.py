"""The platform's rules for the specification and for requests: M1 and M7 to M20.

M2 to M6 are rules for the log of a training job; see `tests/contract/test_sagemaker_client.py`.
"""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lstm_fcn.client.sagemaker.batch import Batch, transform_job
from lstm_fcn.client.sagemaker.checks import check, values_of
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.instances import supported_types
from lstm_fcn.client.sagemaker.specification import (
    VALIDATION_HYPERPARAMETERS,
    Specification,
    publication,
)
from lstm_fcn.client.sagemaker.training import Search, Training, metric_definitions, training_job, tuning_job
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, Hyperparameters, parse_hyperparameters
from lstm_fcn.container.media_types import REQUEST_TYPES, RESPONSE_TYPES
from lstm_fcn.container.metrics import METRICS_BY_NAME
from lstm_fcn.container.ranges import parse_range

IMAGES = (
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:1",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serve:1",
)
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
MODEL = "s3://models/job/output/model.tar.gz"
UNVALIDATED = Specification(training_image=IMAGES[0], serving_image=IMAGES[1])
VALIDATED = replace(
    UNVALIDATED,
    model_data=MODEL,
    role=ROLE,
    training="s3://data/train",
    series="s3://data/series",
    output="s3://data/out",
)
ALGORITHM, PACKAGE = publication(VALIDATED)
TRAINING = ALGORITHM.parameters["TrainingSpecification"]
INFERENCE = ALGORITHM.parameters["InferenceSpecification"]
TUNABLE = {name: parameter.search for name, parameter in PARAMETERS.items() if parameter.search}
HYPERPARAMETERS = {item["Name"]: item for item in TRAINING["SupportedHyperParameters"]}
JOB = Training(
    image=IMAGES[0], role=ROLE, training="s3://data/train", validation="s3://data/valid", output="s3://models"
)
ENDPOINT = Endpoint(image=IMAGES[1], role=ROLE, model_data=MODEL)
BATCH = Batch(image=IMAGES[1], role=ROLE, model_data=MODEL, data="s3://data/series", output="s3://data/out")


def limits(name: str) -> dict[str, Any]:
    """The range of a hyperparameter of any type."""
    [found] = HYPERPARAMETERS[name]["Range"].values()
    return dict(found)


@pytest.mark.checklist("54: requests pass the length and pattern checks of botocore's model")
def test_the_requests_are_accepted() -> None:
    unvalidated = publication(UNVALIDATED)
    check([ALGORITHM, PACKAGE, *unvalidated])
    json.dumps(ALGORITHM.parameters)
    assert not [request for request in unvalidated if "ValidationSpecification" in request.parameters]


@pytest.mark.checklist("52: at most 20 metric definitions, names up to 255 and regexes up to 500 characters")
def test_m01_metric_definitions() -> None:
    definitions = metric_definitions()
    assert 1 <= len(definitions) <= 20
    for item in definitions:
        assert len(item["Name"]) <= 255
        assert len(item["Regex"]) <= 500
        assert re.compile(item["Regex"]).groups == 1
    assert TRAINING["MetricDefinitions"] == definitions


@pytest.mark.checklist("52: the objective is among the metric definitions")
def test_m07_the_objective_is_among_the_metrics() -> None:
    for objective in METRICS_BY_NAME:
        found = tuning_job("tuning", JOB, Search(objective=objective)).parameters
        definitions = found["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]
        assert objective in [item["Name"] for item in definitions]
    names = {item["Name"] for item in TRAINING["MetricDefinitions"]}
    for item in TRAINING["SupportedTuningJobObjectiveMetrics"]:
        assert item["MetricName"] in names
        assert item["Type"] in ("Minimize", "Maximize")


def test_m08_hyperparameter_specifications() -> None:
    assert len(HYPERPARAMETERS) <= 100
    for name, item in HYPERPARAMETERS.items():
        assert item["Type"] in ("Integer", "Continuous", "Categorical")
        assert list(item["Range"]) == [f"{item['Type']}ParameterRangeSpecification"]
        assert isinstance(item["DefaultValue"], str)
        assert item["IsRequired"] is False
        values = limits(name).values() if item["Type"] != "Categorical" else limits(name)["Values"]
        assert 1 <= len(values) <= 30
        assert all(isinstance(value, str) and len(value) <= 256 for value in [*values, item["DefaultValue"], name])


def test_m09_values_are_numbers_for_the_sdk() -> None:
    kinds = {"Integer": int, "Continuous": float, "Categorical": str}
    for name, item in HYPERPARAMETERS.items():
        cast = kinds[item["Type"]]
        cast(item["DefaultValue"])
        if item["Type"] != "Categorical":
            assert cast(limits(name)["MinValue"]) < cast(limits(name)["MaxValue"])
    modes = {mode for channel in TRAINING["TrainingChannels"][:2] for mode in channel["SupportedInputModes"]}
    assert modes == set(CHANNELS[0].input_modes)


def test_m10_the_container_accepts_what_is_specified_and_nothing_else() -> None:
    assert list(HYPERPARAMETERS) == list(PARAMETERS)
    defaults = {name: item["DefaultValue"] for name, item in HYPERPARAMETERS.items()}
    assert parse_hyperparameters(defaults) == Hyperparameters()
    for name, item in HYPERPARAMETERS.items():
        if item["Type"] == "Categorical":
            assert item["DefaultValue"] in limits(name)["Values"]
            for value in limits(name)["Values"]:
                parse_hyperparameters({name: value})
            with pytest.raises(UserError):
                parse_hyperparameters({name: "no such choice"})
            continue
        low, high = (float(limits(name)[end]) for end in ("MinValue", "MaxValue"))
        assert low <= float(item["DefaultValue"]) <= high
        parse_hyperparameters({name: limits(name)["MinValue"]})
        parse_hyperparameters({name: limits(name)["MaxValue"]})
        for outside in (low - 1, high + 1):
            with pytest.raises(UserError):
                parse_hyperparameters({name: str(outside)})


def test_m10_ranges_of_the_table_lie_within_the_specification() -> None:
    for name, text in TUNABLE.items():
        assert HYPERPARAMETERS[name]["IsTunable"] is True
        found = parse_range(name, text)
        if found.values and HYPERPARAMETERS[name]["Type"] == "Categorical":
            assert set(found.values) <= set(limits(name)["Values"])
            continue
        for value in found.values or (str(found.low), str(found.high)):
            assert float(limits(name)["MinValue"]) <= float(value) <= float(limits(name)["MaxValue"])
    assert not any(item["IsTunable"] for name, item in HYPERPARAMETERS.items() if name not in TUNABLE)


@pytest.mark.checklist("53: the hyperparameter `epochs` is an integer of at most 20000")
def test_m11_hyperband_finds_the_epochs() -> None:
    assert HYPERPARAMETERS["epochs"]["Type"] == "Integer"
    assert int(limits("epochs")["MaxValue"]) <= 20000
    found = tuning_job("tuning", JOB, Search(strategy="Hyperband")).parameters
    assert "epochs" in found["TrainingJobDefinition"]["StaticHyperParameters"]


def test_m12_training_specification() -> None:
    assert re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", ALGORITHM.parameters["AlgorithmName"])
    assert TRAINING["TrainingImage"] == IMAGES[0]
    assert TRAINING["SupportsDistributedTraining"] is True
    assert 1 <= len(TRAINING["TrainingChannels"]) <= 8
    supported = TRAINING["SupportedTrainingInstanceTypes"]
    assert set(supported) < set(values_of("TrainingInstanceType"))
    assert {"ml.m5.xlarge", "ml.c7i-flex.xlarge", "ml.g4dn.xlarge", "ml.p6-b200.48xlarge"} <= set(supported)
    families = {name.split(".")[1] for name in supported}
    assert not families & {"trn1", "trn2", "p2", "p3", "p6e-gb200"}  # no CUDA, too old, not x86-64


def test_m13_channels() -> None:
    assert [item["Name"] for item in TRAINING["TrainingChannels"]] == ["training", "validation", "model"]
    assert [item["IsRequired"] for item in TRAINING["TrainingChannels"]] == [True, False, False]
    for item, channel in zip(TRAINING["TrainingChannels"], CHANNELS, strict=True):
        assert item["SupportedContentTypes"] == list(channel.content_types)
        assert item["SupportedInputModes"] == list(channel.input_modes)
        assert set(item["SupportedCompressionTypes"]) <= {"None", "Gzip"}


def test_m14_inference_specification() -> None:
    [container] = INFERENCE["Containers"]
    assert container == {"Image": IMAGES[1]}
    assert PACKAGE.parameters["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == MODEL
    assert INFERENCE["SupportedContentTypes"] == list(REQUEST_TYPES)
    assert INFERENCE["SupportedResponseMIMETypes"] == list(RESPONSE_TYPES)
    for shape, key in (
        ("TransformInstanceType", "SupportedTransformInstanceTypes"),
        ("ProductionVariantInstanceType", "SupportedRealtimeInferenceInstanceTypes"),
    ):
        supported = INFERENCE[key]
        assert supported == supported_types(shape, gpu=False)
        assert set(supported) < set(values_of(shape))
        assert {"ml.m5.large", "ml.c6i.large", "ml.r7i.large"} <= set(supported)
        assert not [name for name in supported if re.match(r"ml\.(g|p|inf|trn|dl|[cmrt]\d+g)", name)]


def test_m15_validation_profile() -> None:
    found = ALGORITHM.parameters["ValidationSpecification"]
    assert found["ValidationRole"] == ROLE
    [profile] = found["ValidationProfiles"]
    job = profile["TrainingJobDefinition"]
    assert job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] == VALIDATED.training
    assert job["HyperParameters"] == VALIDATION_HYPERPARAMETERS == {"epochs": "50"}  # else the default preset
    parse_hyperparameters(job["HyperParameters"])
    assert job["ResourceConfig"]["InstanceType"] in TRAINING["SupportedTrainingInstanceTypes"]
    transform = profile["TransformJobDefinition"]
    assert transform["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == VALIDATED.series
    assert transform["TransformResources"]["InstanceType"] in INFERENCE["SupportedTransformInstanceTypes"]
    [of_package] = PACKAGE.parameters["ValidationSpecification"]["ValidationProfiles"]
    assert of_package["TransformJobDefinition"] == transform


def test_m16_training_job() -> None:
    found = training_job("a" * 63, JOB)
    check([found])
    assert {"AlgorithmSpecification", "ResourceConfig", "StoppingCondition"} <= set(found.parameters)
    with pytest.raises(UserError, match="64 characters"):
        check([training_job("a" * 64, JOB)])


def test_m17_tuning_job() -> None:
    check([tuning_job("a" * 32, JOB, Search())])
    with pytest.raises(UserError, match="33 characters"):
        check([tuning_job("a" * 33, JOB, Search())])
    for strategy in values_of("HyperParameterTuningJobStrategyType"):
        found = tuning_job("tuning", JOB, Search(strategy=strategy)).parameters["HyperParameterTuningJobConfig"]
        assert found["TrainingJobEarlyStoppingType"] == "Off"
        if strategy == "Grid":
            assert list(found["ParameterRanges"]) == ["CategoricalParameterRanges"]
    assert len(TUNABLE) <= 30
    with pytest.raises(UserError, match="Strategy is 'Guess'"):
        check([tuning_job("tuning", JOB, Search(strategy="Guess"))])
    with pytest.raises(UserError, match="6 entries; the maximum is 5"):
        check([tuning_job("tuning", JOB, Search(warm_start=["a", "b", "c", "d", "e", "f"]))])
    with pytest.raises(UserError, match="WarmStartType is 'Copy'"):
        check([tuning_job("tuning", JOB, Search(warm_start=["a"], warm_start_type="Copy"))])


def test_m18_model() -> None:
    created, *_ = endpoint("e", replace(ENDPOINT, precision="bfloat16", outputs="predicted_label"))
    environment = {"LSTM_FCN_PRECISION": "bfloat16", "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label"}
    assert created.parameters["PrimaryContainer"]["Environment"] == environment
    check([created])
    created, *_ = endpoint("e", replace(ENDPOINT, environment={"A": "x" * 1025}))
    with pytest.raises(UserError, match=r"Environment\.A has 1025 characters"):
        check([created])


def test_m19_endpoint_configuration() -> None:
    for memory in range(1024, 6145, 1024):
        check(endpoint("e", replace(ENDPOINT, serverless=True, memory=memory, concurrency=200)))
    with pytest.raises(UserError, match="MaxConcurrency is 201"):
        check(endpoint("e", replace(ENDPOINT, serverless=True, concurrency=201)))
    with pytest.raises(UserError, match="MaxConcurrentInvocationsPerInstance is 1001"):
        check(endpoint("e", replace(ENDPOINT, async_output="s3://o/a", async_concurrency=1001)))


def test_m20_transform_job() -> None:
    check(transform_job("t", replace(BATCH, max_payload=20, max_concurrent=5, split="Line", assemble="Line")))
    check(transform_job("t", replace(BATCH, max_payload=0, max_concurrent=5)))  # a stream
    with pytest.raises(UserError, match="InputFilter has 64 characters"):
        check(transform_job("t", replace(BATCH, input_filter="$" * 64)))
    with pytest.raises(UserError, match="Environment has 17 entries"):
        check(transform_job("t", replace(BATCH, environment={f"A{k}": "" for k in range(17)})))
    with pytest.raises(UserError, match="BatchStrategy is 'MULTI_RECORD'"):
        check(transform_job("t", replace(BATCH, strategy="MULTI_RECORD")))
