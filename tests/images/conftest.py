"""The images are built once, before the first test that needs them."""

from pathlib import Path

import pytest

from tests.images.engine import build_images, engine_answers
from tests.programs import TrainingJob


@pytest.fixture(scope="session", autouse=True)
def _images() -> None:
    if not engine_answers():
        pytest.skip("no Docker engine answers here")
    build_images()


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path).prepare()
