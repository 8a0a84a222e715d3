"""Kernel features against a literal loop, and ridge regression against fitting again without each series."""

import itertools
import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.training import ridge
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.kernels import (
    KernelClassifier,
    KernelFeatures,
    choose_dilations,
    draw_channels,
    round_series,
)
from lstm_fcn.training.ridge import choose_temperature, fit_kernels, fit_ridge
from tests.unit.groups import run_together


def make_features(length: int, variables: int = 1, count: int = 252) -> KernelFeatures:
    features = KernelFeatures(length, variables, count)
    features.draw_biases(torch.randn(30, variables, length, generator=torch.Generator().manual_seed(1)), seed=0)
    return features


def literal_features(features: KernelFeatures, series: NDArray[np.float64]) -> list[float]:
    """The definition, for one series `[M, T]`: every kernel, dilation, bias and time step one by one."""
    found, length = [], series.shape[1]
    series = np.round(series * 2**14)
    for number, bank in enumerate(features.banks):
        highs = list(itertools.combinations(range(9), 3))[number % 2 :: 2]  # the banks of even and odd kernels in turn
        for row, high in enumerate(highs):
            read = [m for m in range(len(series)) if bank.channels[row, m]]
            reach = 4 * bank.dilation
            responses = []
            for t in range(length) if bank.padding else range(reach, length - reach):
                total = 0.0
                for m, k in itertools.product(read, range(9)):
                    place = t + (k - 4) * bank.dilation
                    if 0 <= place < length:
                        total += (2.0 if k in high else -1.0) * series[m, place]
                responses.append(total)
            found += [sum(r > bias for r in responses) / len(responses) for bias in bank.bias[row].tolist()]
    return found


@pytest.mark.parametrize(("length", "variables"), [(40, 1), (75, 3), (6, 1)])
def test_features_are_those_of_a_literal_loop(length: int, variables: int) -> None:
    features = make_features(length, variables)
    series = torch.randn(2, variables, length, generator=torch.Generator().manual_seed(0))
    found = features(series)
    assert found.shape == (2, features.count)
    for row, one in zip(found, series, strict=True):
        np.testing.assert_array_equal(
            row.numpy(), np.array(literal_features(features, one.double().numpy()), np.float32)
        )


def test_biases_are_quantiles_of_training_series() -> None:
    """So that a feature is neither 0 nor 1 for all series."""
    features = make_features(100, count=2000)
    assert features.count == 2016
    shares = features(torch.randn(50, 1, 100, generator=torch.Generator().manual_seed(2)))
    assert 0.45 < shares.mean() < 0.55
    assert (shares.std(dim=0) > 0).float().mean() > 0.99


def test_a_constant_series_is_above_no_bias_of_a_constant_series() -> None:
    """Rounding does not decide, whatever the offset is."""
    features = KernelFeatures(60, 1, 252)
    features.draw_biases(torch.zeros(5, 1, 60), seed=0)
    for bank, value in itertools.product(features.banks, (0.1, -2.3, 7.77)):
        above = bank.above(round_series(torch.full((1, 1, 60), value)))
        assert not above[:, :, bank.padding : above.shape[2] - bank.padding].any()


def test_dilations() -> None:
    assert choose_dilations(150, 24) == [(1, 5), (2, 5), (4, 5), (8, 5), (16, 4)]
    assert choose_dilations(150, 3) == [(1, 1), (2, 1), (4, 1)]
    assert choose_dilations(9, 24) == choose_dilations(2, 24) == [(1, 24)]
    assert choose_dilations(17, 4) == [(1, 2), (2, 2)]


def test_kernels_read_some_of_many_variables() -> None:
    random = np.random.default_rng(0)
    counts = [draw_channels(20, random).sum() for _ in range(500)]
    assert (min(counts), max(counts)) == (1, 9)
    assert np.mean(np.array(counts) <= 3) > 0.5
    assert all(draw_channels(1, random).sum() == 1 for _ in range(5))


def test_the_mean_of_the_activation_map_is_the_logit_beyond_that_of_the_mean_features() -> None:
    model = KernelClassifier(make_features(50, 2), 3)
    torch.nn.init.uniform_(model.mean)
    series = torch.randn(4, 2, 50)
    classes = torch.tensor([0, 2, 1, 1])
    expected = (model(series) - model.linear(model.mean))[torch.arange(4), classes]
    found = model.activation_map(series, classes)
    assert found.shape == (4, 50)
    torch.testing.assert_close(found.mean(dim=1), expected, rtol=1e-4, atol=1e-4)


# Ridge regression


def fit_plainly(
    features: NDArray[np.float64], wanted: NDArray[np.float64], scale: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge regression with an intercept that is not penalised, by its normal equations."""
    scaled = features / scale
    mean, offset = scaled.mean(axis=0), wanted.mean(axis=0)
    centred = scaled - mean
    gram = centred.T @ centred + penalty * np.eye(centred.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (wanted - offset))
    return weights, offset - mean @ weights


@pytest.mark.parametrize(("series", "width"), [(24, 60), (60, 24)])
@pytest.mark.parametrize("independent", [False, True])
def test_leave_one_out_scores_are_those_of_fitting_without_each_series(
    series: int, width: int, independent: bool
) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(2.0, 3.0, (series, width)) * rng.uniform(0.1, 10, width)
    labels = rng.integers(0, 3, series)
    features[:, :3] += 4 * np.eye(3)[labels]
    targets = np.eye(3, dtype=bool)[labels]
    if independent:
        targets[:, 1] |= rng.random(series) < 0.3
    found = fit_ridge(features, targets, independent)
    wanted, scale = np.where(targets, 1.0, -1.0), features.std(axis=0)
    expected = []
    for row in range(series):
        others = np.arange(series) != row
        weights, offset = fit_plainly(features[others], wanted[others], scale, found.penalty)
        expected.append(features[row] / scale @ weights + offset)
    temperature = choose_temperature(np.array(expected), targets, independent)
    np.testing.assert_allclose(found.logits, temperature * np.array(expected), atol=1e-6 * temperature)
    weights, offset = fit_plainly(features, wanted, scale, found.penalty)
    np.testing.assert_allclose(
        features @ found.weights.T + found.bias, temperature * (features / scale @ weights + offset), atol=1e-6
    )


def test_the_penalty_is_large_for_noise_and_small_for_a_clear_rule() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(80, 200)), rng.integers(0, 2, 80)
    noise = fit_ridge(features, np.eye(2, dtype=bool)[labels], independent=False)
    features[:, :50] += 2 * labels[:, None]
    rule = fit_ridge(features, np.eye(2, dtype=bool)[labels], independent=False)
    assert noise.penalty > 10 * rule.penalty
    assert (rule.logits.argmax(axis=1) == labels).mean() > 0.95


def test_features_without_variance_have_no_weight() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(20, 5)), np.arange(20) % 2
    features[:, 2] = 0.25
    found = fit_ridge(features, np.eye(2, dtype=bool)[labels], independent=False)
    assert not found.weights[:, 2].any()
    assert np.isfinite(found.weights).all()


@pytest.mark.parametrize("independent", [False, True])
def test_the_temperature_fits_best_but_never_makes_sure(independent: bool) -> None:
    rng = np.random.default_rng(0)
    targets = np.eye(3, dtype=bool)[rng.integers(0, 3, 300)]
    logits = np.where(targets, 1.0, -1.0) + rng.normal(size=(300, 3))
    assert choose_temperature(5 * logits, targets, independent) == pytest.approx(
        choose_temperature(logits, targets, independent) / 5, rel=1e-3
    )
    perfect = np.where(targets[:20], 1.0, -1.0)
    assert 1 < choose_temperature(perfect, targets[:20], independent) < 10


def make_dataset(count: int, length: int = 30, seed: int = 0) -> Dataset:
    """Noise; in class 1, a step in the middle."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    series = torch.randn(count, 1, length, generator=generator)
    series[:, :, length // 2 :] += 3.0 * labels[:, None, None]
    return Dataset(series, labels)


def make_problem(task: str = "binary", length: int = 30) -> Problem:
    scaling = Scaling(method="none")
    return Problem.model_validate({"task": task, "classes": ("a", "b"), "length": length, "scaling": scaling})


SETTINGS = parse_hyperparameters({"kernel-features": "252"})


def test_a_fitted_classifier_knows_new_series(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = fit_kernels(make_dataset(60), make_problem(), SETTINGS, Group())
    new = make_dataset(200, seed=1)
    assert (model(new.series).argmax(dim=1) == new.labels).float().mean() > 0.9
    assert "kernel features: 252, fitted to 60 series, penalty " in caplog.messages[-1]
    maps = model.activation_map(make_dataset(60).series, torch.zeros(60, dtype=torch.long))
    assert abs(maps.mean().item()) < 1e-4  # what speaks for a class speaks against it elsewhere
    again = fit_kernels(make_dataset(60), make_problem(), SETTINGS, Group())
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_numpy_has_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more, a container that is limited to a part of the cores would make another model than one core does."""
    found: list[int] = []

    def fit_and_count(*arguments: Any) -> ridge.Ridge:
        found.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return fit_ridge(*arguments)

    monkeypatch.setattr(ridge, "fit_ridge", fit_and_count)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with threadpool_limits(2, "blas"):
        fit_kernels(make_dataset(20), make_problem(), SETTINGS, Group())
    assert found
    assert set(found) == {1}


def test_independent_classes() -> None:
    data = make_dataset(60)
    both = torch.stack([data.labels, torch.ones_like(data.labels)], dim=1).float()
    model = fit_kernels(Dataset(data.series, both), make_problem("multilabel"), SETTINGS, Group())
    found = model(make_dataset(200, seed=1).series).sigmoid() > 0.5
    assert (found[:, 0] == (torch.arange(200) % 2 == 1)).float().mean() > 0.9
    assert found[:, 1].all()


def test_more_series_than_fit_into_memory_are_drawn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ridge, "MOST_FEATURES", 252 * 40)
    fit_kernels(make_dataset(100), make_problem(), SETTINGS, Group())
    assert "fitted to 40 series" in caplog.messages[-1]


def test_processes_fit_together() -> None:
    """One of them has no rows."""
    whole = make_dataset(60)
    parts = [whole, Dataset(whole.series[:0], whole.labels[:0])]
    alone = fit_kernels(whole, make_problem(), SETTINGS, Group())
    for found in run_together(2, lambda group: fit_kernels(parts[group.rank], make_problem(), SETTINGS, group)):
        torch.testing.assert_close(found.state_dict(), alone.state_dict(), rtol=1e-4, atol=1e-5)
    assert math.isfinite(float(alone.linear.weight.sum()))
