"""Settings become requests that pass the checks; settings that contradict each other are refused."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lstm_fcn.client.sagemaker.batch import DEFAULT_PAYLOAD_MB, Batch, transform_job
from lstm_fcn.client.sagemaker.checks import check, values_of
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.images import IMAGES, docker_commands, registry, repositories
from lstm_fcn.client.sagemaker.request import Request, Serving, join, unique_name
from lstm_fcn.client.sagemaker.training import (
    _SCALES,
    Search,
    Training,
    training_job,
    tuning_job,
)
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS
from lstm_fcn.container.metrics import METRICS
from lstm_fcn.container.optml import BY
from lstm_fcn.container.ranges import SCALES, Range, default_ranges, parse_range
from lstm_fcn.serving.settings import Settings

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn-train:1"
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
JOB = Training(image=IMAGE, role=ROLE, training="s3://data/train", output="s3://models/out")
WITH_VALIDATION = replace(JOB, validation="s3://data/valid")
ENDPOINT = Endpoint(image=IMAGE, role=ROLE, model_data="s3://models/out/job/output/model.tar.gz")
BATCH = Batch(image=IMAGE, role=ROLE, model_data=ENDPOINT.model_data, data="s3://data/series", output="s3://out/p")


TUNABLE = {name: parameter.search for name, parameter in PARAMETERS.items() if parameter.search}
SEARCHED = [item.name for item in default_ranges()]


def ranges(*texts: str) -> list[Range]:
    """Ranges from `NAME=RANGE`."""
    return [parse_range(*text.split("=", 1)) for text in texts]


def sent(*requests: Request) -> list[dict[str, Any]]:
    """The parameters of the requests after they have been checked."""
    check(requests)
    return [request.parameters for request in requests]


class TestTraining:
    def test_defaults(self) -> None:
        [found] = sent(training_job("job", JOB))
        assert found["TrainingJobName"] == "job"
        assert found["AlgorithmSpecification"]["TrainingImage"] == IMAGE
        assert found["RoleArn"] == ROLE
        assert found["OutputDataConfig"] == {"S3OutputPath": "s3://models/out"}
        assert found["ResourceConfig"] == {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
        assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
        assert "HyperParameters" not in found
        assert not {"EnableManagedSpotTraining", "CheckpointConfig", "VpcConfig", "Tags", "Environment"} & set(found)
        json.dumps(found)

    def test_a_model_for_each_value_of_a_column(self) -> None:
        [found] = sent(training_job("job", replace(JOB, by="machine", instance_count=4)))
        assert found["Environment"] == {BY: "machine"}
        [channel] = found["InputDataConfig"]
        assert channel["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "FullyReplicated"
        with pytest.raises(UserError, match="A tuning job trains one model; leave out --by"):
            tuning_job("job", replace(JOB, by="machine"), Search())

    def test_all_settings(self) -> None:
        job = replace(
            WITH_VALIDATION,
            model="s3://models/out/earlier/output/model.tar.gz",
            hyperparameters={"epochs": 200, "lr": "0.005"},
            instance_type="ml.g5.xlarge",
            instance_count=2,
            input_mode="Pipe",
            sharded=True,
            keep_alive=1800,
            tags={"project": "x"},
            subnets=["subnet-1"],
            security_groups=["sg-1"],
            key="1234abcd-12ab-34cd-56ef-1234567890ab",
        )
        [found] = sent(training_job("job", job))
        assert found["HyperParameters"] == {"epochs": "200", "lr": "0.005"}
        assert found["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 1800
        assert found["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
        assert found["Tags"] == [{"Key": "project", "Value": "x"}]
        training, validation, model = found["InputDataConfig"]
        assert training["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "ShardedByS3Key"
        assert validation["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "FullyReplicated"
        assert [item["InputMode"] for item in (training, validation, model)] == ["Pipe", "Pipe", "File"]
        assert model["ChannelName"] == "model"
        assert model["ContentType"] == "application/x-sagemaker-model"
        assert model["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "FullyReplicated"
        assert model["DataSource"]["S3DataSource"]["S3Uri"] == job.model

    @pytest.mark.parametrize(
        ("instance_type", "takes_a_key"),
        [
            ("ml.m5.xlarge", True),
            ("ml.c6i.xlarge", True),
            ("ml.t3.large", True),
            ("ml.r5d.large", False),
            ("ml.g4dn.xlarge", False),
            ("ml.g6e.xlarge", False),
            ("ml.p4d.24xlarge", False),
            ("ml.p6-b200.48xlarge", False),
        ],
    )
    def test_local_disks_take_no_key(self, instance_type: str, takes_a_key: bool) -> None:
        [found] = sent(training_job("job", replace(JOB, key="alias/x", instance_type=instance_type)))
        assert found["OutputDataConfig"]["KmsKeyId"] == "alias/x"
        assert ("VolumeKmsKeyId" in found["ResourceConfig"]) is takes_a_key

    def test_spot(self) -> None:
        [found] = sent(training_job("job", replace(JOB, spot=True, max_runtime=600, max_wait=900)))
        assert found["EnableManagedSpotTraining"] is True
        assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 900}
        assert found["CheckpointConfig"] == {"S3Uri": "s3://models/out/job/checkpoints/"}
        [found] = sent(training_job("job", replace(JOB, spot=True, max_runtime=600)))
        assert found["StoppingCondition"]["MaxWaitTimeInSeconds"] == 1200

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hyperparameters": {"epoch": "3"}}, "epoch is unknown; did you mean epochs?"),
            (
                {"hyperparameters": {"lr": "2", "epochs": "-1"}},
                "lr=2 must be a number from 1e-07 to 1.0. epochs=-1 must",
            ),
            (
                {"hyperparameters": {"epochs": "3" + " " * 256}},
                "The value of epochs has 257 characters; the limit is 256.",
            ),
            (
                {"validation": "s3://v", "hyperparameters": {"validation-fraction": "0.2"}},
                "validation-fraction must be 0 if the job has validation data; leave out one of the two.",
            ),
            ({"by": "m", "sharded": True}, "A job with --by takes --training alone, and all of it on each machine."),
            ({"max_wait": 9}, "max-wait applies to spot instances only; add --spot."),
            ({"spot": True, "max_wait": 9}, "max-wait=9 must be at least max-runtime=86400."),
            ({"spot": True, "keep_alive": 9}, "Spot instances cannot be kept alive"),
            ({"max_runtime": 28 * 86400 + 1}, "must be at most 2419200 seconds (28 days)."),
            ({"subnets": ["subnet-1"]}, "A VPC needs both subnets and security groups"),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            training_job("job", replace(JOB, **changes))


class TestTuning:
    def test_defaults(self) -> None:
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search()))
        config = found["HyperParameterTuningJobConfig"]
        assert config["Strategy"] == "Bayesian"
        assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid_accuracy"}
        assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2}
        assert config["TrainingJobEarlyStoppingType"] == "Off"
        names = [item["Name"] for kind in config["ParameterRanges"].values() for item in kind]
        assert set(names) == set(SEARCHED)
        assert config["ParameterRanges"]["ContinuousParameterRanges"][1] == {
            "Name": "lr",
            "MinValue": "0.0001",
            "MaxValue": "0.01",
            "ScalingType": "Logarithmic",
        }
        definition = found["TrainingJobDefinition"]
        names = [item["Name"] for item in definition["AlgorithmSpecification"]["MetricDefinitions"]]
        assert "valid_accuracy" in names
        assert "StaticHyperParameters" not in definition

    def test_all_settings(self) -> None:
        job = replace(WITH_VALIDATION, hyperparameters={"epochs": "200"}, spot=True, tags={"a": "b"})
        search = Search(
            strategy="Random",
            objective="valid_f1",
            ranges=ranges("lr=1e-4:1e-1:log", "hidden-size=8,64", "num-layers=1:4"),
            max_jobs=50,
            parallel=5,
            early_stopping=True,
            warm_start=["earlier-1", "earlier-2"],
            warm_start_type="TransferLearning",
        )
        [found] = sent(tuning_job("tuning", job, search))
        config = found["HyperParameterTuningJobConfig"]
        assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid_f1"}
        assert config["TrainingJobEarlyStoppingType"] == "Auto"
        assert config["ParameterRanges"] == {
            "ContinuousParameterRanges": [
                {"Name": "lr", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
            ],
            "CategoricalParameterRanges": [{"Name": "hidden-size", "Values": ["8", "64"]}],
            "IntegerParameterRanges": [{"Name": "num-layers", "MinValue": "1", "MaxValue": "4", "ScalingType": "Auto"}],
        }
        assert found["WarmStartConfig"]["WarmStartType"] == "TransferLearning"
        assert len(found["WarmStartConfig"]["ParentHyperParameterTuningJobs"]) == 2
        assert found["TrainingJobDefinition"]["EnableManagedSpotTraining"] is True
        assert "CheckpointConfig" not in found["TrainingJobDefinition"]
        assert found["TrainingJobDefinition"]["StaticHyperParameters"] == {"epochs": "200"}

    def test_every_metric_can_be_the_objective(self) -> None:
        for metric in METRICS:
            [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search(objective=metric.name)))
            goal = found["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
            assert goal == {"Type": metric.objective, "MetricName": metric.name}

    def test_every_range_of_the_table_is_valid(self) -> None:
        search = Search(ranges=ranges(*(f"{name}={text}" for name, text in TUNABLE.items())))
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, search))
        found_ranges = [
            item for kind in found["HyperParameterTuningJobConfig"]["ParameterRanges"].values() for item in kind
        ]
        assert len(found_ranges) == len(TUNABLE)
        assert set(_SCALES) == set(SCALES)
        assert set(_SCALES.values()) == set(values_of("HyperParameterScalingType"))

    def test_hyperparameters_that_are_set_are_not_tuned(self) -> None:
        [found] = sent(tuning_job("tuning", replace(WITH_VALIDATION, hyperparameters={"lr": "0.01"}), Search()))
        assert "lr" not in json.dumps(found["HyperParameterTuningJobConfig"])

    def test_grid_tries_every_combination(self) -> None:
        search = Search(strategy="Grid", ranges=ranges("hidden-size=8,64,128", "num-layers=1,2"))
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, search))
        assert found["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 6
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search(strategy="Grid")))
        limits = found["HyperParameterTuningJobConfig"]["ResourceLimits"]
        assert limits["MaxNumberOfTrainingJobs"] == 18  # of the default ranges, those that are lists

    def test_hyperband_gets_the_number_of_epochs(self) -> None:
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search(strategy="Hyperband")))
        assert found["TrainingJobDefinition"]["StaticHyperParameters"] == {"epochs": "200"}
        job = replace(WITH_VALIDATION, hyperparameters={"epochs": "100", "fine-tune-rounds": "2"})
        [found] = sent(tuning_job("tuning", job, Search(strategy="Hyperband")))
        strategy = found["HyperParameterTuningJobConfig"]["StrategyConfig"]
        assert strategy == {"HyperbandStrategyConfig": {"MaxResource": 300}}

    @pytest.mark.parametrize(
        ("changes", "search", "message"),
        [
            ({"validation": ""}, {}, "The objective valid_accuracy needs validation data: give --validation"),
            ({}, {"objective": "f1"}, "Unknown objective 'f1'; supported: train_loss"),
            (
                {"hyperparameters": {"lr": "0.1"}},
                {"ranges": ["lr=0.1:0.2"]},
                "lr is set to 0.1 and also has the range 0.1:0.2",
            ),
            ({}, {"ranges": ["lr=0.1:0.3", "lr=0.1:0.2"]}, "lr has two ranges"),
            ({"hyperparameters": {"convolutions": "false"}}, {"ranges": ["recurrent=lstm,none"]}, "leaves no network"),
            ({}, {"ranges": ["lr=0.1:0.2"], "strategy": "Grid"}, "lists of values; write lr=VALUE,VALUE,VALUE."),
            (
                {},
                {"strategy": "Hyperband", "early_stopping": True},
                "The strategy Hyperband always stops bad jobs early; leave out --early-stopping.",
            ),
            (
                {"hyperparameters": {"epochs": "10000", "fine-tune-rounds": "2"}},
                {"strategy": "Hyperband"},
                "The strategy Hyperband supports 20000 epochs in all rounds; this job has 30000.",
            ),
            (
                {"hyperparameters": {name: TUNABLE[name].split(",")[0].split(":")[0] for name in SEARCHED}},
                {},
                "there is nothing to tune",
            ),
        ],
    )
    def test_refused(self, changes: dict[str, Any], search: dict[str, Any], message: str) -> None:
        given = {**search, "ranges": ranges(*search.get("ranges", []))}
        with pytest.raises(UserError, match=re.escape(message)):
            tuning_job("tuning", replace(WITH_VALIDATION, **changes), Search(**given))

    def test_validation_data_may_be_held_out(self) -> None:
        sent(tuning_job("tuning", replace(JOB, hyperparameters={"validation-fraction": "0.2"}), Search()))


class TestEndpoint:
    def test_on_instances(self) -> None:
        model, config, created = sent(*endpoint("e", replace(ENDPOINT, instance_count=2, tags={"a": "b"})))
        assert model["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": ENDPOINT.model_data}
        assert model["ExecutionRoleArn"] == ROLE
        assert config["ProductionVariants"] == [
            {
                "VariantName": "all",
                "ModelName": "e",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 2,
                "InitialVariantWeight": 1.0,
            }
        ]
        assert created == {"EndpointName": "e", "EndpointConfigName": "e", "Tags": [{"Key": "a", "Value": "b"}]}

    def test_serverless(self) -> None:
        settings = replace(ENDPOINT, serverless=True, memory=3072, concurrency=7)
        model, config, _ = sent(*endpoint("e", settings))
        [variant] = config["ProductionVariants"]
        assert variant["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 7}
        assert "InstanceType" not in variant
        assert model["PrimaryContainer"]["Environment"] == {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}

    def test_asynchronous(self) -> None:
        settings = replace(ENDPOINT, async_output="s3://out/answers", async_concurrency=4, key="alias/x")
        model, config, _ = sent(*endpoint("e", settings))
        assert config["AsyncInferenceConfig"] == {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
            "OutputConfig": {"S3OutputPath": "s3://out/answers", "KmsKeyId": "alias/x"},
        }
        environment = model["PrimaryContainer"]["Environment"]
        found = Settings.from_environment(environment)
        assert (found.timeout, found.max_body_mib) == (3600, 1024)

    def test_data_capture(self) -> None:
        _, config, _ = sent(*endpoint("e", replace(ENDPOINT, capture_percent=20, capture_output="s3://out/kept")))
        capture = config["DataCaptureConfig"]
        assert capture["InitialSamplingPercentage"] == 20
        assert capture["DestinationS3Uri"] == "s3://out/kept"
        assert capture["CaptureContentTypeHeader"]["CsvContentTypes"] == ["text/csv"]

    def test_scaling(self) -> None:
        *_, register, policy = sent(*endpoint("e", replace(ENDPOINT, scale_to=4, scale_target=100)))
        assert (register["MinCapacity"], register["MaxCapacity"]) == (1, 4)
        assert register["ResourceId"] == policy["ResourceId"] == "endpoint/e/variant/all"
        target = policy["TargetTrackingScalingPolicyConfiguration"]
        assert target["TargetValue"] == 100
        assert (
            target["PredefinedMetricSpecification"]["PredefinedMetricType"] == "SageMakerVariantInvocationsPerInstance"
        )
        *_, policy = sent(*endpoint("e", replace(ENDPOINT, scale_to=4, async_output="s3://out/a")))
        metric = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
        assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
        assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "e"}]

    def test_environment(self) -> None:
        settings = replace(ENDPOINT, precision="bfloat16", outputs="predicted_label,probability")
        [model, *_] = sent(*endpoint("e", settings))
        found = Settings.from_environment(model["PrimaryContainer"]["Environment"])
        assert (found.precision, found.outputs) == ("bfloat16", ("predicted_label", "probability"))
        assert Serving().full_environment() == {}
        with pytest.raises(UserError, match="outputs=colour: 'colour' is not an output; supported: predicted_label"):
            endpoint("e", replace(ENDPOINT, outputs="colour"))
        with pytest.raises(UserError, match="precision=int8 is not supported; use float32 or bfloat16"):
            endpoint("e", replace(ENDPOINT, precision="int8"))

    @pytest.mark.parametrize(
        ("changes", "machine_image"),
        [
            ({"instance_type": "ml.g5.xlarge"}, "al2023-ami-sagemaker-inference-gpu-4-1"),
            ({"instance_type": "ml.p4d.24xlarge"}, "al2023-ami-sagemaker-inference-gpu-4-1"),
            ({"instance_type": "ml.g4dn.xlarge", "async_output": "s3://o/a"}, "al2023-ami-sagemaker-inference-gpu-4-1"),
            ({"instance_type": "ml.m5.large"}, None),
            ({"instance_type": "ml.g5.xlarge", "serverless": True}, None),
        ],
    )
    def test_gpu_instances_get_a_recent_driver(self, changes: dict[str, Any], machine_image: str | None) -> None:
        _, config, _ = sent(*endpoint("e", replace(ENDPOINT, **changes)))
        assert config["ProductionVariants"][0].get("InferenceAmiVersion") == machine_image
        assert machine_image is None or machine_image in values_of("ProductionVariantInferenceAmiVersion")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_data": ""}, "model-data is missing; a new model needs image, role and model-data."),
            (
                {"serverless": True, "async_output": "s3://a"},
                "A serverless endpoint cannot be asynchronous; leave out one of the two.",
            ),
            ({"serverless": True, "scale_to": 2}, "A serverless endpoint cannot be scaled"),
            ({"serverless": True, "capture_percent": 2}, "A serverless endpoint cannot capture data"),
            (
                {"serverless": True, "subnets": ["s"], "security_groups": ["g"]},
                "A serverless endpoint cannot run in a VPC",
            ),
            ({"serverless": True, "memory": 1500}, "memory=1500 must be 1024, 2048, 3072, 4096, 5120 or 6144 MB."),
            ({"serverless": True, "memory": 7168}, "memory=7168 must be"),
            ({"async_output": "s3://a", "capture_percent": 2}, "An asynchronous endpoint cannot capture data"),
            ({"async_concurrency": 2}, "async-concurrency applies to asynchronous endpoints only; add --async S3."),
            ({"scale_to": 1, "instance_count": 2}, "scale-to=1 must be at least instance-count=2."),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            endpoint("e", replace(ENDPOINT, **changes))


class TestTransform:
    def test_with_a_new_model(self) -> None:
        model, found = sent(*transform_job("t", replace(BATCH, environment={"A": "b"})))
        assert model["ModelName"] == found["ModelName"] == found["TransformJobName"] == "t"
        assert found["TransformInput"] == {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/series"}},
            "ContentType": "text/csv",
            "SplitType": "Line",
        }
        assert found["TransformOutput"] == {"S3OutputPath": "s3://out/p", "Accept": "text/csv", "AssembleWith": "None"}
        assert found["BatchStrategy"] == "MultiRecord"
        assert found["Environment"] == {"A": "b"}
        # The container sets these at /execution-parameters.
        assert not {"MaxPayloadInMB", "MaxConcurrentTransforms", "DataProcessing"} & set(found)

    def test_with_an_existing_model(self) -> None:
        [found] = sent(*transform_job("t", Batch(data="s3://d", output="s3://o", model="m")))
        assert found["ModelName"] == "m"

    def test_joined(self) -> None:
        batch = replace(BATCH, join=True, input_filter="$[1:]", output_filter="$[0,-1]")
        _, found = sent(*transform_job("t", batch))
        assert found["DataProcessing"] == {
            "InputFilter": "$[1:]",
            "OutputFilter": "$[0,-1]",
            "JoinSource": "Input",
        }
        assert found["TransformOutput"]["AssembleWith"] == "Line"

    def test_whole_files(self) -> None:
        _, found = sent(*transform_job("t", replace(BATCH, split="None", max_payload=100, max_concurrent=1)))
        assert found["TransformInput"]["SplitType"] == "None"
        assert "BatchStrategy" not in found
        assert (found["MaxPayloadInMB"], found["MaxConcurrentTransforms"]) == (100, 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_data": ""}, "model-data is missing; a new model needs image, role and model-data."),
            ({"content_type": "text/plain"}, "content-type=text/plain is not supported; use text/csv"),
            ({"accept": "application/x-npy"}, "accept=application/x-npy is not supported"),
            ({"content_type": "application/x-npy"}, "application/x-npy cannot be split"),
            ({"content_type": "application/json"}, "Lines of application/json cannot be sent together"),
            ({"join": True, "accept": "application/jsonlines"}, "Predictions can only be joined with their input if"),
            ({"join": True, "split": "None"}, "Predictions can only be joined with their input if"),
            ({"join": True, "assemble": "None"}, "Predictions can only be joined with their input if"),
            ({"max_payload": 101, "max_concurrent": 1}, "max-payload=101 must be at most 100 MB."),
            ({"max_payload": 10}, "max-payload needs max-concurrent too"),
            (
                {"max_payload": 10, "max_concurrent": 11},
                "max-concurrent=11 times 10 MB for each request must be at most 100 MB.",
            ),
            (
                {"max_concurrent": 17},
                f"max-concurrent=17 times {DEFAULT_PAYLOAD_MB} MB for each request must be at most 100 MB.",
            ),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            transform_job("t", replace(BATCH, **changes))

    def test_media_types_may_have_parameters(self) -> None:
        sent(
            *transform_job("t", replace(BATCH, content_type="text/csv; charset=utf-8", accept="text/csv;header=absent"))
        )


class TestImages:
    def test_commands(self) -> None:
        address = registry("123456789012", "eu-west-1")
        commands = docker_commands(address, "1.0", "source")
        assert [command[1] for command in commands] == ["build", "tag", "push"] * 2
        assert commands[0] == [
            *("docker", "build", "--platform", "linux/amd64", "--provenance=false", "--sbom=false"),
            *("-f", "source/Dockerfile.train", "-t", "lstm-fcn-train:1.0", "source"),
        ]
        assert commands[5] == ["docker", "push", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn-serve:1.0"]
        assert registry("1", "cn-north-1").endswith(".amazonaws.com.cn")
        assert [item["repositoryName"] for item in sent(*repositories())] == list(IMAGES)


class TestNames:
    @pytest.mark.parametrize("base", ["lstm-fcn", "a", "a-very-long-name-" * 5])
    @pytest.mark.parametrize("limit", [32, 63])
    def test_are_valid(self, base: str, limit: int) -> None:
        name = unique_name(base, limit)
        assert len(name) <= limit
        assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*-\d{8}-\d{6}-\d{3}", name)

    def test_addresses(self) -> None:
        assert join("s3://a/b/", "c", "d/") == join("s3://a/b", "c", "d/") == "s3://a/b/c/d/"
