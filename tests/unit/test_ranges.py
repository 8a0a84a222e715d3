import re

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS
from lstm_fcn.container.ranges import Range, default_ranges, explicit, parse_assignments, parse_range


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("recurrent", "lstm,GRU", Range("recurrent", ("lstm", "gru"))),
        ("hidden-size", "8,64,8.0", Range("hidden-size", ("8", "64"))),
        ("dropout", "0.2:0.9", Range("dropout", (), 0.2, 0.9)),
        ("lr", "1e-4:0.1:log", Range("lr", (), 0.0001, 0.1, "log")),
        ("dropout", "0:0.9:reverse-log", Range("dropout", (), 0.0, 0.9, "reverse-log")),
        ("filters-1", "4:64:linear", Range("filters-1", (), 4, 64, "linear")),
    ],
)
def test_notation(name: str, text: str, expected: Range) -> None:
    found = parse_range(name, text)
    assert found == expected
    assert parse_range(name, str(found)) == found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("learning-rate", "0:1", "learning-rate is unknown"),
        ("num_layers", "1,2", "num_layers is unknown; did you mean num-layers?"),
        ("epochs", "1,2", "epochs cannot be tuned; set it to a single value. Tunable: "),
        ("lr", "0.1", "lr=0.1 is a single value, not a range; set lr instead of tuning it."),
        ("lr", "0.1,0.10", "lr=0.1,0.10 is a single value, not a range"),
        ("lr", "0.1,", "lr='' is empty; give a value."),
        ("lr", "0.1:0.2:0.3", "lr=0.1:0.2:0.3 is not a range; write LOW:HIGH, LOW:HIGH:SCALE or VALUE,VALUE,VALUE."),
        ("lr", "0.1:0.2:log:log", "is not a range"),
        ("lr", "0.2:0.1", "lr=0.2:0.1: the lower bound must be less than the upper bound."),
        ("lr", "0.1:7", "lr=7 must be a number from 1e-07 to 1.0"),
        ("recurrent", "gru:lstm", "recurrent is not a number; list the values to try: recurrent=VALUE,VALUE."),
        ("dropout", "0:0.5:log", "the lower bound of a logarithmic range must be greater than 0."),
        (
            "batch-size",
            "0:64:reverse-log",
            "a reverse logarithmic range must lie between 0 (included) and 1",
        ),
    ],
)
def test_invalid_ranges_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_range(name, text)


def test_every_search_range_of_the_table_is_valid() -> None:
    for parameter in PARAMETERS.values():
        if parameter.search:
            assert parse_range(parameter.name, parameter.search).name == parameter.name


def test_default_ranges() -> None:
    names = [p.name for p in PARAMETERS.values() if p.searched_by_default]
    assert [found.name for found in default_ranges()] == names
    assert [found.name for found in default_ranges(["lr"])] == [name for name in names if name != "lr"]


def test_assignments() -> None:
    assert parse_assignments("--set", ["lr=0.1", "preset=paper", "a=b=c"]) == {
        "lr": "0.1",
        "preset": "paper",
        "a": "b=c",
    }


@pytest.mark.parametrize("text", ["lr", "lr=", "=0.1", ""])
def test_other_text_is_not_an_assignment(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--set {text} must be NAME=VALUE.")):
        parse_assignments("--set", [text])


def test_a_name_is_assigned_once() -> None:
    with pytest.raises(UserError, match="--set sets lr twice"):
        parse_assignments("--set", ["lr=0.1", "lr=0.2"])


def test_explicit_values_leave_out_those_of_the_preset() -> None:
    assert explicit({"preset": "paper", "lr": "1e-2", "sagemaker_region": "x"}) == {"preset": "paper", "lr": "0.01"}
    with pytest.raises(UserError, match="epochs=-1 must be an integer"):
        explicit({"epochs": "-1"})
