"""Version 2 of the SageMaker Python SDK in local mode: `python -m tests.images.local_mode_v2 ORDER`.

It runs in the SDK's own environment, does what a user does, and writes what it found into a report; the tests judge it.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import boto3
from sagemaker.deserializers import StringDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, JSONSerializer

from tests.images.local_mode_order import ROLE, Order, answers, archived, failure_text, outcome, texts

AT_A_TIME = 6  # containers of batch jobs; each is waited for in steps of five seconds


def session(order: Order) -> Any:
    """A session with a port of its own, so that several containers can serve at a time."""
    local = LocalSession(boto3.Session())
    local.config = {"local": {"container_root": str(order.root), "serving_port": order.ports.pop()}}
    return local


def estimator(order: Order, hyperparameters: dict[str, str], output: Path) -> Any:
    return Estimator(
        image_uri=order.train_image,
        role=ROLE,
        instance_count=1,
        instance_type="local",
        hyperparameters=hyperparameters,
        output_path=output.as_uri(),  # one for each job: all write their model.tar.gz there
        sagemaker_session=session(order),
    )


def fit(order: Order) -> Any:
    fitted = estimator(order, order.hyperparameters, order.new_folder("fitted"))
    fitted.fit({"training": order.training.as_uri()})
    return fitted


def failing_job(order: Order) -> dict[str, str]:
    """A job with hyperparameters that the image refuses."""
    output = order.new_folder("failed")
    error = ""
    try:
        estimator(order, order.bad_hyperparameters, output).fit({"training": order.training.as_uri()})
    except RuntimeError as raised:
        error = str(raised)
    return {"error": error, "failure": failure_text(output / "output.tar.gz")}


def endpoint(order: Order, fitted: Any) -> dict[str, Any]:
    """Deploy, predict, delete."""
    predictor = fitted.deploy(
        initial_instance_count=1,
        instance_type="local",
        image_uri=order.serve_image,
        serializer=CSVSerializer(),
        deserializer=StringDeserializer(accept="text/csv"),
        wait=False,  # it has waited by then; this is for the service
    )
    port = fitted.sagemaker_session.config["local"]["serving_port"]

    def ask_for_json(accept: str) -> Any:
        """The text of the reply, whatever it is."""
        asking = Predictor(
            predictor.endpoint_name,
            sagemaker_session=fitted.sagemaker_session,
            serializer=JSONSerializer(),
            deserializer=StringDeserializer(accept=accept),
        )
        return asking.predict(order.instances)

    try:
        found = {
            "csv": predictor.predict(order.rows),
            "json": ask_for_json("application/json"),
            "json, any reply": ask_for_json("*/*"),
            "answered": answers(port),
        }
    finally:
        predictor.delete_endpoint()
    return {**found, "answers after the end": answers(port)}


def transform(order: Order, archive: Path, number: int) -> dict[str, str]:
    """One batch job: what it wrote, by file."""
    strategy, split, assemble = order.transforms[number]
    model = Model(
        image_uri=order.serve_image,
        model_data=order.copy_model(archive, "models", str(number)),
        name=f"model-{number}",
        role=ROLE,
        sagemaker_session=session(order),
    )
    output = order.new_folder("transformed", str(number))
    transformer = model.transformer(
        instance_count=1,
        instance_type="local",
        strategy=strategy,
        assemble_with=assemble,
        accept="text/csv",
        output_path=output.as_uri(),
    )
    transformer.transform(
        order.batch.as_uri(),
        content_type="text/csv",
        split_type=split,
        job_name=f"job-{number}",
        wait=False,  # it has ended by then; this is for the service's log
        logs=False,
    )
    return texts(output)


def main() -> None:
    order = Order.read(sys.argv[1])
    # The SDK checks its settings at every look at them, which would take as long as all the rest.
    checks = mock.patch("sagemaker.utils.validate_sagemaker_config")
    with checks, ThreadPoolExecutor(AT_A_TIME) as pool:
        failing = pool.submit(failing_job, order)
        fitted = fit(order)
        archive = Path(urlsplit(fitted.model_data).path)
        files = archived(archive)
        deployed = pool.submit(endpoint, order, fitted)
        transforms = [pool.submit(transform, order, archive, number) for number in range(len(order.transforms))]
    order.report(
        {
            "files": files,
            "failing job": outcome(failing),
            "endpoint": outcome(deployed),
            "transforms": [outcome(job) for job in transforms],
        }
    )


if __name__ == "__main__":
    main()
