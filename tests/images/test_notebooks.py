"""The notebook about SageMaker, run against the images in local containers."""

import re
from pathlib import Path

from tests.contract.test_notebooks import PROJECT, execute, shown
from tests.images.test_local_mode import NOWHERE, VARIABLES, network, program, remove_traces
from tests.pinned import pinned_python


def test_sagemaker(tmp_path: Path) -> None:
    python = pinned_python("sdk-v3", program("v3"), VARIABLES)
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    settings = {
        "PYTHONPATH": f"{PROJECT}:{packages}",  # local mode, beside the project's own packages
        "IMAGE_TAG": "test",
        "AWS_ENDPOINT_URL": NOWHERE,  # no call leaves the machine
        "HTTPS_PROXY": NOWHERE,
    }
    with network():
        try:
            text = shown(execute("sagemaker", tmp_path, settings))
        finally:
            remove_traces(tmp_path)
    accuracy = re.search(r"accuracy: ([\d.]+)", text)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.9
    assert "2 of 2 training jobs have ended" in text
    assert "150 predictions:" in text
    assert not list(tmp_path.glob("notebooks/build/sagemaker/containers/*"))  # nothing that is root's is left behind
