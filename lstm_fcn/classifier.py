"""The estimator: scikit-learn's interface to the model that the containers train and serve.

Torch is imported by `fit` only. A model predicts with ONNX Runtime, in the same way as the endpoint.
"""

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from lstm_fcn.container import artifact
from lstm_fcn.container.cores import allowed_threads, wait_passively
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.progress import EpochBar, LineHandler, training_log
from lstm_fcn.parameters import Parameters
from lstm_fcn.series import Series, check_length, label_text, read_labels, read_series

if TYPE_CHECKING:
    from lstm_fcn.serving.predictor import Predictions
    from lstm_fcn.training.stop import StopSignal

SWITCHES = {"true": True, "false": False}


class LSTMFCNClassifier(ClassifierMixin, Parameters):  # type: ignore[misc]  # scikit-learn has no types
    """Classifies time series with LSTM-FCN networks (Karim et al. 2017) and kernel features.

    The parameters of the constructor are the hyperparameters of a training job. The same series, hyperparameters and
    seed give the same model as `lstm-fcn train` and the training image, byte for byte.

    Attributes:
        classes_: labels in sorted order, `[C]`.
        metadata_: what `model.json` holds: the problem, hyperparameters, metrics, learning curves, versions.
        n_features_in_: time steps of 2-d input, variables of 3-d input.
    """

    classes_: NDArray[Any]
    metadata_: artifact.Metadata
    n_features_in_: int

    def fit(self, X: Series, y: ArrayLike, *, eval_set: tuple[Series, ArrayLike] | None = None) -> Self:  # noqa: N803
        """Train a model.

        After Ctrl-C, the estimator has the best weights so far, and a warning says so. A second Ctrl-C raises
        `KeyboardInterrupt`.

        Args:
            X: series, `[N, T]` or, with several variables, `[N, M, T]`; a frame with a series in each row; or a
                sequence of N arrays `[T]` or `[M, T]` of different length, which need `length_policy`. NaN is a missing
                value.
            y: labels, `[N]`.
            eval_set: series and labels to select the best epoch with.

        Raises:
            ValueError: invalid hyperparameters, series or labels.
        """
        settings = self._settings()
        rules = Preprocessing.of(settings)
        series = read_series(X, rules, least=2)
        self._check_features(X, series, reset=True)
        if series.shape[1] > 1:
            settings = self._settings({"num-variables": series.shape[1]})
        classes, labels = read_labels(y, len(series))
        if len(classes) == 1:
            raise UserError(f"y has only one class ({labels[0]!r}); at least two are needed.")
        channels = {"training": (series, labels)}
        if eval_set is not None:
            series = read_series(eval_set[0], rules)
            _, held_out = read_labels(eval_set[1], len(series))
            if unknown := sorted(set(held_out) - set(labels)):
                raise UserError(f"eval_set has the label {unknown[0]!r}, which is not in y.")
            channels["validation"] = (series, held_out)
        with _log(settings.fine_tune_rounds + 1) if self.verbose else contextlib.nullcontext():
            metadata, graph, weights = train(channels, settings)
        self._take(classes, metadata, graph, weights)
        return self

    def predict(self, X: Series) -> NDArray[Any]:  # noqa: N803
        """The most probable label of each series, `[N]`; of a multilabel model 0 and 1 for each target, `[N, C]`."""
        probabilities = self.predict_proba(X)
        if self.metadata_.problem.independent:
            return (probabilities > 0.5).astype(np.int64)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Series) -> NDArray[np.float32]:  # noqa: N803
        """The probability of each class in the order of `classes_`, float32 `[N, C]`."""
        found = self._predict(X).probabilities
        places = [self.metadata_.problem.classes.index(label_text(label)) for label in self.classes_.tolist()]
        return found[:, places]

    def explain(self, X: Series) -> NDArray[np.float32]:  # noqa: N803
        """The class activation map of the most probable class, float32 `[N, T]`.

        How much each time step adds to the logit of the class; the mean over time is the part of the convolutions, and
        what the kernel features add beyond the mean training series. It is exact, not an approximation.

        Raises:
            ValueError: the model has neither convolutions nor kernel features.
        """
        found = self._predict(X).explanation
        if not self.metadata_.explains:
            raise ValueError("The model has neither convolutions nor kernel features, so it has no activation maps.")
        return found

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder, for `load`, `lstm-fcn serve` and the serving image; return the folder.

        Raises:
            ValueError: the folder cannot be written to.
        """
        check_is_fitted(self, "metadata_")
        artifact.save(Path(folder), self.metadata_, self._graph, self._weights)
        return Path(folder)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save`, `lstm-fcn train` or a training job has written: its folder or `model.tar.gz`.

        Labels become integers if all of them are whole numbers, such as `1`; otherwise they are text.

        Raises:
            ValueError: there is no model, or it is damaged, unsafe or of another release.
        """
        metadata, graph, weights = artifact.load_all(Path(path))
        given = metadata.hyperparameters
        usual = parse_hyperparameters({"preset": given["preset"]}).model_dump(by_alias=True)
        names = {name.replace("_", "-"): name for name in cls._get_param_names()}
        changed = {name: value for name, value in given.items() if value != usual[name] or name == "preset"}
        model = cls(**{names[name]: SWITCHES.get(value, value) for name, value in changed.items() if name in names})
        problem = metadata.problem
        numbers = all(label.lstrip("-").isdecimal() and str(int(label)) == label for label in problem.classes)
        classes = np.unique([int(label) if numbers else label for label in problem.classes])
        model.n_features_in_ = problem.num_variables if problem.num_variables > 1 else problem.length
        model._take(classes, metadata, graph, weights)
        return model

    def _take(self, classes: NDArray[Any], metadata: artifact.Metadata, graph: bytes, weights: bytes) -> None:
        self.classes_, self.metadata_ = classes, metadata
        self._graph, self._weights = graph, weights
        self._open()

    def _open(self) -> None:
        from lstm_fcn.serving.predictor import Predictor

        self._predictor = Predictor(self.metadata_, self._graph, allowed_threads())

    def _predict(self, X: Series) -> "Predictions":  # noqa: N803
        check_is_fitted(self, "metadata_")
        problem = self.metadata_.problem
        series = read_series(X, problem.preprocessing)
        if series.shape[1] != problem.num_variables:
            variables = plural(series.shape[1], "variable")
            raise UserError(f"X has series of {variables}, but the model takes {problem.num_variables}.")
        if not problem.preprocessing.any_length:
            self._check_features(X, series, reset=False)
        check_length(series, problem.preprocessing, problem.length)
        return self._predictor.predict(problem.preprocessing.apply(series, problem.length))

    def _check_features(self, X: Series, series: NDArray[np.float64], reset: bool) -> None:  # noqa: N803
        """Remember names and number of the columns of a frame, or of the values of an array, or compare them."""
        table = X if hasattr(X, "columns") else series if series.shape[1] > 1 else series[:, 0]
        validate_data(self, table, reset=reset, skip_check_array=True)

    def _settings(self, more: Mapping[str, object] | None = None) -> Hyperparameters:
        """The hyperparameters that were given, as a training job reads them."""
        given = {name: value for name, value in self.get_params().items() if name != "verbose" and value is not None}
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        return parse_hyperparameters(
            {name.replace("_", "-"): value for name, value in plain.items()} | dict(more or {})
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the session of ONNX Runtime, which cannot be copied."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_predictor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_graph" in state:
            self._open()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing_values == "interpolate" or self.length_policy in ("pad", "resample")
        return tags


def train(
    channels: Mapping[str, tuple[NDArray[np.float64], list[str]]], settings: Hyperparameters
) -> tuple[artifact.Metadata, bytes, bytes]:
    """Train on series and labels in memory; return the parts of the model as `artifact.save` takes them.

    Raises:
        UserError: the data cannot be learned.
        KeyboardInterrupt: Ctrl-C before there was anything to keep.
        ModuleNotFoundError: a package of the extra `train` is missing.
    """
    wait_passively()
    try:
        import torch

        from lstm_fcn.training import job
        from lstm_fcn.training.data.loading import Arrays, load
        from lstm_fcn.training.devices import choose_placement
        from lstm_fcn.training.distributed import Group
        from lstm_fcn.training.stop import StopBeforeTraining, StopSignal
    except ModuleNotFoundError as error:
        message = f"Training needs the package {error.name}, which is not installed: pip install 'lstm-fcn[train]'."
        raise ModuleNotFoundError(message, name=error.name) from error
    stop, group = StopSignal(), Group()
    with contextlib.ExitStack() as kept:  # of the caller: random numbers, threads and the handler of Ctrl-C
        kept.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        kept.callback(torch.set_num_threads, torch.get_num_threads())
        kept.enter_context(_stopped_by_ctrl_c(stop))
        try:
            placement = choose_placement(settings.precision, group, settings.device)
            data = load({name: Arrays(name, *part) for name, part in channels.items()}, settings, group)
            trained, _ = job.train(data, settings, placement, group, stop)
        except StopBeforeTraining:
            raise KeyboardInterrupt from None
        parts = job.make_artifact(data, trained)
    if trained.stopped:
        warnings.warn(f"Training was interrupted; the model has the weights of {trained.best.place}.", stacklevel=3)
    return parts


@contextlib.contextmanager
def _stopped_by_ctrl_c(stop: "StopSignal") -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # which alone can handle signals
        yield
        return
    previous = signal.signal(signal.SIGINT, stop.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _log(rounds: int) -> Iterator[None]:
    """Show the log of the training, with a bar on a terminal and in a notebook."""
    from tqdm.auto import tqdm

    in_notebook = tqdm.__module__ == "tqdm.notebook"
    bar = EpochBar(rounds, tqdm, disable=False if in_notebook else None)
    with bar, training_log(LineHandler(bar.show)):
        yield
