"""The estimator: what it takes, what it gives, and its place in scikit-learn."""

import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from lstm_fcn import LSTMFCNClassifier
from lstm_fcn.client.signature import module
from lstm_fcn.container import artifact
from lstm_fcn.container.cores import allowed_threads, available_cores
from tests.models import GOLDEN

SMALL: dict[str, Any] = {"filters_1": 4, "filters_2": 4, "filters_3": 4, "kernel_features": 84, "epochs": 2}
LENGTH = 20


def make_series(count: int = 24, variables: int = 1, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rising and falling series, `[N, M, T]`."""
    random, labels = np.random.default_rng(seed), np.arange(count) % 2
    slopes = (2 * labels - 1)[:, None, None] * np.linspace(-1, 1, LENGTH)
    return slopes + random.normal(scale=0.1, size=(count, variables, LENGTH)), labels


X, Y = make_series()
FLAT = X[:, 0]


@pytest.fixture(scope="module")
def fitted() -> LSTMFCNClassifier:
    return LSTMFCNClassifier(**SMALL).fit(FLAT, Y)


def make_ragged() -> list[NDArray[np.float64]]:
    return [one[: LENGTH - k % 3] for k, one in enumerate(FLAT)]


class TestPredictions:
    def test_labels_probabilities_and_maps(self, fitted: LSTMFCNClassifier) -> None:
        probabilities = fitted.predict_proba(FLAT)
        assert probabilities.shape == (24, 2)
        assert probabilities.sum(axis=1) == pytest.approx(1)
        assert fitted.classes_.tolist() == [0, 1]
        assert fitted.predict(FLAT).tolist() == probabilities.argmax(axis=1).tolist()
        assert fitted.score(FLAT, Y) == 1.0
        assert fitted.explain(FLAT).shape == (24, LENGTH)

    @pytest.mark.parametrize("form", [X, FLAT.tolist(), list(FLAT), pd.DataFrame(FLAT), FLAT.astype(object)])
    def test_every_form_of_the_series_gives_the_same(self, fitted: LSTMFCNClassifier, form: Any) -> None:
        other = LSTMFCNClassifier(**SMALL).fit(form, Y)
        np.testing.assert_array_equal(other.predict_proba(form), fitted.predict_proba(FLAT))

    def test_several_variables(self) -> None:
        series, labels = make_series(variables=3)
        model = LSTMFCNClassifier(**SMALL).fit(series, labels)
        assert model.metadata_.problem.num_variables == model.n_features_in_ == 3
        assert model.predict(series).shape == (24,)
        with pytest.raises(ValueError, match="X has series of 2 variables, but the model takes 3"):
            model.predict(series[:, :2])
        with pytest.raises(ValueError, match="X has series of 19 values, but the model takes series of 20"):
            model.predict(series[:, :, 1:])

    @pytest.mark.parametrize("labels", [["b", "a"], [True, False], [2.0, -1.0], [10, 9]])
    def test_labels_of_any_kind(self, labels: list[Any]) -> None:
        y = np.array(labels)[Y]
        model = LSTMFCNClassifier(**SMALL).fit(FLAT, y)
        assert model.classes_.tolist() == sorted(labels)
        assert model.predict(FLAT).dtype == y.dtype
        assert model.score(FLAT, y) == 1.0

    def test_labels_whose_order_as_text_differs_from_that_of_the_model(self) -> None:
        """Text is sorted as text, while the model sorts numbers as numbers."""
        y = np.array(["10", "9"])[Y]
        model = LSTMFCNClassifier(**SMALL).fit(FLAT, y)
        assert (model.classes_.tolist(), model.metadata_.problem.classes) == (["10", "9"], ("9", "10"))
        assert model.score(FLAT, y) == 1.0

    def test_missing_values_and_other_lengths(self) -> None:
        holes = FLAT.copy()
        holes[3, 5] = np.nan
        LSTMFCNClassifier(**SMALL, missing_values="interpolate").fit(holes, Y).predict(holes)
        for policy in ("pad", "resample"):
            model = LSTMFCNClassifier(**SMALL, length_policy=policy).fit(make_ragged(), Y)
            assert model.score(make_ragged(), Y) == 1.0
            assert model.predict([FLAT[0][:5]]).shape == (1,)
        assert model.predict([np.repeat(FLAT[0], 2)]).shape == (1,)  # resampled

    def test_validation_data_selects_the_epoch(self) -> None:
        series, labels = make_series(10, seed=1)
        model = LSTMFCNClassifier(**SMALL).fit(FLAT, Y, eval_set=(series[:, 0], labels))
        assert model.metadata_.metrics["valid_accuracy"] == 1.0

    def test_the_callers_random_numbers_are_left_alone(self) -> None:
        import torch

        torch.manual_seed(5)
        expected = torch.rand(1).item()
        torch.manual_seed(5)
        LSTMFCNClassifier(**SMALL).fit(FLAT, Y)
        assert torch.rand(1).item() == expected


class TestErrors:
    @pytest.mark.parametrize(
        ("series", "message"),
        [
            (np.where(np.arange(LENGTH) == 7, np.nan, FLAT), r"X\[0, 7\] is missing \(NaN\)\. Set missing_values="),
            (np.where(np.arange(LENGTH) == 7, np.inf, FLAT), r"X\[0, 7\] is infinite"),
            ([["0.5", "a"] * 10] * 24, r"X\[0, 1\] is not a number \('a'\)"),
            (make_ragged(), r"X\[1\] has 19 values, but X\[0\] has 20; set length_policy="),
            (X[:, None], r"X has 4 dimensions; series are \[N, T\]"),
            (X[None], r"X has 4 dimensions; series are \[N, T\]"),
            (FLAT[0], "Expected 2D array, got 1D array instead"),
            (FLAT[:0], r"Found array with 0 sample\(s\)"),
            (FLAT[:, :1], r"Found array with 1 feature\(s\)"),
            (X[:, :, :1], "The training series have one value each"),
            (FLAT[:9], "X has 9 series, but y has 24 labels"),
            ([[object()] * LENGTH] * 24, "float"),
        ],
    )
    def test_series(self, series: Any, message: str) -> None:
        with pytest.raises((ValueError, TypeError), match=message):
            LSTMFCNClassifier(**SMALL).fit(series, Y)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.zeros(24, int), r"y has only one class \('0'\); at least two are needed"),
            (np.linspace(0, 1, 24), "Unknown label type: continuous"),
            ([" ", "a"] * 12, r"y has a missing label \(' '\)"),
            ([0, np.inf] * 12, "Input y contains infinity"),
            (None, "requires y to be passed, but the target y is None"),
            (np.stack([Y, Y], axis=1), r"y should be a 1d array"),
        ],
    )
    def test_labels(self, labels: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LSTMFCNClassifier(**SMALL).fit(FLAT, labels)

    def test_validation_labels_are_those_of_training(self) -> None:
        with pytest.raises(ValueError, match="eval_set has the label 'x', which is not in y"):
            LSTMFCNClassifier(**SMALL).fit(FLAT, Y, eval_set=(FLAT[:2], ["0", "x"]))

    def test_hyperparameters(self) -> None:
        with pytest.raises(ValueError, match=r"preset=fast must be default, best or.*epochs=-1 must be an integer"):
            LSTMFCNClassifier(epochs=-1, preset="fast").fit(FLAT, Y)  # type: ignore[arg-type]

    def test_predictions(self, fitted: LSTMFCNClassifier) -> None:
        with pytest.raises(NotFittedError):
            LSTMFCNClassifier().predict(FLAT)
        with pytest.raises(ValueError, match="X has 19 features, but LSTMFCNClassifier is expecting 20"):
            fitted.predict(FLAT[:, 1:])
        alone = LSTMFCNClassifier(**(SMALL | {"kernel_features": 0}), convolutions=False).fit(FLAT, Y)
        with pytest.raises(ValueError, match="neither convolutions nor kernel features"):
            alone.explain(FLAT)


class TestFiles:
    def test_a_saved_model_is_loaded(self, fitted: LSTMFCNClassifier, tmp_path: Path) -> None:
        loaded = LSTMFCNClassifier.load(fitted.save(tmp_path / "model"))
        np.testing.assert_array_equal(loaded.predict_proba(FLAT), fitted.predict_proba(FLAT))
        assert loaded.predict(FLAT).tolist() == fitted.predict(FLAT).tolist()
        assert loaded.get_params() == fitted.get_params() | {"batch_size": 16}  # the one that was used
        loaded.save(tmp_path / "again")
        for name in (artifact.GRAPH, artifact.WEIGHTS, artifact.METADATA):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()

    def test_an_archive_is_loaded(self, fitted: LSTMFCNClassifier, tmp_path: Path) -> None:
        import tarfile

        folder = fitted.save(tmp_path / "model")
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
            archive.add(folder, ".")
        assert LSTMFCNClassifier.load(tmp_path / "model.tar.gz").score(FLAT, Y) == 1.0

    def test_a_model_of_a_table_with_a_header_is_loaded(self) -> None:
        model = LSTMFCNClassifier.load(GOLDEN / "model")
        problem = model.metadata_.problem
        series = np.zeros((2, problem.num_variables, problem.length))
        assert set(model.predict(series)) <= set(problem.classes)

    def test_what_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"holds no model: model\.json is missing"):
            LSTMFCNClassifier.load(tmp_path)
        with pytest.raises(ValueError, match=r"holds no model.*no such folder"):
            LSTMFCNClassifier.load(tmp_path / "none")

    def test_neither_import_nor_predictions_need_torch(self, fitted: LSTMFCNClassifier, tmp_path: Path) -> None:
        fitted.save(tmp_path)
        program = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocked())
import lstm_fcn
assert "sklearn" not in sys.modules and "numpy" not in sys.modules
from lstm_fcn import LSTMFCNClassifier
model = LSTMFCNClassifier.load({str(tmp_path)!r})
print(model.predict([[0.1 * k for k in range({LENGTH})]]).tolist())
try:
    model.fit([[1, 2], [3, 4]], ["a", "b"])
except ModuleNotFoundError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [
            "[1]",
            "Training needs the package torch, which is not installed: pip install 'lstm-fcn[train]'.",
        ]


class TestInScikitLearn:
    def test_parameters(self) -> None:
        model = LSTMFCNClassifier(epochs=3, preset="best")
        assert model.get_params()["epochs"] == 3
        assert repr(clone(model).set_params(lr=0.01)) == "LSTMFCNClassifier(epochs=3, lr=0.01, preset='best')"

    def test_the_constructor_is_generated_from_the_table_of_hyperparameters(self) -> None:
        import lstm_fcn.parameters

        assert Path(lstm_fcn.parameters.__file__).read_text() == module()

    def test_a_copy_through_pickle_predicts_the_same(self, fitted: LSTMFCNClassifier) -> None:
        fitted.predict(FLAT)
        copy = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - its own bytes
        np.testing.assert_array_equal(copy.predict_proba(FLAT), fitted.predict_proba(FLAT))

    def test_pipelines_and_searches(self) -> None:
        scaled = make_pipeline(FunctionTransformer(np.cbrt), LSTMFCNClassifier(**SMALL))
        assert cross_val_score(scaled, FLAT, Y, cv=2).tolist() == [1.0, 1.0]
        search = GridSearchCV(LSTMFCNClassifier(**SMALL), {"hidden_size": np.array([2, 3])}, cv=2).fit(FLAT, Y)
        assert search.best_score_ == 1.0

    def test_parallel_jobs_share_the_cores(self) -> None:
        both = Parallel(n_jobs=2)(delayed(allowed_threads)() for _ in range(2))
        assert both == [max(1, available_cores() // 2)] * 2
        assert cross_val_score(LSTMFCNClassifier(**SMALL), FLAT, Y, cv=2, n_jobs=2).tolist() == [1.0, 1.0]

    def test_fitting_leaves_the_state_of_torch(self) -> None:
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        try:
            torch.set_num_threads(threads + 1)
            LSTMFCNClassifier(**SMALL).fit(FLAT, Y)
            assert torch.get_num_threads() == threads + 1
        finally:
            torch.set_num_threads(threads)
        assert torch.get_rng_state().equal(before)


class TestInterruption:
    def test_the_best_weights_so_far_are_kept(self) -> None:
        model = LSTMFCNClassifier(**(SMALL | {"epochs": 20000}))

        def interrupt() -> None:
            time.sleep(3)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.warns(UserWarning, match=r"Training was interrupted; the model has the weights of epoch \d+"):
            model.fit(FLAT, Y)
        assert model.score(FLAT, Y) > 0.5
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_log_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    LSTMFCNClassifier(**SMALL, verbose=True).fit(FLAT, Y)
    assert "epoch: 2/2, train_loss: " in capsys.readouterr().out
    LSTMFCNClassifier(**SMALL).fit(FLAT, Y)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_checks_of_scikit_learn() -> None:
    quick = LSTMFCNClassifier(epochs=20, filters_1=16, filters_2=16, filters_3=16, kernel_features=168)
    weights = "class_weight is 'balanced' or 'none', as in a training job; it takes no weights of single classes"
    found = check_estimator(
        quick, expected_failed_checks={"check_class_weight_classifiers": weights}, on_fail=None, on_skip=None
    )
    outcomes = {name: {one["check_name"] for one in found if one["status"] == name} for name in ("failed", "xfail")}
    assert outcomes == {"failed": set(), "xfail": {"check_class_weight_classifiers"}}
    assert len(found) > 50
