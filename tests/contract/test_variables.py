"""Series of several variables, from training data to predictions, as a black box."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from tests.contract.test_transform import Command
from tests.programs import (
    SMALL,
    Endpoint,
    TrainingJob,
    assert_all_refused,
    assert_succeeded,
    endpoint,
    run_all,
)

VARIABLES, LENGTH = 3, 12
LEARNING = SMALL | {"epochs": "20", "lr": "0.02"}
NAMES = [f"x_{variable}_{step}" for variable in ("far", "tiny", "flat") for step in range(LENGTH)]
BACKWARDS = [variable * LENGTH + step for step in reversed(range(LENGTH)) for variable in range(VARIABLES)]
SHUFFLED = np.random.default_rng(0).permutation(len(NAMES)).tolist()
LABELS = ("down", "up")
PROBABILITIES = "text/csv; output=probabilities; header=absent"
Array = NDArray[np.float64]


def make_series(rows: int, seed: int) -> Array:
    """Float64 `[rows, VARIABLES, LENGTH]`: in one variable, small numbers fall or rise in turn; another is far off."""
    rng = np.random.default_rng(seed)
    series = rng.normal(scale=0.2, size=(rows, VARIABLES, LENGTH))
    series[:, 1] += np.where(np.arange(rows) % 2 == 0, -1, 1)[:, None] * np.linspace(-1, 1, LENGTH)
    scaled: Array = series * [[100], [1e-6], [1]] + [[1e7], [0], [-3]]
    return scaled


def draw_lengths(rows: int) -> list[int]:
    return [LENGTH, *np.random.default_rng(rows).integers(3, LENGTH + 1, size=rows - 1).tolist()]


def lines(series: Array, lengths: list[int] | None = None, fill: bool = False) -> list[str]:
    """Headerless rows, variable by variable; those of shorter series end early or are filled up with empty cells."""
    ends = lengths or [LENGTH] * len(series)
    found = []
    for row, end in zip(series, ends, strict=True):
        parts = [[*map(repr, values[:end].tolist()), *[""] * (LENGTH - end) * fill] for values in row]
        found.append(",".join(cell for part in parts for cell in part))
    return found


def label(rows: list[str]) -> str:
    return "".join(f"{LABELS[k % 2]},{row}\n" for k, row in enumerate(rows))


def head(series: Array, order: list[int]) -> str:
    """Rows under a header, columns in this order."""
    table = series.reshape(len(series), -1)[:, order].tolist()
    return "".join(",".join(row) + "\n" for row in [[NAMES[k] for k in order], *(map(repr, row) for row in table)])


def head_and_mark(series: Array) -> str:
    """The same as training data: step by step from the last one on, behind two targets."""
    targets = ["y_down,y_up", *(f"{1 - k % 2},{k % 2}" for k in range(len(series)))]
    rows = head(series, BACKWARDS).splitlines()
    return "".join(f"{target},{row}\n" for target, row in zip(targets, rows, strict=True))


def pad(series: Array, lengths: list[int]) -> Array:
    """Each series from its end on with its last values."""
    last = np.minimum(np.arange(LENGTH), np.array(lengths)[:, None] - 1)
    found: Array = np.take_along_axis(series, np.repeat(last[:, None], VARIABLES, axis=1), axis=2)
    return found


TRAINING, VALIDATION, ASKED = make_series(24, 0), make_series(8, 1), make_series(40, 2)
LENGTHS = {len(series): draw_lengths(len(series)) for series in (TRAINING, VALIDATION, ASKED)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingJob]:
    root = tmp_path_factory.mktemp("jobs")
    ragged = [label(lines(series, LENGTHS[len(series)])) for series in (TRAINING, VALIDATION)]
    three = {"num-variables": "3"}
    cases = {
        "plain": (label(lines(TRAINING)), label(lines(VALIDATION)), three),
        "headed": (head_and_mark(TRAINING), head_and_mark(VALIDATION), {}),
        "ragged": (ragged[0], ragged[1], three | {"length-policy": "pad"}),
    }
    jobs = {}
    for name, (training, validation, settings) in cases.items():
        jobs[name] = TrainingJob(root / name).prepare(training, validation)
        jobs[name].write("input/config/hyperparameters.json", LEARNING | settings)
    for job, result in zip(jobs.values(), run_all(jobs.values()), strict=True):
        assert_succeeded(job, result)
    return jobs


@pytest.fixture(scope="module")
def servers(trained: dict[str, TrainingJob]) -> Iterator[dict[str, Endpoint]]:
    one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    with (
        endpoint(trained["plain"].root, **one) as plain,
        endpoint(trained["headed"].root, **one) as headed,
        endpoint(trained["ragged"].root, **one) as ragged,
    ):
        yield {"plain": plain, "headed": headed, "ragged": ragged}


def expected(job: TrainingJob, series: Array) -> NDArray[np.float32]:
    """The probabilities that the graph itself gives complete series."""
    _, graph = artifact.load(job.model)
    (found,) = onnxruntime.InferenceSession(graph).run(["probabilities"], {"series": series})
    probabilities: NDArray[np.float32] = found
    return probabilities


def ask(server: Endpoint, body: bytes | str, **headers: str) -> Array:
    """The probabilities that an endpoint gives."""
    reply = server.invoke(body, **({"Accept": PROBABILITIES} | headers))
    assert reply.status == 200, reply.text
    return np.loadtxt(reply.text.split("\n"), delimiter=",", ndmin=2)


def npy(series: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, series)
    return stream.getvalue()


class TestTraining:
    @pytest.mark.parametrize("name", ["plain", "headed", "ragged"])
    def test_each_variable_has_its_mean_and_deviation(self, trained: dict[str, TrainingJob], name: str) -> None:
        metadata, _ = artifact.load(trained[name].model)
        series = pad(TRAINING, LENGTHS[24]) if name == "ragged" else TRAINING
        assert (metadata.problem.num_variables, metadata.problem.length) == (VARIABLES, LENGTH)
        assert metadata.problem.scaling.mean == pytest.approx(series.mean(axis=(0, 2)), rel=1e-12, abs=1e-18)
        assert metadata.problem.scaling.std == pytest.approx(series.std(axis=(0, 2)), rel=1e-9)

    def test_a_header_makes_no_difference_to_the_weights(self, trained: dict[str, TrainingJob]) -> None:
        first, second = (trained[name].read("weights.safetensors") for name in ("plain", "headed"))
        assert first == second

    def test_columns_are_remembered_variable_by_variable(self, trained: dict[str, TrainingJob]) -> None:
        assert artifact.load(trained["headed"].model)[0].problem.columns.series == tuple(NAMES)
        assert not artifact.load(trained["plain"].model)[0].problem.has_header

    def test_filters_are_weighed_by_default(self, trained: dict[str, TrainingJob]) -> None:
        weights = safetensors.numpy.load(trained["plain"].read("weights.safetensors"))
        assert sorted(name for name in weights if "squeeze" in name) == [
            f"network.fcn.{layer}.squeeze.{part}.weight" for layer in (0, 1) for part in ("down", "up")
        ]

    def test_what_is_refused(self, tmp_path: Path) -> None:
        cases = [
            (label(lines(TRAINING)), "5", "row 1 has 36 values, which cannot be divided among 5 variables"),
            (head_and_mark(TRAINING), "2", "row 1 names columns of 3 variables, but num-variables is 2"),
        ]
        jobs = [TrainingJob(tmp_path / str(k)).prepare(text, num_variables=n) for k, (text, n, _) in enumerate(cases)]
        assert_all_refused(zip(jobs, [f"train.csv, {message}" for _, _, message in cases], strict=True))


class TestServing:
    def test_every_format_gets_the_probabilities_of_the_graph(
        self, trained: dict[str, TrainingJob], servers: dict[str, Endpoint]
    ) -> None:
        bodies: dict[str, str | bytes] = {
            "text/csv": "\n".join(lines(ASKED)),
            "application/json": json.dumps({"instances": [{"features": row} for row in ASKED.tolist()]}),
            "application/jsonlines": "\n".join(json.dumps(row) for row in ASKED.tolist()),
            "application/x-npy": npy(ASKED),
        }
        found = {name: ask(servers["plain"], body, Content_Type=name) for name, body in bodies.items()}
        np.testing.assert_allclose(found["text/csv"], expected(trained["plain"], ASKED), atol=1e-5)
        for name, probabilities in found.items():
            np.testing.assert_array_equal(probabilities, found["text/csv"], name)
        labels = servers["plain"].invoke(bodies["text/csv"]).text.split("\n")
        assert np.mean([name == LABELS[k % 2] for k, name in enumerate(labels)]) > 0.8

    def test_columns_may_come_in_any_order(self, servers: dict[str, Endpoint]) -> None:
        plain = ask(servers["plain"], "\n".join(lines(ASKED)))
        np.testing.assert_array_equal(ask(servers["headed"], head(ASKED, SHUFFLED)), plain)
        found = ask(servers["headed"], json.dumps({"instances": ASKED.tolist()}), Content_Type="application/json")
        np.testing.assert_array_equal(found, plain)

    def test_series_of_different_length(self, trained: dict[str, TrainingJob], servers: dict[str, Endpoint]) -> None:
        padded = expected(trained["ragged"], pad(ASKED, LENGTHS[40]))
        for fill in (False, True):
            body = "\n".join(lines(ASKED, LENGTHS[40], fill))
            np.testing.assert_allclose(ask(servers["ragged"], body), padded, atol=1e-5)
        shorter = [row[:, :end].tolist() for row, end in zip(ASKED, LENGTHS[40], strict=True)]
        body = json.dumps({"instances": shorter})
        found = ask(servers["ragged"], body, Content_Type="application/json")
        np.testing.assert_allclose(found, padded, atol=1e-5)
        found = ask(servers["ragged"], npy(ASKED[:, :, :5]), Content_Type="application/x-npy")
        np.testing.assert_allclose(found, expected(trained["ragged"], pad(ASKED, [5] * 40)), atol=1e-5)

    @pytest.mark.parametrize("name", ["plain", "headed"])
    def test_each_time_step_is_explained_once(self, servers: dict[str, Endpoint], name: str) -> None:
        body = head(ASKED, SHUFFLED) if name == "headed" else "\n".join(lines(ASKED))
        reply = servers[name].invoke(body, Accept="text/csv; output=explanation; header=present")
        rows = reply.text.split("\n")
        assert [len(row.split(",")) for row in rows] == [LENGTH] * 41
        reply = servers[name].invoke(body, Accept="application/jsonlines; output=explanation")
        found = [json.loads(line)["explanation"] for line in reply.text.split("\n")]
        np.testing.assert_array_equal(found, [[float(cell) for cell in row.split(",")] for row in rows[1:]])

    @pytest.mark.parametrize(
        ("name", "media_type", "body", "message"),
        [
            ("plain", "text/csv", "1,2,3\n", "request, row 1 has 3 values, but the model takes series of 3 variables"),
            ("plain", "text/csv", "\n".join([*lines(ASKED[:2]), "x" + ",1" * 35]), "request, row 3, column 1 is 'x'"),
            (
                "plain",
                "application/json",
                json.dumps({"instances": ASKED[:, :2].tolist()}),
                "it must be 3 lists of numbers",
            ),
            (
                "plain",
                "application/json",
                json.dumps({"instances": [[[1] * 12, [1] * 12, [1] * 11]]}),
                "request, instance 1, variable 3 has 11 values, but variable 1 has 12",
            ),
            (
                "plain",
                "application/jsonlines",
                json.dumps([[1] * 12, [1] * 12, [1] * 11 + [None]]),
                "request, line 1, variable 3, value 12 is missing",
            ),
            ("plain", "application/x-npy", npy(ASKED[:, :2]), "has shape (40, 2, 12); it must be [series, 3 varia"),
            ("headed", "text/csv", "\n".join(lines(ASKED)), "request, row 1 must be the header (x_"),
            (
                "ragged",
                "text/csv",
                "1,2,3,4\n",
                "request, row 1 has 4 values, which cannot be divided among 3 variables",
            ),
            ("ragged", "text/csv", "1,2,3,4,5,\n", "request, row 1 lacks value 2 of variable 3: it is missing"),
            (
                "ragged",
                "text/csv",
                ",".join("1" * 39),
                "row 1 has 39 values, but the model takes series of 3 variables",
            ),
        ],
    )
    def test_what_is_wrong_with_a_request(
        self, servers: dict[str, Endpoint], name: str, media_type: str, body: str | bytes, message: str
    ) -> None:
        reply = servers[name].invoke(body, Content_Type=media_type)
        assert (reply.status, message in reply.text) == (400, True), reply.text


class TestTransform:
    def test_files_get_the_predictions_of_the_endpoint(
        self, trained: dict[str, TrainingJob], servers: dict[str, Endpoint]
    ) -> None:
        for name, body in (
            ("plain", "\n".join(lines(ASKED) * 200)),  # several blocks
            ("headed", head(ASKED, SHUFFLED)),
            ("ragged", "\n".join(lines(ASKED, LENGTHS[40]))),
        ):
            model = trained[name].model
            result = Command(model).run("-", "-", "--outputs", "probabilities", given=body)
            reply = servers[name].invoke(body, Accept="text/csv; output=probabilities")
            assert result.stdout == reply.body + b"\n", result.stderr.decode()

    def test_cells_and_predictions_side_by_side(self, trained: dict[str, TrainingJob]) -> None:
        rows = lines(ASKED, LENGTHS[40])
        result = Command(trained["ragged"].model).run("-", "-", "--join", given="\n".join(rows))
        joined = result.stdout.decode().splitlines()
        assert [line.rpartition(",")[0] for line in joined] == rows
        assert {line.rpartition(",")[2] for line in joined} == set(LABELS)
