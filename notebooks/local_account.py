"""SageMaker and S3 on this machine, for use without an AWS account.

A `LocalAccount` replaces `client.sagemaker.account.Account`. Jobs and endpoints run in local containers, started by
local mode of the SageMaker Python SDK (version 3; it needs Docker Compose). A folder replaces S3. Creating a job
returns when the job has ended.
"""

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name
from sagemaker.core.local import LocalSession, image

from lstm_fcn.benchmarks.programs import free_port
from lstm_fcn.client.sagemaker.account import Account, NotFoundError
from lstm_fcn.client.sagemaker.request import Request, join
from lstm_fcn.container.errors import UserError

Parameters = dict[str, Any]

NO_TELEMETRY = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
OUTPUT = re.compile(r"(?:\x1b\[2K)?\S+-algo-1-\w+ +\| (.*)")  # a line of a container, printed by Docker Compose
RESULT = "FinalHyperParameterTuningJobObjectiveMetric"
PLACE = "com.docker.compose.project.working_dir"  # label of a container: the SDK's folder


class LocalAccount(Account):
    """An AWS account simulated on this machine."""

    def __init__(self, folder: Path) -> None:
        """Keep the contents of S3 in `folder/s3` and the files of running containers in `folder/containers`."""
        super().__init__()
        self.s3 = folder.resolve() / "s3"
        self.containers = folder.resolve() / "containers"
        self.described: dict[tuple[str, str], Parameters] = {}  # responses to Describe, by noun and name
        self.sessions: dict[str, Any] = {}  # SDK sessions, by the name of the job or endpoint
        self.logs: dict[str, list[str]] = {}  # log lines, by the same names
        self.started = ""  # the most recent name
        image._stream_output = self._keep_log  # instead of printing logs, which endpoints write at any time

    def call(self, request: Request) -> Parameters:
        """Answer a request as AWS would.

        Raises:
            UserError: it does not exist, or local mode does not support the request.
        """
        own: Any = getattr(self, xform_name(request.operation), None)
        action = re.fullmatch("sagemaker:(Create|Describe|Delete)(.+)", request.action)
        if not action and not own:
            raise UserError(f"{request.action} is not supported in local mode.")
        if not action:
            answer: Parameters = own(**request.parameters)
            return answer
        verb, noun = action.groups()
        name = request.parameters[f"{noun}Name"]
        if verb == "Create":
            arn = {f"{noun}Arn": f"arn:aws:sagemaker:local:111122223333:{noun.lower()}/{name}"}
            started = own(**request.parameters) if own else {}
            self.described[noun, name] = request.parameters | arn | started
            return arn
        if (noun, name) not in self.described:
            raise NotFoundError(f"There is no {noun} {name}.")
        if verb == "Describe":
            return self.described[noun, name]
        if noun == "Endpoint":
            self.sessions[name].sagemaker_client.delete_endpoint(name)
            self._tidy(name)
        return self.described.pop((noun, name))

    # Operations that run containers, named as in boto3. They return what Describe reports in addition to the request.

    def create_training_job(self, **job: Any) -> Parameters:
        name, algorithm = job["TrainingJobName"], job["AlgorithmSpecification"]
        output = join(job["OutputDataConfig"]["S3OutputPath"], name, "output")
        outcome = {"TrainingJobStatus": "Completed"}
        client = self._open(name)
        try:
            client.create_training_job(**self._as_files(job | {"OutputDataConfig": {"S3OutputPath": output}}))
        except RuntimeError as error:
            outcome = {"TrainingJobStatus": "Failed", "FailureReason": str(error)}
        self._tidy(name)
        log = "\n".join(self.logs[name])
        found = {metric["Name"]: re.findall(metric["Regex"], log) for metric in algorithm["MetricDefinitions"]}
        return {
            **outcome,
            "ModelArtifacts": {"S3ModelArtifacts": join(output, "model.tar.gz")},
            "FinalMetricDataList": [{"MetricName": key, "Value": float(v[-1])} for key, v in found.items() if v],
        }

    def create_hyper_parameter_tuning_job(self, **tuning: Any) -> Parameters:
        """A training job for each combination of the listed values, one after the other."""
        config, definition = tuning["HyperParameterTuningJobConfig"], dict(tuning["TrainingJobDefinition"])
        if config["Strategy"] != "Grid":
            raise UserError("Local mode supports the strategy Grid only; list the values to try.")
        fixed = definition.pop("StaticHyperParameters")
        lists = {item["Name"]: item["Values"] for item in config["ParameterRanges"]["CategoricalParameterRanges"]}
        goal = config["HyperParameterTuningJobObjective"]
        trained = []
        for number, values in enumerate(itertools.product(*lists.values()), 1):
            name = f"{tuning['HyperParameterTuningJobName']}-{number:03}"
            tuned = dict(zip(lists, values, strict=True))
            job = definition | {"TrainingJobName": name, "HyperParameters": fixed | tuned}
            self.call(Request("sagemaker", "CreateTrainingJob", job))
            metrics = self.described["TrainingJob", name]["FinalMetricDataList"]
            found = [metric for metric in metrics if metric["MetricName"] == goal["MetricName"]]
            trained += [{"TrainingJobName": name, "TunedHyperParameters": tuned, RESULT: metric} for metric in found]
        if not trained:
            return {"HyperParameterTuningJobStatus": "Failed", "FailureReason": self.logs[name][-1]}
        best = max if goal["Type"] == "Maximize" else min
        return {
            "HyperParameterTuningJobStatus": "Completed",
            "TrainingJobStatusCounters": {"Completed": len(trained), "NonRetryableError": number - len(trained)},
            "BestTrainingJob": best(trained, key=lambda job: job[RESULT]["Value"]),
        }

    def create_endpoint(self, **endpoint: Any) -> Parameters:
        name = endpoint["EndpointName"]
        [variant] = self.described["EndpointConfig", endpoint["EndpointConfigName"]]["ProductionVariants"]
        client = self._open(name)
        self._hand_model(client, variant["ModelName"])
        client.create_endpoint_config(name, [variant])
        client.create_endpoint(name, name)
        return {"EndpointStatus": "InService"}

    def create_transform_job(self, **job: Any) -> Parameters:
        client = self._open(job["TransformJobName"])
        self._hand_model(client, job["ModelName"])
        client.create_transform_job(**self._as_files(job))
        self._tidy(job["TransformJobName"])
        return {"TransformJobStatus": "Completed"}

    def _hand_model(self, client: Any, name: str) -> None:
        container = self._as_files(self.described["Model", name]["PrimaryContainer"])
        client.create_model(name, {"Environment": {}, **container})

    def _open(self, name: str) -> Any:
        """An SDK client for a job or endpoint, with its own folder and port."""
        root = self.containers / name
        root.mkdir(parents=True)
        # Placeholder keys, because the SDK passes the keys to the containers.
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        session = LocalSession(boto3.Session(**keys, region_name="eu-west-1"), sagemaker_config=NO_TELEMETRY)
        session.config = {"local": {"container_root": str(root), "serving_port": free_port()}}
        self.sessions[name], self.logs[name], self.started = session, [], name
        return session.sagemaker_client

    def _keep_log(self, process: "subprocess.Popen[bytes]") -> int:
        """Collect the output of a container until it exits; returns its exit code."""
        log = self.logs[self.started]
        for line in process.stdout or ():
            if found := OUTPUT.match(line.decode().rstrip()):
                log.append(found[1])
        code = process.wait()
        if code not in (0, 130):  # 130: an endpoint was deleted
            raise RuntimeError(log[-1] if log else f"Docker Compose ended with exit code {code}.")
        return code

    def _tidy(self, name: str) -> None:
        """Remove what local mode leaves behind: the container, and files owned by root."""
        listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Image}}}} {{{{.Label "{PLACE}"}}}}')
        for container, image_name, place in (line.split(" ", 2) for line in listed.splitlines()):
            if Path(place).parent == self.containers / name:
                docker("rm", "--force", container)
                docker("run", "--rm", "--volume", f"{self.containers}:/all", image_name, "rm", "-r", f"/all/{name}")

    def _as_files(self, value: Any) -> Any:
        """Copy `value` with file addresses in place of S3 addresses."""
        if isinstance(value, dict):
            return {key: self._as_files(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._as_files(item) for item in value]
        return self._path(value).as_uri() if isinstance(value, str) and value.startswith("s3://") else value

    # The other services, named as in boto3

    def _path(self, address: str) -> Path:
        return self.s3 / address.removeprefix("s3://")

    def put_object(self, **wanted: Any) -> Parameters:
        path = self._path(join(wanted["Bucket"], wanted["Key"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted["Body"])
        return {}

    def get_object(self, **wanted: Any) -> Parameters:
        return {"Body": self._path(join(wanted["Bucket"], wanted["Key"])).open("rb")}

    def list_objects_v2(self, **wanted: Any) -> Parameters:
        return {"KeyCount": int(self._path(join(wanted["Bucket"], wanted["Prefix"])).exists())}

    def filter_log_events(self, **wanted: Any) -> Parameters:
        name = wanted.get("logStreamNamePrefix", wanted["logGroupName"]).rstrip("/").rpartition("/")[2]
        events = [
            {"eventId": str(number), "timestamp": 0, "logStreamName": f"{name}/algo-1-0", "message": line}
            for number, line in enumerate(self.logs[name])
        ]
        return {"events": events}

    def invoke_endpoint(self, **wanted: Any) -> Parameters:
        answer: Parameters = self.sessions[wanted["EndpointName"]].sagemaker_runtime_client.invoke_endpoint(**wanted)
        return answer

    def describe_scalable_targets(self, **_: object) -> Parameters:
        return {"ScalableTargets": []}


def docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
