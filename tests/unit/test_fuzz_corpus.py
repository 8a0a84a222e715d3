"""The corpus of the fuzz targets: earlier findings and starting points."""

from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

CASES = [path for name in TARGETS for path in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in CASES} == set(TARGETS)
