import re
from datetime import timedelta

import pytest

from lstm_fcn.container.metrics import METRICS, METRICS_BY_NAME, EpochLine, metric_text

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


@pytest.mark.checklist("52: at most 20 metrics, short names and regexes, each with a direction")
def test_limits_of_the_platform() -> None:
    assert len(METRICS) <= 20
    assert [metric.name for metric in METRICS] == NAMES
    assert all(len(metric.regex) <= 500 for metric in METRICS)


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
def test_an_epoch_line_is_read_as_it_was_written(number: int, names: list[str]) -> None:
    line = EpochLine(3, 20, dict.fromkeys(names, 0.125), number)
    text = line.format(lr=0.001, remaining=timedelta(seconds=90))
    assert text.startswith("round: 2, epoch: 3/20, train_loss: 0.125000" if number else "epoch: 3/20, train_")
    assert text.endswith(", lr: 0.001000, left: 0:01:30")
    assert EpochLine.parse(text) == line
    for name in names:
        match = re.search(METRICS_BY_NAME[name].regex, text)
        assert match is not None
        assert match[1] == "0.125000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "final: train_loss: 0.1",
        "epoch: 3/20",
        "stop requested in epoch: 3/20, train_loss: 0.1",
        "epoch: x/20, train_loss: 1",
    ],
)
def test_other_lines_report_no_epoch(text: str) -> None:
    assert EpochLine.parse(text) is None
