"""The code on the pages runs, but for what needs a container engine, AWS or hours."""

import re
import shutil
from pathlib import Path

import matplotlib as mpl
import mlflow
import pytest

from tests.pages import PROJECT, code_blocks, run_blocks

pytestmark = pytest.mark.pages

PAGES = [
    "tutorial",
    "python",
    "mlflow",
    "data",
    "models",
    "serving",
    "batch",
    "recordings",
    "tuning",
    "many",
    "migration",
]
# The blocks with containers are run by tests/images/test_pages.py.
ELSEWHERE = r"docker|endpoint|sagemaker|boto3|pip install|postgresql|localhost|s3://|\bray\b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, with the sample data."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(PROJECT / "data", folder / "data", ignore=shutil.ignore_patterns("__pycache__"))
    train = "lstm-fcn train --training data/training/train.csv --output my/model\n"
    run_blocks([("sh", train)], folder, {})
    return folder


@pytest.mark.filterwarnings("ignore")  # of MLflow about itself, of Matplotlib without a screen
@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}.md" for name in PAGES)])
def test_what_the_page_shows(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mpl.use("agg")
    blocks = [block for block in code_blocks(page) if not re.search(ELSEWHERE, block[1])]
    assert blocks
    run_blocks(blocks, folder, {})
    mlflow.set_tracking_uri("")  # the default; a page sets another
