import numpy as np
import pytest
import torch

from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.views import Views, measure_statistics
from tests.unit.groups import run_together

ALL = ("values", "differences", "deviations")


def test_views_by_their_definitions() -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(size=(40, 2, 12)).cumsum(axis=2) * np.array([1.0, 1e-3])[:, None]
    statistics = measure_statistics(torch.from_numpy(training).float().tensor_split(6), 2, 12, Group())
    views = Views(ALL, 2, 12)
    views.set_statistics(statistics)
    series = rng.normal(size=(3, 2, 12))
    found = views(torch.from_numpy(series).float()).numpy()
    assert found.shape == (3, 6, 12)
    padded = np.diff(training, axis=2, prepend=training[:, :, :1])
    mean = training.mean(axis=0)
    for m in range(2):
        np.testing.assert_allclose(found[:, 3 * m], series[:, m], rtol=1e-6)
        differences = np.diff(series[:, m], axis=1, prepend=series[:, m, :1])
        np.testing.assert_allclose(found[:, 3 * m + 1], differences / np.sqrt((padded[:, m] ** 2).mean()), rtol=2e-4)
        deviations = (series[:, m] - mean[m]) / (training[:, m] - mean[m]).std()
        np.testing.assert_allclose(found[:, 3 * m + 2], deviations, rtol=2e-4, atol=1e-5)


def test_values_alone_are_the_series() -> None:
    series = torch.randn(2, 3, 5)
    assert Views(["values"], 3, 5)(series) is series
    assert list(Views(["values"], 3, 5).state_dict()) == []


def test_series_that_are_all_the_same_and_constant() -> None:
    statistics = measure_statistics([torch.full((4, 1, 6), 2.5)], 1, 6, Group())
    views = Views(ALL, 1, 6)
    views.set_statistics(statistics)
    assert views(torch.full((1, 1, 6), 2.5))[0].tolist() == [[2.5] * 6, [0.0] * 6, [0.0] * 6]


@pytest.mark.parametrize("rows", [(20, 10), (30, 0)])
def test_processes_measure_together(rows: tuple[int, int]) -> None:
    series = torch.randn(30, 1, 8)
    alone = measure_statistics([series], 1, 8, Group())
    parts = series[: rows[0]], series[rows[0] :]
    for found in run_together(2, lambda group: measure_statistics([parts[group.rank]], 1, 8, group)):
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a, b)
