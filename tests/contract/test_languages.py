"""The JavaScript program of `docs/languages.md` against the estimator; it needs Node.js and installs ONNX Runtime."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_fcn import LSTMFCNClassifier
from tests.pinned import PROJECT, TIMEOUT, run

pytestmark = pytest.mark.packaging

PAGE = (PROJECT / "docs" / "languages.md").read_text(encoding="utf-8")
[PROGRAM] = re.findall(r"^```js\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[PACKAGE] = re.findall(r"onnxruntime-node@[0-9.]+", PAGE)
TRAINING = PROJECT / "data" / "training" / "train.csv"
SERIES = PROJECT / "data" / "inference" / "input" / "test_data.csv"
SMALL: dict[str, Any] = {"filters_1": 4, "filters_2": 4, "filters_3": 4, "kernel_features": 84, "epochs": 2}


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder `node_modules` with the package that the page names, installed again when its version changes."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    folder = PROJECT / "build" / "node"
    installed = folder / "node_modules" / "onnxruntime-node" / "installed"
    if not installed.exists() or installed.read_text() != PACKAGE:
        options = ["--silent", "--no-save", "--no-fund", "--no-audit", "--prefix", str(folder)]
        # Skip the CUDA libraries, which are downloaded from elsewhere.
        run("npm", "install", *options, PACKAGE, env=os.environ | {"ONNXRUNTIME_NODE_INSTALL": "skip"})
        installed.write_text(PACKAGE)
    return folder / "node_modules"


def predict(folder: Path, modules: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does: saved in a folder in which the package is installed."""
    (folder / "node_modules").symlink_to(modules)
    (folder / "predict.js").write_text(PROGRAM, encoding="utf-8")
    command = ["node", "predict.js", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=TIMEOUT)


@pytest.mark.parametrize("variables", [1, 2])
def test_the_javascript_program_predicts_the_labels_of_the_estimator(
    modules: Path, tmp_path: Path, variables: int
) -> None:
    rows = np.loadtxt(TRAINING, delimiter=",", dtype=str)
    series = np.loadtxt(SERIES, delimiter=",").reshape(150, variables, -1)
    model = LSTMFCNClassifier(**SMALL)
    model.fit(rows[:, 1:].astype(np.float64).reshape(len(rows), variables, -1), rows[:, 0])
    expected = model.predict(series).tolist()
    assert set(expected) == {"sine", "square", "triangle"}
    result = predict(tmp_path, modules, model.save(tmp_path / "model"), SERIES)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file or directory, open '{file}'"),
        ("0.5,,0.5\n", "{file}, series 1: expected 3 numbers"),
        ("1,2,3\n\n1,2\n", "{file}, series 2: expected 3 numbers"),
    ],
)
def test_the_javascript_program_names_the_mistake(
    modules: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    (tmp_path / "model.json").write_text('{"problem": {"classes": ["a", "b"], "num_variables": 1, "length": 3}}')
    file = tmp_path / "series.csv"
    if text is not None:
        file.write_text(text)
    result = predict(tmp_path, modules, tmp_path, file)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.strip().endswith(message.format(file=file))
