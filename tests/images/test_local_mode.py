"""Both images in the local mode of the SageMaker Python SDK (L1 to L19): the rows of the checklist that need an SDK.

Versions 2 and 3 exclude each other, and neither belongs beside the project's own packages: each has an environment of
its own below `.venv`, and a program that runs in it. The tests judge what these found.
"""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.images.engine import PROJECT, SERVE, TRAIN, docker
from tests.images.local_mode_order import Order
from tests.pinned import pinned_python, run
from tests.programs import MODEL_FILES, SMALL, free_port, labelled_csv, without_labels

HYPERPARAMETERS = {**SMALL, "epochs": "60", "lr": "0.01", "lr-schedule": "one-cycle"}
BAD_HYPERPARAMETERS = {**SMALL, "dropout": "1.5"}

# For each version of the SDK its batch jobs: strategy, SplitType and AssembleWith; None is not given.
TRANSFORMS: dict[str, list[tuple[str | None, str | None, str | None]]] = {
    "v2": list(itertools.product(["SingleRecord", "MultiRecord", None], ["Line", None], ["Line", None])),
    "v3": [("SingleRecord", "Line", "Line"), (None, "Line", "Line")],
}

# No call leaves the machine: whatever an SDK wants to ask meets a closed port.
NOWHERE = "http://127.0.0.1:9"
VARIABLES = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(PROJECT),
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_ENDPOINT_URL": NOWHERE,
    "HTTPS_PROXY": NOWHERE,  # for clients that name their endpoint themselves
    "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
}
NO_TELEMETRY = "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"

Reports = dict[str, "Future[dict[str, Any]]"]

each_version = pytest.mark.parametrize("version", TRANSFORMS)


def shuffled_rows() -> list[str]:
    """Labelled series of two classes, in an order that does not repeat itself."""
    lines = labelled_csv(8, seed=1).splitlines()
    return [lines[k] for k in np.random.default_rng(0).permutation(len(lines))]


@pytest.fixture
def labels() -> list[str]:
    """What is to be predicted, in order."""
    return [line.split(",")[0] for line in shuffled_rows()]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    """What each version's program found. They run side by side: most of the time they wait for containers."""
    ports: set[int] = set()
    while len(ports) < 64:  # all at once, so that they differ
        ports.add(free_port())
    orders = [write_order(version, tmp_path_factory.mktemp(version), ports) for version in TRANSFORMS]
    with network():
        try:
            with ThreadPoolExecutor() as pool:
                yield {v: pool.submit(run_program, v, order) for v, order in zip(TRANSFORMS, orders, strict=True)}
        finally:
            for order in orders:
                remove_traces(order.parent)


@contextmanager
def network() -> Iterator[None]:
    """The network of local mode, made as the SDK makes it: several containers that begin at once would all make it."""
    name = "sagemaker-local"
    missing = docker("network", "inspect", name, check=False).returncode != 0
    if missing:
        docker("network", "create", "--label", f"com.docker.compose.network={name}", name)
    try:
        yield
    finally:
        if missing:
            docker("network", "rm", name, check=False)  # someone else may be using it by now


def write_order(version: str, folder: Path, ports: set[int]) -> Path:
    """The program's folder: training data, series for batch jobs, and a file that says what to do."""
    series = without_labels("\n".join(shuffled_rows()))
    lines = series.splitlines()
    files = {
        "training/train.csv": labelled_csv(40),
        "batch/plain.csv": series,
        "batch/odd.csv": "\r\n".join([*lines[:5], "", *lines[5:]]),  # a blank line, and none at the end
        "telemetry.yaml": NO_TELEMETRY,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, newline="")
    order = Order(
        folder=str(folder),
        train_image=TRAIN,
        serve_image=SERVE,
        hyperparameters=HYPERPARAMETERS,
        bad_hyperparameters=BAD_HYPERPARAMETERS,
        rows=[[float(value) for value in line.split(",")] for line in lines],
        transforms=TRANSFORMS[version],
        ports=[ports.pop() for _ in range(len(TRANSFORMS[version]) + 3)],
    )
    return order.write()


def run_program(version: str, order: Path) -> dict[str, Any]:
    """Run the version's program in its environment, as a user who is not root."""
    folder = order.parent
    engine = docker("context", "inspect", "-f", "{{.Endpoints.docker.Host}}").stdout.strip()
    variables = {
        **VARIABLES,
        "HOME": str(folder),
        "DOCKER_HOST": engine,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(folder / "telemetry.yaml"),
    }
    python = pinned_python(f"sdk-{version}", program(version), VARIABLES)
    run(*as_user(folder, engine), python, "-m", program(version), order, env=variables, cwd=folder)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def program(version: str) -> str:
    """The module that runs in the version's environment."""
    return f"tests.images.local_mode_{version}"


def as_user(folder: Path, engine: str) -> list[str]:
    """What to put before a command so that it does not run as root, who could remove everything that root left behind.

    It may read all that root may: Python may lie where nobody else gets to.
    """
    if os.geteuid() != 0:
        return []
    group = Path(urlsplit(engine).path).stat().st_gid  # of the engine's socket
    shutil.chown(folder, "nobody")
    user = ["--reuid=nobody", f"--regid={group}", "--clear-groups"]
    return ["setpriv", *user, *(f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient"))]


def remove_traces(folder: Path) -> None:
    """The containers that an SDK leaves behind, and root's hold on files below its folder."""
    label = "com.docker.compose.project.working_dir"
    listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Label "{label}"}}}}').stdout.splitlines()
    for container, _, place in (line.partition(" ") for line in listed):
        if Path(place).is_relative_to(folder):
            docker("rm", "--force", container)
    docker("run", "--rm", "-v", f"{folder}:/folder", TRAIN, "chmod", "-R", "777", "/folder", check=False)


@each_version
@pytest.mark.parametrize("request_and_reply", ["csv", "json", "json, any reply"])
def test_row_77_fit_deploy_predict_delete(
    reports: Reports, labels: list[str], version: str, request_and_reply: str
) -> None:
    """Local mode of SDK v2 and v3: fit, deploy, predict (CSV and JSON), delete work with both images."""
    report = reports[version].result()
    assert sorted(report["files"]) == MODEL_FILES
    endpoint = report["endpoint"]
    assert "raised" not in endpoint, endpoint
    assert (endpoint["answered"], endpoint["answers after the end"]) == (True, False)
    reply = endpoint[request_and_reply]
    if version == "v3":  # which alone tells the reply's type
        content_type, reply = reply
        assert content_type.startswith("text/csv" if request_and_reply == "csv" else "application/json"), reply
    if request_and_reply == "csv":
        assert reply.split("\n") == labels
    else:
        assert json.loads(reply) == {"predictions": [{"predicted_label": label} for label in labels]}


@pytest.mark.parametrize(
    ("version", "number"),
    [
        pytest.param(version, number, id=f"{version}, {', '.join(map(str, job))}")
        for version, jobs in TRANSFORMS.items()
        for number, job in enumerate(jobs)
    ],
)
def test_row_78_transform(reports: Reports, labels: list[str], version: str, number: int) -> None:
    """Local batch transform: as many non-blank rows out as in, however files are split, batched and assembled."""
    written = reports[version].result()["transforms"][number]
    assert {name: [row for row in text.split("\n") if row] for name, text in written.items()} == {
        "plain.csv.out": labels,
        "odd.csv.out": labels,
    }


def test_row_79_model_trainer(reports: Reports) -> None:
    """ModelTrainer of SDK v3 trains with the image as it is (no command), and removes what root has left behind."""
    job = reports["v3"].result()["training job"]
    (service,) = job["services"].values()
    assert (service["image"], service.keys() & {"command", "entrypoint"}) == (TRAIN, set())
    assert sorted(job["files"]) == MODEL_FILES
    # Some of it was root's, for another user: the SDK then calls the image for help.
    assert job["user"] != 0
    assert job["commands of the removal"]
    assert not {"input", "shared", "algo-1"} & set(job["left behind"])


@each_version
def test_the_failure_text_reaches_the_output(reports: Reports, version: str) -> None:
    """A job that is refused ends with an error, and its output holds the cause (T56)."""
    job = reports[version].result()["failing job"]
    assert "Failed to run" in job["error"]
    assert job["failure"].startswith("UserError: Hyperparameters: dropout=1.5 must be a number from 0.0 to 0.99.")


@each_version
def test_everyone_may_read_the_model(reports: Reports, version: str) -> None:
    """The files of a model are root's; the SDK copies and packs them as the user who called it (L8)."""
    modes = reports[version].result()["files"]
    assert all(mode & 0o444 == 0o444 for mode in modes.values()), modes
