"""Version 3 of the SageMaker Python SDK in local mode: `python -m tests.images.local_mode_v3 ORDER`.

It runs in the SDK's own environment, does what a user does, and writes what it found into a report; the tests judge it.
This version trains by `ModelTrainer`; endpoints and batch jobs of any image go through `LocalSession`.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import yaml
from sagemaker.core.local import LocalSession
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData
from sagemaker.train.model_trainer import Mode

from tests.images.local_mode_order import ROLE, Order, answers, archived, failure_text, outcome, texts


def session(order: Order) -> Any:
    """A session with a port of its own, so that several containers can serve at a time."""
    local = LocalSession(boto3.Session())
    local.config = {"local": {"container_root": str(order.root), "serving_port": order.ports.pop()}}
    return local


def train(order: Order, hyperparameters: dict[str, str], folder: Path) -> None:
    trainer = ModelTrainer(
        training_mode=Mode.LOCAL_CONTAINER,
        training_image=order.train_image,
        role=ROLE,
        compute=Compute(instance_type="local_cpu", instance_count=1),
        hyperparameters=hyperparameters,
        base_job_name="lstm-fcn",
        local_container_root=str(folder),
        sagemaker_session=session(order),
    )
    trainer.train(input_data_config=[InputData(channel_name="training", data_source=str(order.training))], wait=True)


def training_job(order: Order, folder: Path) -> dict[str, Any]:
    """A job, how its container was started, and what is left of it."""
    with mock.patch.object(subprocess, "run", wraps=subprocess.run) as run:
        train(order, order.hyperparameters, folder)
    commands = [call.args[0] for call in run.call_args_list]
    return {
        "user": os.geteuid(),
        "services": yaml.safe_load((folder / "docker-compose.yaml").read_text())["services"],
        "commands of the removal": [command for command in commands if "chmod" in command],
        "left behind": sorted(path.name for path in folder.iterdir()),
        "files": archived(folder / "compressed_artifacts" / "model.tar.gz"),
    }


def failing_job(order: Order, folder: Path) -> dict[str, str]:
    """A job with hyperparameters that the image refuses."""
    error = ""
    try:
        train(order, order.bad_hyperparameters, folder)
    except RuntimeError as raised:
        error = str(raised)
    return {"error": error, "failure": failure_text(folder / "compressed_artifacts" / "output.tar.gz")}


def create_model(order: Order, local: Any, archive: Path, name: str) -> None:
    container = {
        "Image": order.serve_image,
        "Environment": {},
        "ModelDataUrl": order.copy_model(archive, "models", name),
    }
    local.sagemaker_client.create_model(ModelName=name, PrimaryContainer=container)


def endpoint(order: Order, archive: Path) -> dict[str, Any]:
    """Create, invoke, delete."""
    local = session(order)
    port = local.config["local"]["serving_port"]
    create_model(order, local, archive, "endpoint")
    variant = {"VariantName": "all", "ModelName": "endpoint", "InitialInstanceCount": 1, "InstanceType": "local"}
    local.sagemaker_client.create_endpoint_config("config", [variant])

    def invoke(body: str, **types: str) -> list[str]:
        """Type and text of the reply."""
        reply = local.sagemaker_runtime_client.invoke_endpoint(Body=body, EndpointName="endpoint", **types)
        return [reply["ContentType"], reply["Body"].read().decode()]

    local.sagemaker_client.create_endpoint("endpoint", "config")
    try:
        csv = "".join(",".join(map(str, row)) + "\n" for row in order.rows)
        instances = json.dumps(order.instances)
        found = {
            "csv": invoke(csv, ContentType="text/csv", Accept="text/csv"),
            "json": invoke(instances, ContentType="application/json", Accept="application/json"),
            "json, any reply": invoke(instances, ContentType="application/json"),
            "answered": answers(port),
        }
    finally:
        local.sagemaker_client.delete_endpoint("endpoint")
    return {**found, "answers after the end": answers(port)}


def transform(order: Order, archive: Path, number: int) -> dict[str, str]:
    """One batch job: what it wrote, by file."""
    strategy, split, assemble = order.transforms[number]
    local = session(order)
    name = f"transform-{number}"
    create_model(order, local, archive, name)
    output = order.new_folder("transformed", str(number))
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": order.batch.as_uri()}}
    local.sagemaker_client.create_transform_job(
        TransformJobName=name,
        ModelName=name,
        TransformInput=given(DataSource=source, ContentType="text/csv", SplitType=split),
        TransformOutput=given(S3OutputPath=output.as_uri(), AssembleWith=assemble, Accept="text/csv"),
        TransformResources={"InstanceCount": 1, "InstanceType": "local"},
        **given(BatchStrategy=strategy),
    )
    return texts(output)


def given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def main() -> None:
    order = Order.read(sys.argv[1])
    trained = order.new_folder("trained")
    # One after the other: all jobs of this version call their host algo-1, on one network.
    training = training_job(order, trained)
    failing = failing_job(order, order.new_folder("failed"))
    archive = trained / "compressed_artifacts" / "model.tar.gz"
    with ThreadPoolExecutor() as pool:
        created = pool.submit(endpoint, order, archive)
        transforms = [pool.submit(transform, order, archive, number) for number in range(len(order.transforms))]
    order.report(
        {
            "training job": training,
            "files": training["files"],
            "failing job": failing,
            "endpoint": outcome(created),
            "transforms": [outcome(job) for job in transforms],
        }
    )


if __name__ == "__main__":
    main()
