import re

import pytest

from lstm_fcn.container.metrics import METRICS, metric_text

NAMES = [
    "train_loss",
    "train_accuracy",
    "valid_loss",
    "valid_accuracy",
    "valid_balanced_accuracy",
    "valid_f1",
    "valid_auc",
]


@pytest.mark.parametrize("value", [0.0, 0.123456, 1e-05, 12345.5, -0.5])
def test_each_regex_finds_its_own_value_whole(value: float) -> None:
    line = "epoch: 1/2, " + metric_text(dict.fromkeys(NAMES, 7.0) | {"valid_loss": value}) + ", lr: 0.1"
    for metric in METRICS:
        found = re.findall(metric.regex, line)
        assert [float(text) for text in found] == [value if metric.name == "valid_loss" else 7.0]


def test_regexes_read_numbers_in_any_notation() -> None:
    for text in ("1e-05", "-0.5", "+3", ".5", "1E+10", "0.25"):
        match = re.search(METRICS[0].regex, f"train_loss: {text}, x")
        assert match is not None
        assert match[1] == text


def test_what_was_not_measured_is_not_printed() -> None:
    assert metric_text({"train_accuracy": 1.0, "train_loss": 0.5}) == "train_loss: 0.500000, train_accuracy: 1.000000"


def test_limits_of_the_platform() -> None:
    assert len(METRICS) <= 20
    assert [metric.name for metric in METRICS] == NAMES
    assert all(len(metric.regex) <= 500 for metric in METRICS)
