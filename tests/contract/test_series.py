"""Series with missing values or of different length: treated alike in training and in serving, or refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.preprocess import Preprocessing
from tests.programs import (
    SMALL,
    Endpoint,
    TrainingJob,
    assert_all_refused,
    assert_succeeded,
    endpoint,
    run_all,
)

LENGTH = 12
NAN = float("nan")
LEARNING = SMALL | {"epochs": "20", "lr": "0.02"}
Array = NDArray[np.float64]


def ramps(rows: int, seed: int, gaps: float = 0.0, shortest: int = LENGTH) -> Array:
    """Series that rise and fall in turn, float64 `[rows, LENGTH]`; NaN: missing, or beyond the end."""
    rng = np.random.default_rng(seed)
    slopes = np.where(np.arange(rows) % 2 == 0, 1.0, -1.0)[:, None]
    series: Array = slopes * np.linspace(-1, 1, LENGTH) + rng.normal(scale=0.2, size=(rows, LENGTH))
    missing = rng.random(series.shape) < gaps
    ends = rng.integers(shortest, LENGTH + 1, size=rows)
    ends[0] = LENGTH
    missing[np.arange(rows), ends - 1] = False  # the last value of a series is none that is missing
    series[missing | (np.arange(LENGTH) >= ends[:, None])] = np.nan
    return series


def ragged(series: Array) -> list[str]:
    """Rows that end where the series does; a missing value is written in different ways."""
    words = ("", "NaN", "null", " ")
    lines = []
    for row in series:
        values = row[: LENGTH - int(np.isnan(row[::-1]).argmin())]
        lines.append(
            ",".join(words[k % 4] if np.isnan(value) else repr(float(value)) for k, value in enumerate(values))
        )
    return lines


def rectangular(series: Array) -> list[str]:
    """Rows with a cell for each column; what is missing is empty."""
    return [",".join("" if np.isnan(value) else repr(float(value)) for value in row) for row in series]


def label(lines: list[str]) -> str:
    return "\n".join(f"{'up' if k % 2 == 0 else 'down'},{line}" for k, line in enumerate(lines)) + "\n"


def mark(lines: list[str]) -> str:
    """A header, and one target before the values."""
    header = ",".join(["y", *(f"x{k}" for k in range(LENGTH))])
    return "\n".join([header, *(f"{1 - k % 2},{line}" for k, line in enumerate(lines))]) + "\n"


class Case(NamedTuple):
    """A way of writing the data, and how it is treated."""

    missing_values: str
    length_policy: str
    lines: Callable[[Array], list[str]]
    labelled: Callable[[list[str]], str]
    gaps: float
    shortest: int

    @property
    def rules(self) -> Preprocessing:
        names = {"missing_values": self.missing_values, "length_policy": self.length_policy}
        return Preprocessing.model_validate(names)

    def series(self, rows: int) -> Array:
        return ramps(rows, rows, self.gaps, self.shortest)

    def complete(self, series: Array) -> Array:
        """The series as the network shall see them, `[N, LENGTH]`."""
        return self.rules.apply(series[:, np.newaxis], LENGTH)[:, 0]

    def prepare(self, root: Path) -> TrainingJob:
        job = TrainingJob(root).prepare(*(self.labelled(self.lines(self.series(rows))) for rows in (24, 8)))
        settings = {"missing-values": self.missing_values, "length-policy": self.length_policy}
        job.write("input/config/hyperparameters.json", LEARNING | settings)
        return job


CASES = {
    "gaps": Case("interpolate", "error", rectangular, label, 0.2, LENGTH),
    "padded": Case("error", "pad", rectangular, mark, 0.0, 3),
    "resampled": Case("interpolate", "resample", ragged, label, 0.2, 3),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingJob]:
    root = tmp_path_factory.mktemp("jobs")
    jobs = {name: case.prepare(root / name) for name, case in CASES.items()}
    # The same data as one of them, treated before it is written.
    complete = (case.complete(case.series(rows)) for case in (CASES["resampled"],) for rows in (24, 8))
    jobs["complete"] = TrainingJob(root / "complete").prepare(*(label(rectangular(part)) for part in complete))
    jobs["complete"].write("input/config/hyperparameters.json", LEARNING)
    for job, result in zip(jobs.values(), run_all(jobs.values()), strict=True):
        assert_succeeded(job, result)
    return jobs


@pytest.fixture(scope="module")
def servers(trained: dict[str, TrainingJob]) -> Iterator[dict[str, Endpoint]]:
    one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with (
        endpoint(trained["gaps"].root, **one) as first,
        endpoint(trained["padded"].root, **one) as second,
        endpoint(trained["resampled"].root, **one) as third,
    ):
        yield {"gaps": first, "padded": second, "resampled": third}


@pytest.mark.parametrize("name", CASES)
def test_training_sees_the_series_as_they_are_when_treated(trained: dict[str, TrainingJob], name: str) -> None:
    metadata, _ = artifact.load(trained[name].model)
    assert (metadata.problem.length, metadata.problem.preprocessing) == (LENGTH, CASES[name].rules)
    complete = CASES[name].complete(CASES[name].series(24))
    assert metadata.problem.scaling.mean == pytest.approx((complete.mean(),), abs=1e-12)
    assert metadata.problem.scaling.std == pytest.approx((complete.std(),), rel=1e-12)


def test_data_that_was_treated_before_gives_the_same_weights(trained: dict[str, TrainingJob]) -> None:
    assert trained["resampled"].read("weights.safetensors") == trained["complete"].read("weights.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_serving_treats_series_as_training_does(
    trained: dict[str, TrainingJob], servers: dict[str, Endpoint], name: str
) -> None:
    case = CASES[name]
    series = ramps(40, 99, case.gaps, case.shortest)
    metadata, graph = artifact.load(trained[name].model)
    complete = case.complete(series)[:, None]
    (expected,) = onnxruntime.InferenceSession(graph).run(["probabilities"], {"series": complete})
    lines = case.lines(series)
    header = [",".join(metadata.problem.columns.series)] if metadata.problem.has_header else []
    reply = servers[name].invoke("\n".join(header + lines))
    assert reply.status == 200, reply.text
    if header:
        found = [float(line.split(",")[1]) for line in reply.text.splitlines()[1:]]
        assert found == pytest.approx(expected[:, 0], abs=1e-5)
    else:
        assert reply.text.split("\n") == [metadata.problem.classes[k] for k in expected.argmax(axis=1)]
        assert len(set(reply.text.split("\n"))) == 2


def test_a_series_longer_than_any_in_training_is_refused_or_resampled(servers: dict[str, Endpoint]) -> None:
    longer = ",".join("1" * (LENGTH + 1))
    reply = servers["gaps"].invoke(longer)
    assert (reply.status, "but the model takes series of 12 values; send the values" in reply.text) == (400, True)
    assert servers["resampled"].invoke(longer).status == 200
    reply = servers["padded"].invoke(",".join(f"x{k}" for k in range(LENGTH)) + f"\n{longer}\n")
    assert (reply.status, "row 2 has 13 cells, but the header names 12 columns" in reply.text) == (400, True)


def test_invalid_requests_are_refused(servers: dict[str, Endpoint]) -> None:
    rest = ",1" * (LENGTH - 2)
    header = ",".join(f"x{k}" for k in range(LENGTH))
    cases = [
        ("gaps", f"1,1{rest}\n1,x{rest}\n", "request, row 2, column 2 is 'x'; every value must be a finite number."),
        ("gaps", f"1,1{rest}\n{',' * (LENGTH - 1)}\n", "request, row 2 has no values, only missing ones."),
        ("gaps", "1,1\n", "request, row 1 has 2 values, but the model takes series of 12 values."),
        ("resampled", "1,1e999\n", "request, row 1, column 2 is '1e999', which is too large for a number."),
        ("padded", f"{header}\n1,{rest}\n", "request, row 2, column 2 is missing, with values after it"),
    ]
    for name, body, message in cases:
        reply = servers[name].invoke(body)
        assert (reply.status, message in reply.text) == (400, True), (body, reply.text)


def test_invalid_training_data_is_refused(tmp_path: Path) -> None:
    interpolate, pad = {"missing_values": "interpolate"}, {"length_policy": "pad"}
    cases = [
        (interpolate, "a,1,2\nb,3,x\n", "train.csv, row 2, column 3 is 'x'; every value must be a finite number."),
        (interpolate, "a,1,2\nb,,NaN\n", "train.csv, row 2 has no values, only missing ones."),
        (interpolate, "a,1,2\nb,1,inf\n", "train.csv, row 2, column 3 is 'inf'; every value must be a finite number."),
        (interpolate, "a,1,2\nb,1,2,3\n", "train.csv, row 2 has 3 values, but row 1 has 2 values"),
        (
            pad,
            "a,1,2,3\nb,1,,3\n",
            "train.csv, row 2, column 3 is missing, with values after it; missing-values=interpolate fills it.",
        ),
    ]
    jobs = [TrainingJob(tmp_path / str(k)).prepare(text, **names) for k, (names, text, _) in enumerate(cases)]
    longer = TrainingJob(tmp_path / "longer").prepare("a,1,2\nb,3\n", "a,1,2,3\n", length_policy="pad")
    messages = [message for _, _, message in cases]
    messages.append("valid.csv, row 1 has 3 values, but the model takes series of up to 2 values.")
    assert_all_refused(zip([*jobs, longer], messages, strict=True))
