"""The notebooks run from top to bottom, and what is committed of their outputs belongs to them.

`make notebooks` sets WRITE_NOTEBOOKS, and the outputs of this run are written into the notebooks themselves.
"""

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import nbformat
import pytest

from lstm_fcn.client.sagemaker import jobs
from tests.contract.test_sagemaker_client import REGION, ROLE, cloud
from tests.programs import PROGRAMS

__all__ = ["cloud"]  # a fixture

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = PROJECT / "notebooks"
WRITES = bool(os.environ.get("WRITE_NOTEBOOKS"))
ARCHIVE = os.environ.get("TIME_SERIES_DATA", "")
TIMEOUT = 1200  # seconds; on a quiet machine a notebook takes a tenth of them, and less
LARGEST = 2_000_000  # bytes, all notebooks together
SOURCES = "sources"  # in a notebook's metadata: a digest of the cells that the outputs come from
# Places that are a machine's own. Those in a container, and links, are not.
PRIVATE = [
    r"(?<![\w./-])/(home|root|tmp|Users|mnt|private|srv|var)/",
    r"\bfile://",
    r"\b(?!127\.0\.0\.1\b)\d{1,3}(\.\d{1,3}){3}\b",
    r"(?i)\b[\w-]+\.(internal|local|lan|corp)\b",
]


def execute(name: str, folder: Path, settings: Mapping[str, str]) -> Any:
    """Run a copy of a notebook below `folder`; returns it with its outputs, of which none is an error or a warning.

    Args:
        settings: environment variables, besides those of this process that are not the platform's.
    """
    for part in ("notebooks", "data"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("build", "__pycache__"))
    path = folder / "notebooks" / f"{name}.ipynb"
    kept = {key: value for key, value in os.environ.items() if not re.match(r"(SAGEMAKER|SM|AWS)_", key)}
    command = [str(PROGRAMS / "jupyter-execute"), "--inplace", str(path)]
    result = subprocess.run(
        command, env={**kept, **settings}, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert result.returncode == 0, result.stdout + result.stderr
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    for cell, output in outputs(notebook):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", f"{cell['source']}\n\n{output['text']}"
        assert "Warning" not in str(output.get("text", "")), f"{cell['source']}\n\n{output['text']}"
    if WRITES:
        write(notebook, NOTEBOOKS / path.name)
    return notebook


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    """Each output, with its cell."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            yield cell, output


def write(notebook: Any, path: Path) -> None:
    """Without what says nothing to a reader, such as times; what names this machine or its user is not written."""
    for private in (str(PROJECT), str(Path.home()), tempfile.gettempdir(), platform.node(), getpass.getuser()):
        assert not re.search(rf"(?<!\w){re.escape(private)}(?!\w)", shown(notebook)), private
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        SOURCES: digest(notebook),
    }
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def digest(notebook: Any) -> str:
    return hashlib.sha256("\0".join(cell["source"] for cell in notebook["cells"]).encode()).hexdigest()


def shown(notebook: Any) -> str:
    """All outputs as text, but for pictures."""
    texts = []
    for _, output in outputs(notebook):
        data = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
        texts += [output.get("text", ""), *map(str, data.values())]
    return "\n".join(texts)


# The sample data, and the archive if there is one; `make notebooks` writes the outputs of one of the two.
SAMPLE_AND_ARCHIVE = pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="sample data", marks=pytest.mark.skipif(WRITES and bool(ARCHIVE), reason="not written")),
        pytest.param(
            ARCHIVE, id="archive", marks=pytest.mark.skipif(not ARCHIVE, reason="TIME_SERIES_DATA is not set")
        ),
    ],
)


@pytest.mark.notebooks
def test_quickstart(tmp_path: Path) -> None:
    text = shown(execute("quickstart", tmp_path, {}))
    accuracy = re.search(r"new series: ([\d.]+)", text)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.9
    assert "the same probabilities: True" in text
    assert (tmp_path / "notebooks" / "build" / "quickstart" / "model" / "model.json").exists()


@pytest.mark.notebooks
def test_recordings(tmp_path: Path) -> None:
    text = shown(execute("recordings", tmp_path, {}))
    assert "8 recordings in 16 pieces" in text
    assert "those of 2 of 8 groups" in text
    share = re.search(r"([\d.]+) of the steps are right", text)
    assert share is not None
    assert float(share[1]) >= 0.8


@pytest.mark.notebooks
@SAMPLE_AND_ARCHIVE
def test_benchmark(data: str, tmp_path: Path) -> None:
    text = shown(execute("benchmark", tmp_path, {"TIME_SERIES_DATA": data}))
    assert ("5 methods on 6 data sets" if data else "3 methods on 4 data sets") in text
    assert "refused 0" in text


@pytest.mark.notebooks
@SAMPLE_AND_ARCHIVE
def test_mistakes(data: str, tmp_path: Path) -> None:
    text = shown(execute("mistakes", tmp_path, {"TIME_SERIES_DATA": data}))
    found = re.search(r"test accuracy: ([\d.]+), (\d+) mistakes in (\d+) series", text)
    assert found is not None
    assert 0.75 <= float(found[1]) < 1
    assert int(found[3]) == (1029 if data else 200)


def test_sagemaker_on_aws(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a role, its cells talk to AWS. The stand-in computes nothing: what would come out is put there."""
    for name, value in {
        "AWS_ENDPOINT_URL": cloud,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "SAGEMAKER_ROLE": ROLE,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    monkeypatch.chdir(NOTEBOOKS)
    s3, bucket = boto3.client("s3"), f"sagemaker-{REGION}-123456789012"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    answer = {"predictions": [{"predicted_label": "sine", "probability": 0.9}] * 150}
    results = {"region": REGION, "results": [{"Body": json.dumps(answer), "ContentType": "application/json"}]}
    place = f"{cloud}/moto-api/static/sagemaker/endpoint-results"
    with urllib.request.urlopen(urllib.request.Request(place, json.dumps(results).encode()), timeout=10):
        pass
    names: dict[str, Any] = {}
    notebook: Any = nbformat.read(NOTEBOOKS / "sagemaker.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for source in (cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"):
        if "jobs.deploy(" in source:
            s3.put_object(Bucket=bucket, Key=names["trained"].artifact.split("/", 3)[3], Body=b"x")
        if "jobs.transform(" in source:
            s3.put_object(Bucket=bucket, Key=f"{names['folder']}/predictions/series.csv.out", Body=b"sine,0.9\n" * 150)
        exec(source, names)  # noqa: S102
    sagemaker = boto3.client("sagemaker")
    assert [job["TrainingJobStatus"] for job in sagemaker.list_training_jobs()["TrainingJobSummaries"]]
    assert len(sagemaker.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"]) == 1
    assert len(sagemaker.list_transform_jobs()["TransformJobSummaries"]) == 1
    assert sagemaker.list_endpoints()["Endpoints"] == sagemaker.list_models()["Models"] == []
    assert names["lines"] == ["sine,0.9"] * 150


@pytest.mark.skipif(WRITES, reason="that is what is being done")
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_committed(path: Path) -> None:
    """The outputs are those of these cells, run in order in one go, and say nothing of the machine."""
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert notebook["metadata"].get(SOURCES) == digest(notebook), f"{path.name} has changed: run `make notebooks`"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["source"].strip() for cell in notebook["cells"])
    text = shown(notebook)
    for pattern in PRIVATE:
        assert re.search(pattern, text) is None, re.search(f".*({pattern}).*", text)


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("*.ipynb")) < LARGEST
