"""What is sent: every request passes the checks, says what the settings say, and refuses what does not go together."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lstm_fcn.client.sagemaker.checks import check, values_of
from lstm_fcn.client.sagemaker.requests import (
    IMAGES,
    OBJECTIVES,
    SCALES,
    SEARCHED,
    TUNABLE,
    Batch,
    Endpoint,
    Range,
    Request,
    Search,
    Training,
    docker_commands,
    endpoint,
    join,
    number_of_jobs,
    parse_range,
    registry,
    repositories,
    scaling,
    serving_environment,
    training_job,
    transform_job,
    tuning_job,
    unique_name,
)
from lstm_fcn.client.study import PRESETS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import fields_by_name
from lstm_fcn.serving.settings import Settings

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn-train:1"
ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
JOB = Training(image=IMAGE, role=ROLE, training="s3://data/train", output="s3://models/out")
WITH_VALIDATION = replace(JOB, validation="s3://data/valid")
ENDPOINT = Endpoint(image=IMAGE, role=ROLE, model_data="s3://models/out/job/output/model.tar.gz")
BATCH = Batch(image=IMAGE, role=ROLE, model_data=ENDPOINT.model_data, data="s3://data/series", output="s3://out/p")


def sent(*requests: Request) -> list[dict[str, Any]]:
    """The requests' parameters, once they have been checked."""
    check(requests)
    return [request.parameters for request in requests]


class TestTraining:
    def test_the_least(self) -> None:
        [found] = sent(training_job("job", JOB))
        assert found["TrainingJobName"] == "job"
        assert found["AlgorithmSpecification"]["TrainingImage"] == IMAGE
        assert found["RoleArn"] == ROLE
        assert found["OutputDataConfig"] == {"S3OutputPath": "s3://models/out"}
        assert found["ResourceConfig"] == {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
        assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
        assert "HyperParameters" not in found
        assert not {"EnableManagedSpotTraining", "CheckpointConfig", "VpcConfig", "Tags"} & set(found)
        json.dumps(found)

    def test_everything(self) -> None:
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
    def test_disks_of_the_instance_itself_take_no_key(self, instance_type: str, takes_a_key: bool) -> None:
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
            ({"hyperparameters": {"lr": "2", "epochs": "0"}}, "lr=2 must be a number from 1e-07 to 1.0. epochs=0 must"),
            ({"hyperparameters": {"epochs": "3" + " " * 256}}, "epochs has 257 characters; 256 are the most."),
            (
                {"validation": "s3://v", "hyperparameters": {"validation-fraction": "0.2"}},
                "There is validation data; validation-fraction must be 0 with it.",
            ),
            ({"max_wait": 9}, "max-wait is for spot instances only."),
            ({"spot": True, "max_wait": 9}, "max-wait=9 must not be less than max-runtime=86400."),
            ({"spot": True, "keep_alive": 9}, "Spot instances cannot be kept alive"),
            ({"max_runtime": 28 * 86400 + 1}, "must be 2419200 seconds (28 days) at most."),
            ({"subnets": ["subnet-1"]}, "Subnets and security groups go together"),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            training_job("job", replace(JOB, **changes))


class TestTuning:
    def test_the_least(self) -> None:
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search()))
        config = found["HyperParameterTuningJobConfig"]
        assert config["Strategy"] == "Bayesian"
        assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid_accuracy"}
        assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2}
        assert config["TrainingJobEarlyStoppingType"] == "Off"
        ranges = [item for kind in config["ParameterRanges"].values() for item in kind]
        assert {item["Name"] for item in ranges} == set(SEARCHED)
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

    def test_everything(self) -> None:
        job = replace(WITH_VALIDATION, hyperparameters={"epochs": "200"}, spot=True, tags={"a": "b"})
        search = Search(
            strategy="Random",
            objective="valid_f1",
            ranges=[parse_range("lr=1e-4:1e-1:log"), parse_range("hidden-size=8,64"), parse_range("num-layers=1:4")],
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

    def test_every_declared_metric_can_be_the_objective(self) -> None:
        for objective, direction in OBJECTIVES.items():
            [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search(objective=objective)))
            assert found["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["Type"] == direction

    def test_every_range_of_the_table_is_good(self) -> None:
        search = Search(ranges=[parse_range(name) for name in TUNABLE])
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, search))
        ranges = [item for kind in found["HyperParameterTuningJobConfig"]["ParameterRanges"].values() for item in kind]
        assert len(ranges) == len(TUNABLE)
        assert set(SEARCHED) <= set(TUNABLE) <= set(fields_by_name())
        assert set(SCALES.values()) == set(values_of("HyperParameterScalingType"))

    def test_the_search_is_that_of_ones_own_machine(self) -> None:
        assert {name: TUNABLE[name] for name in SEARCHED} == PRESETS["default"]

    def test_what_is_set_is_not_searched(self) -> None:
        [found] = sent(tuning_job("tuning", replace(WITH_VALIDATION, hyperparameters={"lr": "0.01"}), Search()))
        assert "lr" not in json.dumps(found["HyperParameterTuningJobConfig"])

    def test_grid_tries_every_combination(self) -> None:
        search = Search(strategy="Grid", ranges=[parse_range("hidden-size=8,64,128"), parse_range("num-layers=1,2")])
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, search))
        assert found["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] == 6
        assert number_of_jobs(JOB, Search(strategy="Grid")) == 18  # of the default ranges, those that are lists

    def test_hyperband_is_told_the_epochs(self) -> None:
        [found] = sent(tuning_job("tuning", WITH_VALIDATION, Search(strategy="Hyperband")))
        assert found["TrainingJobDefinition"]["StaticHyperParameters"] == {"epochs": "2000"}
        job = replace(WITH_VALIDATION, hyperparameters={"epochs": "100", "fine-tune-rounds": "2"})
        [found] = sent(tuning_job("tuning", job, Search(strategy="Hyperband")))
        strategy = found["HyperParameterTuningJobConfig"]["StrategyConfig"]
        assert strategy == {"HyperbandStrategyConfig": {"MaxResource": 300}}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lrr=1:2", "lrr is unknown; did you mean lr?"),
            ("epochs=1:2", "epochs is not tuned but set: --set epochs=VALUE."),
            ("lr=0.1:0.2:0.3:log", "must be LOW:HIGH or LOW:HIGH:SCALE; scales are auto, linear, log, reverse-log."),
            ("lr=0.1:0.2:cubic", "must be LOW:HIGH or LOW:HIGH:SCALE"),
            ("lr=0.1:5", "lr=5 must be a number from 1e-07 to 1.0."),
            ("lr=a:b", "lr=a must be a number"),
            ("lr=0.1:", "The range of lr is wrong: a value is missing."),
            ("lr=0.1,,0.2", "a value is missing."),
            ("lr=0.2:0.1", "0.2 must be less than 0.1."),
            ("dropout=0:0.5:log", "a logarithmic range starts above 0."),
            ("lr=0.1:1:reverse-log", "a reverse logarithmic range lies from 0 to below 1."),
            ("hidden-size=8,64.5", "hidden-size=64.5 must be an integer from 1 to 4096."),
            ("hidden-size=0:64", "hidden-size=0 must be an integer from 1 to 4096."),
            ("recurrent=lstm,transformer", "recurrent=transformer must be lstm, alstm, gru, rnn, dense or none."),
            ("dimension-shuffle=true:false", "its values are given as a list, with commas."),
        ],
    )
    def test_refused_ranges(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            tuning_job("tuning", WITH_VALIDATION, Search(ranges=[parse_range(text)]))

    @pytest.mark.parametrize(
        ("changes", "search", "message"),
        [
            ({"validation": ""}, {}, "valid_accuracy is measured on validation data; give --validation S3"),
            ({}, {"objective": "f1"}, "There is no metric f1; there are train_loss"),
            ({"hyperparameters": {"lr": "0.1"}}, {"ranges": ["lr"]}, "lr is both set and tuned"),
            ({}, {"ranges": ["lr", "lr=0.1:0.2"]}, "lr has two ranges"),
            ({"hyperparameters": {"convolutions": "false"}}, {"ranges": ["recurrent=lstm,none"]}, "leaves no network"),
            ({}, {"ranges": ["lr"], "strategy": "Grid"}, "The strategy Grid tries lists of values; give lr as a list"),
            ({}, {"strategy": "Hyperband", "early_stopping": True}, "Hyperband stops jobs by itself"),
            (
                {"hyperparameters": {"epochs": "10000", "fine-tune-rounds": "2"}},
                {"strategy": "Hyperband"},
                "Hyperband allows for 20000 epochs, not 30000 with all fine-tuning rounds.",
            ),
            (
                {"hyperparameters": {name: TUNABLE[name].split(",")[0].split(":")[0] for name in SEARCHED}},
                {},
                "Nothing is left to tune; give a range.",
            ),
        ],
    )
    def test_refused(self, changes: dict[str, Any], search: dict[str, Any], message: str) -> None:
        given = {**search, "ranges": [parse_range(text) for text in search.get("ranges", [])]}
        with pytest.raises(UserError, match=re.escape(message)):
            tuning_job("tuning", replace(WITH_VALIDATION, **changes), Search(**given))

    def test_validation_data_may_be_held_out(self) -> None:
        sent(tuning_job("tuning", replace(JOB, hyperparameters={"validation-fraction": "0.2"}), Search()))

    def test_a_range_in_words(self) -> None:
        assert str(parse_range("lr=1:2:log")) == "lr from 1 to 2 (logarithmic)"
        assert str(Range("hidden-size", ("8", "64"))) == "hidden-size one of 8, 64"


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
        assert scaling("e", ENDPOINT) == []

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
        register, policy = sent(*scaling("e", replace(ENDPOINT, scale_to=4, scale_target=100)))
        assert (register["MinCapacity"], register["MaxCapacity"]) == (1, 4)
        assert register["ResourceId"] == policy["ResourceId"] == "endpoint/e/variant/all"
        target = policy["TargetTrackingScalingPolicyConfiguration"]
        assert target["TargetValue"] == 100
        assert (
            target["PredefinedMetricSpecification"]["PredefinedMetricType"] == "SageMakerVariantInvocationsPerInstance"
        )
        _, policy = sent(*scaling("e", replace(ENDPOINT, scale_to=4, async_output="s3://out/a")))
        metric = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
        assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
        assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "e"}]

    def test_environment(self) -> None:
        environment = serving_environment("bfloat16", "predicted_label,probability")
        found = Settings.from_environment(environment)
        assert (found.precision, found.outputs) == ("bfloat16", ("predicted_label", "probability"))
        assert serving_environment() == {}
        with pytest.raises(UserError, match="'colour' is no output"):
            serving_environment("", "colour")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"serverless": True, "async_output": "s3://a"}, "A serverless endpoint cannot be asynchronous"),
            ({"serverless": True, "scale_to": 2}, "A serverless endpoint cannot be scaled"),
            ({"serverless": True, "capture_percent": 2}, "A serverless endpoint cannot be with data capture"),
            (
                {"serverless": True, "subnets": ["s"], "security_groups": ["g"]},
                "A serverless endpoint cannot be in a VPC",
            ),
            ({"serverless": True, "memory": 1500}, "memory=1500 must be 1024, 2048, 3072, 4096, 5120 or 6144 MB."),
            ({"serverless": True, "memory": 7168}, "memory=7168 must be"),
            ({"async_output": "s3://a", "capture_percent": 2}, "An asynchronous endpoint cannot be with data capture"),
            ({"async_concurrency": 2}, "async-concurrency is for asynchronous endpoints"),
            ({"scale_to": 1, "instance_count": 2}, "scale-to=1 must not be less than instance-count=2."),
        ],
    )
    def test_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)):
            endpoint("e", replace(ENDPOINT, **changes))


class TestTransform:
    def test_of_a_new_model(self) -> None:
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
        # Left to what the container says at /execution-parameters.
        assert not {"MaxPayloadInMB", "MaxConcurrentTransforms", "DataProcessing"} & set(found)

    def test_of_a_model_that_there_is(self) -> None:
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
            ({"model_data": ""}, "A batch job needs a model that there is, or image, role and artifact"),
            ({"content_type": "text/plain"}, "content-type=text/plain is not supported; use text/csv"),
            ({"accept": "application/x-npy"}, "accept=application/x-npy is not supported"),
            ({"content_type": "application/x-npy"}, "application/x-npy cannot be split"),
            ({"content_type": "application/json"}, "application/json cannot be sent several lines at a time"),
            ({"join": True, "accept": "application/jsonlines"}, "Predictions can be joined with their input if"),
            ({"join": True, "split": "None"}, "Predictions can be joined with their input if"),
            ({"join": True, "assemble": "None"}, "Predictions can be joined with their input if"),
            ({"max_payload": 101, "max_concurrent": 1}, "max-payload=101 must be 100 MB at most."),
            ({"max_payload": 10}, "max-payload needs max-concurrent, too"),
            ({"max_payload": 10, "max_concurrent": 11}, "max-concurrent=11 times 10 MB a request must be 100 MB"),
            ({"max_concurrent": 17}, "max-concurrent=17 times 6 MB a request must be 100 MB at most."),
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
