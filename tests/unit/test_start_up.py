"""What the programs load before they can take a signal or a request."""

import subprocess
import sys


def modules_loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_train_can_take_a_signal_before_anything_heavy_is_loaded() -> None:
    assert not modules_loaded_by("import lstm_fcn.training.__main__") & {"torch", "numpy", "pydantic", "sklearn"}


def test_serve_can_take_a_signal_before_anything_heavy_is_loaded() -> None:
    assert not modules_loaded_by("import lstm_fcn.serving.__main__") & {"numpy", "pydantic", "gunicorn", "flask"}


def test_serve_loads_no_torch_and_no_pandas() -> None:
    assert not modules_loaded_by("import lstm_fcn.serving.app") & {"torch", "pandas", "sklearn", "boto3"}
