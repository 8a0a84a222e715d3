"""Data with a header: targets in columns `y…`, values in columns `x…`; and the hyperparameter `task`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.metrics import METRICS
from tests.programs import (
    SMALL,
    Endpoint,
    Result,
    TrainingJob,
    assert_all_refused,
    assert_succeeded,
    endpoint,
    labelled_csv,
    run_all,
)

LENGTH = 6
SERIES = [f"x{k}" for k in range(LENGTH)]
LEARNING = SMALL | {"epochs": "60", "lr": "0.02", "lr-schedule": "one-cycle"}


def ramps(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which series rise, bool `[rows]`, and the series, `[rows, LENGTH]`."""
    rng = np.random.default_rng(seed)
    rises = np.arange(rows) % 2 == 0
    slopes = np.where(rises, 1.0, -1.0)[:, None]
    return rises, slopes * np.linspace(-1, 1, LENGTH) + rng.normal(scale=0.1, size=(rows, LENGTH))


def table(header: list[str], *parts: np.ndarray) -> str:
    """CSV with a header; 0 and 1 of targets are written without a decimal point."""
    rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    lines = [",".join(f"{cell:g}" if cell in (0, 1) else f"{cell:.5f}" for cell in row) for row in rows]
    return "\n".join([",".join(header), *lines]) + "\n"


def one_hot(rows: int, seed: int = 0) -> str:
    """Columns in an unusual order: values around the targets."""
    rises, series = ramps(rows, seed)
    header = [*SERIES[:2], "y_up", "Ydown", *SERIES[2:]]
    return table(header, series[:, :2], rises, ~rises, series[:, 2:])


def multi_hot(rows: int, seed: int = 0) -> str:
    """The target `y_high` is independent of `y_up`."""
    rises, series = ramps(rows, seed)
    high = np.arange(rows) // 2 % 2 == 1
    return table(["y_up", "y_high", *SERIES], rises, high, series + 3.0 * high[:, None])


def single(rows: int, seed: int = 0) -> str:
    rises, series = ramps(rows, seed)
    return table(["y", *SERIES], rises, series)


Finished = dict[str, tuple[TrainingJob, Result]]
DATA = {"one-hot": one_hot, "multi-hot": multi_hot, "single": single}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    jobs = {}
    for name, data in DATA.items():
        jobs[name] = TrainingJob(tmp_path_factory.mktemp(name)).prepare(data(40), data(10, seed=1))
        jobs[name].write("input/config/hyperparameters.json", LEARNING)
    return dict(zip(jobs, zip(jobs.values(), run_all(jobs.values()), strict=True), strict=True))


@pytest.fixture(scope="module")
def servers(finished: Finished) -> Iterator[dict[str, Endpoint]]:
    one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
    roots = {name: job.root for name, (job, _) in finished.items()}
    with (
        endpoint(roots["one-hot"], **one) as first,
        endpoint(roots["multi-hot"], **one) as second,
        endpoint(roots["single"], **one, SAGEMAKER_BATCH="true") as third,
    ):
        yield {"one-hot": first, "multi-hot": second, "single": third}


class TestTraining:
    @pytest.mark.parametrize(
        ("name", "task", "classes"),
        [
            ("one-hot", "binary", ["y_up", "Ydown"]),
            ("multi-hot", "multilabel", ["y_up", "y_high"]),
            ("single", "binary", ["y"]),
        ],
    )
    def test_the_task_follows_from_the_data(self, finished: Finished, name: str, task: str, classes: list[str]) -> None:
        job, result = finished[name]
        assert_succeeded(job, result)
        metadata, _ = artifact.load(job.model)
        problem = metadata.problem
        assert (problem.task, list(problem.classes), list(problem.columns.series)) == (task, classes, SERIES)
        assert f"task: {task}; classes: {classes[0]!r}: 20" in result.stdout
        assert "train_accuracy: 1.000000" in result.metric_lines()[-1]
        for line in result.metric_lines():
            for metric in METRICS:  # the area under the curve is defined for these tasks, too
                assert len(re.findall(metric.regex, line)) == 1

    @pytest.mark.parametrize(
        ("name", "header"),
        [("one-hot", "y_up,Ydown,p_up,pdown"), ("multi-hot", "y_up,y_high,p_up,p_high"), ("single", "y,p")],
    )
    def test_replies_are_targets_and_probabilities_by_name(
        self, servers: dict[str, Endpoint], name: str, header: str
    ) -> None:
        truth, request = split(DATA[name](10, seed=2))
        text = servers[name].invoke(request).text
        assert text.endswith("\n") == (name == "single")  # the one that is in a batch job
        lines = text.splitlines()
        assert lines[0] == header
        rows = np.array([line.split(",") for line in lines[1:]], dtype=float)
        targets, probabilities = np.split(rows, 2, axis=1)
        names = header.split(",")[: targets.shape[1]]
        assert [line.split(",")[: len(names)] for line in lines[1:]] == [[str(int(v)) for v in row] for row in targets]
        assert targets.tolist() == [[float(row[n]) for n in names] for row in truth]
        if name == "one-hot":
            assert probabilities.sum(axis=1) == pytest.approx(np.ones(10), abs=1e-5)
            assert (targets.argmax(axis=1) == probabilities.argmax(axis=1)).all()
        else:
            assert ((probabilities > 0.5) == targets).all()

    def test_columns_of_a_request_may_stand_in_another_order(self, servers: dict[str, Endpoint]) -> None:
        _, request = split(one_hot(10, seed=3))
        reversed_columns = "\r\n".join(",".join(f'"{c}"' for c in line.split(",")[::-1]) for line in request.split())
        assert servers["one-hot"].invoke(reversed_columns).text == servers["one-hot"].invoke(request).text

    def test_requests_whose_columns_are_wrong(self, servers: dict[str, Endpoint]) -> None:
        header, row = ",".join(SERIES), ",".join("1" * LENGTH)
        cases = {
            f"{row}\n": "request, row 1 must be the header (x0,x1,x2,...), as in the training data of the model",
            f"{header},y\n{row},1\n": "request, row 1 has column 'y'; its header must name x0, x1, x2, ... x5.",
            f"{header[3:]}\n{row[2:]}\n": "request, row 1 lacks column 'x0'; its header must name x0, x1, x2, ... x5.",
            f"x0,{header}\n0,{row}\n": "request, row 1, column 2 names 'x0' twice",
            f"{header},time\n{row},1\n": "request, row 1, column 7 names 'time'; column names must",
            f"{header}\n{row}\n{row},1\n": "request, row 3 has 7 cells, but the header names 6 columns",
            f"{header}\n{row[:-1]}\n": "request, row 2, column 6 is empty",
        }
        for server in servers.values():
            for body, message in cases.items():
                reply = server.invoke(body)
                assert (reply.status, message in reply.text) == (400, True), (body, reply.text)
            assert server.invoke(f"\n{header}\n").status == 204


def split(text: str) -> tuple[list[dict[str, str]], str]:
    """Each row by name, and the same rows without targets, as a request has them."""
    lines = [line.split(",") for line in text.splitlines()]
    rows = [dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]]
    return rows, "\n".join([",".join(SERIES), *(",".join(row[name] for name in SERIES) for row in rows)])


def test_the_task_can_be_chosen(tmp_path: Path) -> None:
    """One-hot targets as independent ones; two labels as any number of classes, which two are as well."""
    one = TrainingJob(tmp_path / "1").prepare(one_hot(12), task="multilabel")
    two = TrainingJob(tmp_path / "2").prepare(labelled_csv(), labelled_csv(6), task="Multiclass")
    results = run_all((one, two))
    for job, result, task in zip((one, two), results, ("multilabel", "multiclass"), strict=True):
        assert_succeeded(job, result)
        assert json.loads(job.read("model.json"))["problem"]["task"] == task
    assert all("valid_auc: " in line for line in results[1].metric_lines())


class TestRefusals:
    @pytest.mark.checklist("28: a header is read if its names start with y and x, else refused; it is never data")
    def test_header_forms(self, tmp_path: Path) -> None:
        rows = "0,1,2\n1,2,3\n"
        cases = {
            f"label,x0,x1\n{rows}": "train.csv, row 1, column 1 names 'label'; column names must start "
            "with y (targets) or x (values); without such columns, remove the header.",
            f"y,x0,x0\n{rows}": "train.csv, row 1, column 3 names 'x0' twice.",
            f"x0,x1,x2\n{rows}": "row 1 is a header without columns of targets (y...).",
            f"y0,y1,y2\n{rows}": "row 1 is a header without columns of values (x...).",
            "y,x0,x1\n0,1,2\n2,2,3\n": "train.csv, row 3, column 1 is 2; targets must be 0 or 1.",
            "y,x0,x1\n0,1,2\n1,2\n": "train.csv, row 3 has 2 cells, but the header names 3 columns.",
            "y,x0,x1\n0,1,2\n1,2,one\n": "train.csv, row 3, column 3 is 'one'; every value must be a finite number.",
            "y,x0,x1\n0,1,2\n,2,3\n": "train.csv, row 3, column 1 is empty",
            "y,x0,x1\n0,1,2\n0,2,3\n": "The target columns 'y' are constant in the training data; nothing to learn.",
            "y,x0,x1\n": "Channel training has no data",
        }
        assert_all_refused(
            (TrainingJob(tmp_path / str(number)).prepare(text), message)
            for number, (text, message) in enumerate(cases.items())
        )

    def test_headers_that_differ_from_file_to_file(self, tmp_path: Path) -> None:
        cases = [
            ("y,x0,x9\n0,1,2\n", "z.csv, row 1 has column 'x9'; its header must name y, x0, x1."),
            ("y,x0\n0,1\n", "z.csv, row 1 lacks column 'x1'; its header must name y, x0, x1."),
            ("0,1,2\n", "z.csv, row 1 must be the header (y,x0,x1,...)"),
        ]
        jobs = [TrainingJob(tmp_path / str(number)).prepare("y,x0,x1\n0,1,2\n1,2,3\n") for number in range(4)]
        for job, (text, _) in zip(jobs, cases, strict=False):
            job.write("input/data/training/z.csv", text)
        jobs[3].prepare("0,1,2\n1,2,3\n").write("input/data/training/z.csv", "y,x0,x1\n0,1,2\n")
        messages = [*(message for _, message in cases), "z.csv, row 1 looks like a header ('x0,x1')"]
        assert_all_refused(zip(jobs, messages, strict=True))

    def test_tasks_that_the_data_does_not_have(self, tmp_path: Path) -> None:
        three = "y_a,y_b,y_c,x0,x1\n1,0,0,1,2\n0,1,0,2,3\n0,0,1,3,4\n"
        cases = [
            ("regression", labelled_csv(), "task=regression must be auto, binary, multiclass or multilabel."),
            (
                "multilabel",
                labelled_csv(),
                "task=multilabel needs a header and target columns: a column of 0 and 1 for each class",
            ),
            (
                "binary",
                labelled_csv(labels=("a", "b", "c")),
                "task=binary needs two classes, but the training data has 3: 'a', 'b', 'c'.",
            ),
            (
                "binary",
                three,
                "task=binary needs one or two target columns, but there are 3: 'y_a', 'y_b', 'y_c'.",
            ),
            (
                "multiclass",
                single(6),
                "task=multiclass needs a target column for each class, but y is the only target column.",
            ),
            (
                "multiclass",
                three + "1,1,0,3,4\n",
                "train.csv, row 5: exactly one of the columns 'y_a', 'y_b', 'y_c' must be 1, because task=multiclass "
                "allows one class per row; use task=multilabel to allow any number.",
            ),
        ]
        jobs = [TrainingJob(tmp_path / str(k)).prepare(text, task=task) for k, (task, text, _) in enumerate(cases)]
        assert_all_refused(zip(jobs, [message for _, _, message in cases], strict=True))

    def test_validation_with_another_kind_of_targets(self, tmp_path: Path) -> None:
        several = multi_hot(6).replace("y_high", "Ydown")
        cases = [
            (several, "valid.csv, row 3: exactly one of the columns 'y_up', 'Ydown' must be 1."),
            (labelled_csv(6, LENGTH + 1), "valid.csv, row 1 must be the header (y_up,Ydown,x0,...)"),
        ]
        jobs = [TrainingJob(tmp_path / str(k)).prepare(one_hot(6), text) for k, (text, _) in enumerate(cases)]
        assert_all_refused(zip(jobs, [message for _, message in cases], strict=True))
