"""Declared dependencies against the imports, and the pins in `requirements/` against the declared dependencies."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = DECLARED["optional-dependencies"]
# Packages whose name differs from the module's, or that a declared package depends on as part of its interface.
PACKAGES = {
    "botocore": "boto3",
    "joblib": "scikit-learn",
    "markupsafe": "jinja2",
    "prometheus_client": "prometheus-client",
    "simdjson": "pysimdjson",
    "sklearn": "scikit-learn",
    "sqlalchemy": "optuna",
    "threadpoolctl": "scikit-learn",
    "typing_extensions": "pydantic",
    "werkzeug": "flask",
}
OPTIONAL = {"duckdb", "pyarrow", "ray"}  # `container` says how to install them
PINNED = {"dev": "development", "train": "train", "serve": "serve"}  # file in requirements/ and its extra
ELSEWHERE = {"lstm-fcn", "torch", "onnxruntime"}  # pinned in torch.txt and engine.txt


def name(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement, maxsplit=1)[0].lower()


def extra(wanted: str) -> set[str]:
    """The packages that an extra declares, those of the extras that it refers to included."""
    found = set(map(name, DECLARED["dependencies"]))
    for requirement in EXTRAS[wanted]:
        if match := re.fullmatch(r"lstm-fcn\[(.*)\]", requirement):
            found |= set().union(*map(extra, match[1].split(",")))
        else:
            found.add(name(requirement))
    return found


def imported(*folders: str) -> set[str]:
    """The packages that the modules in these folders import."""
    found = set()
    for path in (path for folder in folders for path in (PROJECT / folder).glob("**/*.py")):
        if path.name == "aeon_methods.py":  # `make bench-methods` runs it in an environment of its own
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return {PACKAGES.get(module, module) for module in found - set(sys.stdlib_module_names) - {"lstm_fcn"}}


@pytest.mark.parametrize(
    ("wanted", "folders"),
    [
        ("train", ["container", "training"]),
        ("serve", ["container", "serving"]),
        ("sagemaker", ["container", "client/sagemaker"]),
        ("benchmark", ["container", "training", "serving", "benchmarks"]),
    ],
)
def test_each_extra_declares_what_its_commands_import(wanted: str, folders: list[str]) -> None:
    assert imported(*folders) - OPTIONAL <= extra(wanted)


def pins(file: str) -> dict[str, str]:
    """Version of each package in a file of requirements/, which must give hashes for each."""
    text = (PROJECT / "requirements" / f"{file}.txt").read_text()
    names = re.findall(r"^[^ #\n=]+", text, re.MULTILINE)
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)[^\n]* \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert [package for package, _ in entries] == names
    return dict(entries)


@pytest.mark.parametrize("file", ["dev", "engine", "fuzz", "mlflow", "sdk-v2", "sdk-v3", "serve", "train"])
def test_pins_have_hashes_and_no_addresses(file: str) -> None:
    assert pins(file)
    assert "/" not in (PROJECT / "requirements" / f"{file}.txt").read_text()


@pytest.mark.parametrize("file", PINNED)
def test_every_declared_dependency_is_pinned(file: str) -> None:
    left_out = {"scikit-learn"} if file == "serve" else set()  # requirements/not-served.txt
    assert extra(PINNED[file]) - ELSEWHERE - left_out <= set(pins(file))


@pytest.mark.parametrize("file", PINNED)
def test_the_same_versions_are_pinned_everywhere(file: str) -> None:
    assert pins(file).items() <= pins("dev").items()


@pytest.mark.parametrize("file", PINNED)
def test_no_cuda_libraries_are_pinned(file: str) -> None:
    assert [package for package in pins(file) if package.startswith(("cuda", "nvidia", "torch", "triton"))] == []
