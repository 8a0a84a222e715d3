"""What the programs load before they can take a signal or a request, or refuse a typing mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = "from lstm_fcn.training.__main__ import main; main()"


def modules_loaded_by(statement: str, root: Path | None = None) -> set[str]:
    """Names of the modules that a program loads which runs this statement, with its /opt/ml tree at `root`."""
    script = f"import sys; sys.argv[1:] = []; {statement}; print(' '.join(sys.modules))"
    environment = os.environ | ({"SAGEMAKER_BASE_DIR": str(root)} if root else {})
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return set(result.stdout.split())


def test_train_can_take_a_signal_before_anything_heavy_is_loaded() -> None:
    assert not modules_loaded_by("import lstm_fcn.training.__main__") & {"torch", "numpy", "pydantic", "sklearn"}


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [('{"epoch": "3"}', "epoch is unknown; did you mean epochs?"), ("{}", "Channel training (or train) is missing")],
)
def test_train_refuses_settings_before_anything_heavy_is_loaded(
    tmp_path: Path, hyperparameters: str, message: str
) -> None:
    (tmp_path / "input" / "config").mkdir(parents=True)
    (tmp_path / "input" / "config" / "hyperparameters.json").write_text(hyperparameters)
    assert not modules_loaded_by(TRAIN, tmp_path) & {"torch", "numpy", "sklearn"}
    assert message in (tmp_path / "output" / "failure").read_text()


def test_the_command_line_loads_nothing_but_click() -> None:
    loaded = modules_loaded_by("from lstm_fcn.client.__main__ import main; main(['--help'])")
    assert not loaded & {"torch", "numpy", "pydantic", "tqdm", "onnxruntime", "boto3", "optuna", "pandas", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--epoch", "3"], ["--training", __file__, "--output", "/proc/no", "--lr", "0"]])
def test_a_wrong_option_of_train_is_refused_before_anything_heavy_is_loaded(arguments: list[str]) -> None:
    loaded = modules_loaded_by(f"from lstm_fcn.client.__main__ import main; main(['train', *{arguments}])")
    assert not loaded & {"torch", "numpy", "onnxruntime", "matplotlib"}


def test_serve_can_take_a_signal_before_anything_heavy_is_loaded() -> None:
    assert not modules_loaded_by("import lstm_fcn.serving.__main__") & {"numpy", "pydantic", "gunicorn", "flask"}


def test_serve_loads_no_torch_and_no_pandas() -> None:
    assert not modules_loaded_by("import lstm_fcn.serving.app") & {"torch", "pandas", "sklearn", "boto3"}


def test_the_process_that_forks_the_workers_does_not_load_the_engine() -> None:
    """Its thread does not exist in a fork, which would wait for it when it ends; counts are shared from then on."""
    loaded = modules_loaded_by("from lstm_fcn.serving.__main__ import _announce; import lstm_fcn.serving.gunicorn_conf")
    assert not loaded & {"flask", "prometheus_client"}
    assert not loaded & {"onnxruntime", "torch"}
    assert "onnxruntime" not in modules_loaded_by("import lstm_fcn.serving.encode")
