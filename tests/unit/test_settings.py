import re
from pathlib import Path

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.serving import settings as settings_module
from lstm_fcn.serving.settings import Settings


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "available_cores", lambda: 4)


def test_defaults() -> None:
    assert Settings.from_environment({}) == Settings(
        model_folder=Path("/opt/ml/model"),
        host="0.0.0.0",  # noqa: S104
        port=8080,
        workers=4,
        timeout=60,
        max_body_mib=25,
        response_type=None,
        outputs=(),
        precision="float32",
        log_level=20,
        batch=False,
        local_batch=False,
    )


def test_everything_set() -> None:
    environment = {
        "SAGEMAKER_BIND_TO_PORT": "9090",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT": "3600",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "7",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "Application/JSON",
        "SAGEMAKER_INFERENCE_OUTPUT": "predicted_label, Explanation",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "30",
        "LSTM_FCN_PRECISION": "bfloat16",
        "SAGEMAKER_PROGRAM": "ignored.py",
    }
    settings = Settings.from_environment(environment)
    assert (settings.port, settings.workers) == (9090, 2)
    assert (settings.response_type, settings.outputs) == ("application/json", ("predicted_label", "explanation"))
    assert (settings.precision, settings.log_level) == ("bfloat16", 30)
    assert (settings.timeout, settings.max_body_mib) == (3600, 7)


@pytest.mark.parametrize(("text", "local"), [("true", False), ("True", True)])
def test_batch(text: str, local: bool) -> None:
    settings = Settings.from_environment({"SAGEMAKER_BATCH": text})
    assert (settings.batch, settings.local_batch, settings.max_body_mib) == (True, local, 100)


def test_a_stream_without_a_limit_still_has_one() -> None:
    environment = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}
    assert Settings.from_environment(environment).max_body_mib == 1024


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1", "80.5"])
def test_a_wrong_value_is_named(text: str) -> None:
    with pytest.raises(UserError, match=f"SAGEMAKER_BIND_TO_PORT={text} must be an integer from 1 to 65535"):
        Settings.from_environment({"SAGEMAKER_BIND_TO_PORT": text})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SAGEMAKER_INFERENCE_OUTPUT", "label", "SAGEMAKER_INFERENCE_OUTPUT=label is invalid: 'label' is not an out"),
        ("SAGEMAKER_INFERENCE_OUTPUT", "probability,,", "'' is not an output; supported: predicted_label, "),
        ("SAGEMAKER_INFERENCE_OUTPUT", "probability,probability", "'probability' is listed twice"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png", "must be text/csv, application/json or application/jso"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "info", "must be an integer from 0 to 50"),
        ("LSTM_FCN_PRECISION", "int8", "LSTM_FCN_PRECISION=int8 must be float32 or bfloat16"),
    ],
)
def test_wrong_choices(name: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Settings.from_environment({name: value})


def test_the_address_to_listen_on() -> None:
    assert Settings.from_environment({"LSTM_FCN_HOST": "127.0.0.1"}).host == "127.0.0.1"
