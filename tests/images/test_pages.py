"""The code on the pages that needs containers runs, with the images of the tests."""

import shutil
from pathlib import Path

import pytest

from tests.images.engine import SERVE, TRAIN, docker
from tests.pages import PROJECT, code_blocks, run_blocks

PAGES = ["README.md", "docs/tutorial.md", "docs/serving.md", "docs/batch.md", "docs/distributed.md"]


@pytest.mark.images
@pytest.mark.pages
def test_what_the_pages_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page after the other in one folder, because the names of containers and folders are the same on all."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PROJECT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "job" / "input" / "config").mkdir(parents=True)
    (tmp_path / "job" / "input" / "config" / "hyperparameters.json").write_text('{"epochs": "2"}')
    images = {r"docker build.*\n": "", r"lstm-fcn-train\b(?!:)": TRAIN, r"lstm-fcn-serve\b(?!:)": SERVE}
    run_blocks([("sh", "lstm-fcn train --training data/training/train.csv --output my/model\n")], tmp_path, {})
    try:
        for page in PAGES:
            blocks = [block for block in code_blocks(page) if "docker" in block[1] or "localhost" in block[1]]
            assert blocks
            run_blocks([block for block in blocks if "sagemaker" not in block[1]], tmp_path, images)
    finally:
        docker("rm", "--force", "endpoint", "isolated", "counted", "algo-2", check=False)
        docker("network", "rm", "training", check=False)
