"""The report of a job covers the data of all its processes."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from lstm_fcn.container.csv_header import HEADERLESS
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.preprocess import STRICT
from lstm_fcn.container.problem import Problem, Scaling, Task
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.explain import predict
from lstm_fcn.training.loop import BestEpoch
from lstm_fcn.training.network.model import Classifier, Scaler, make_network
from lstm_fcn.training.output import summary
from lstm_fcn.training.output.report import Report, page
from tests.unit.groups import run_together

LENGTH, CLASSES = 12, ("a", "b", "c")
SETTINGS = parse_hyperparameters({"hidden-size": "2", "filters-1": "4", "filters-2": "4", "filters-3": "4"})
torch.manual_seed(0)
SCALING = Scaling(method="dataset", mean=(5.0,), std=(2.0,))
NETWORK = make_network(SETTINGS, 1, LENGTH, len(CLASSES))
ALL = slice(None)


def make_data(rows: slice, total: int = 30, task: Task = "multiclass", validation: slice | None = None) -> Data:
    """The part of one process; all parts together are the same series, whatever the number of processes."""
    rng = torch.Generator().manual_seed(0)
    series = torch.randn(total, 1, LENGTH, generator=rng)
    labels = torch.arange(total) % 3
    if task == "multilabel":
        labels = torch.stack([labels == 0, labels > 0, labels == 2], dim=1).float()
    problem = Problem(
        task=task,
        classes=CLASSES,
        class_counts=(10, 10, 10),
        series_count=total,
        columns=HEADERLESS,
        preprocessing=STRICT,
        num_variables=1,
        length=LENGTH,
        scaling=SCALING,
    )
    training = Dataset(series[rows], labels[rows])
    held_out = None if validation is None else Dataset(series[validation], labels[validation])
    return Data(problem, training, held_out, series[:1].numpy().astype(np.float64), "")


def make_report(data: Data, group: Group) -> Report:
    best = BestEpoch(1, {"train_loss": 0.5, "valid_loss": 0.5})
    classifier = Classifier(Scaler(SCALING), NETWORK, data.problem.independent).eval()
    return summary.make_report(SETTINGS, data, classifier, best, [{"epoch": 1, "round": 0}], {}, None, group)


def shard(bounds: list[int], rank: int) -> slice:
    return slice(bounds[rank], bounds[rank + 1])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    ("training", "validation"),
    [([0, 7, 30], None), ([0, 20, 30], [0, 4, 30]), ([0, 15, 30], [0, 30, 30])],
    ids=["training", "validation", "no validation rows on the second machine"],
)
def test_the_report_of_two_processes_is_the_report_of_one(
    task: Task, training: list[int], validation: list[int] | None
) -> None:
    alone = make_report(make_data(ALL, task=task, validation=ALL if validation else None), Group())
    parts = [
        make_data(shard(training, rank), task=task, validation=shard(validation, rank) if validation else None)
        for rank in range(2)
    ]
    for report in run_together(2, lambda group: make_report(parts[group.rank], group)):
        assert report.evaluation.rows == len(report.evaluation.truth) == 30
        np.testing.assert_array_equal(report.evaluation.truth, alone.evaluation.truth)
        np.testing.assert_allclose(report.evaluation.probabilities, alone.evaluation.probabilities, rtol=1e-4)
        np.testing.assert_array_equal(report.evaluation.confusion(), alone.evaluation.confusion())
        assert (report.data, report.class_counts) == (alone.data, alone.class_counts)
        for found, expected in zip(
            [*report.examples, *report.mistakes], [*alone.examples, *alone.mistakes], strict=True
        ):
            np.testing.assert_array_equal(found.series, expected.series)
            assert (found.predicted, found.truth, found.row) == (expected.predicted, expected.truth, None)
            assert found.activation is not None
            assert expected.activation is not None
            np.testing.assert_allclose(found.activation, expected.activation, rtol=1e-3, atol=1e-6)


def test_counts_and_scores_are_those_of_the_evaluated_rows() -> None:
    report = make_report(make_data(slice(0, 20), validation=slice(20, 30)), Group())
    assert report.class_counts == {"training": [7, 7, 6], "validation": [3, 3, 4]}
    assert report.data["training series"] == "20"
    assert report.data["validation series"] == "10"
    validation = make_data(ALL, validation=slice(20, 30)).validation
    assert validation is not None
    predictions = predict(Classifier(Scaler(SCALING), NETWORK).eval(), validation.series).argmax(axis=1)
    np.testing.assert_array_equal(report.evaluation.confusion(), confusion_matrix(validation.labels, predictions))


def test_rows_are_numbered_as_in_the_data_and_series_are_in_its_units() -> None:
    data = make_data(ALL)
    order = torch.arange(29, 9, -1)  # as a hold-out shuffles them
    held_out = dataclasses.replace(data.training, rows=order)
    report = make_report(dataclasses.replace(data, validation=held_out), Group())
    assert report.evaluation.row_numbers is not None
    assert report.evaluation.row_numbers.tolist() == list(range(30, 10, -1))
    for example in (*report.examples, *report.mistakes):
        assert example.row is not None
        np.testing.assert_allclose(example.series, 2 * data.training.series[example.row - 1] + 5, rtol=1e-6)


@pytest.mark.parametrize("bounds", [[0, 30], [0, 10, 30]])
def test_many_rows_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch, bounds: list[int]) -> None:
    monkeypatch.setattr(summary, "MAX_ROWS", 6)
    size = len(bounds) - 1
    parts = [make_data(shard(bounds, rank)) for rank in range(size)]
    report = run_together(size, lambda group: make_report(parts[group.rank], group))[0]
    assert report.evaluation.truth.tolist() == [row % 3 for row in (0, 5, 10, 15, 20, 25)]
    assert report.evaluation.rows == 30
    assert report.class_counts == {"training": [10, 10, 10]}
    assert "Per-class results are computed on a sample of 6 rows." in page(report)
