"""Series and labels as people have them in Python, in the form of a training job's rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d

from lstm_fcn.container.errors import UserError, plural, shorten
from lstm_fcn.container.preprocess import Preprocessing

# Beside arrays: frames of pandas and polars with a series in each row, and sequences of arrays of different length.
Series = ArrayLike | Sequence[ArrayLike]


def read_series(X: Series, rules: Preprocessing, least: int = 1) -> NDArray[np.float64]:  # noqa: N803
    """Series as float64 `[N, M, W]`, with NaN for missing values and beyond the end of a shorter series.

    Args:
        X: `[N, T]` or, with several variables, `[N, M, T]`; a frame; or N arrays `[T]` or `[M, T]` of different length.
        rules: whether values may be missing, and series may differ in length.
        least: number of series, and of values in a series.

    Raises:
        UserError: names the first series that breaks the rules.
        ValueError: X is not a table of numbers, or too small.
    """
    if isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype == object):
        X = _join(X, rules)  # noqa: N806
    if isinstance(X, np.ndarray) and X.ndim > 3:
        raise UserError(f"X has {X.ndim} dimensions; series are [N, T] or, with several variables, [N, M, T].")
    try:
        array: NDArray[np.float64] = check_array(
            X,
            dtype=np.float64,
            allow_nd=True,
            ensure_all_finite=False,
            ensure_min_samples=least,
            ensure_min_features=least,
            input_name="X",
        )
    except ValueError:
        _refuse_text(X)
        raise
    if len(infinite := np.argwhere(np.isinf(array))):
        raise UserError(f"X{_place(infinite[0])} is infinite (inf); values must be finite.")
    if not rules.reads_missing and len(missing := np.argwhere(np.isnan(array))):
        raise UserError(
            f"X{_place(missing[0])} is missing (NaN). Set missing_values='interpolate' to fill missing values, or "
            "length_policy='pad' or 'resample' if NaN marks the end of shorter series."
        )
    series = array[:, np.newaxis] if array.ndim == 2 else array
    if fault := rules.find_fault(series):
        place = [fault.row, fault.variable, fault.step] if array.ndim == 3 else [fault.row, fault.step]
        raise UserError(f"X{_place([each for each in place if each is not None])} {fault.problem}.")
    return series


def _join(X: Sequence[ArrayLike] | NDArray[Any], rules: Preprocessing) -> Any:  # noqa: N803
    """Series of different length as one array `[N, M, W]` with NaN after their ends; anything else unchanged."""
    try:
        arrays = [np.asarray(one, dtype=np.float64) for one in X]
    except (TypeError, ValueError):
        return X
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    if not arrays or {array.ndim for array in arrays} - {1, 2}:
        return X
    arrays = [np.atleast_2d(array) for array in arrays]
    (variables, width), widest = arrays[0].shape, max(array.shape[1] for array in arrays)
    joined = np.full((len(arrays), variables, widest), np.nan)
    for k, array in enumerate(arrays):
        if len(array) != variables:
            raise UserError(f"X[{k}] has {plural(len(array), 'variable')}, but X[0] has {variables}.")
        if array.shape[1] != width and not rules.any_length:
            raise UserError(
                f"X[{k}] has {plural(array.shape[1], 'value')}, but X[0] has {width}; set length_policy='pad' or "
                "'resample' to allow different lengths."
            )
        joined[k, :, : array.shape[1]] = array
    return joined


def _refuse_text(X: Any) -> None:  # noqa: N803
    """Raise `UserError` for the first text in X that is not a number."""
    table = np.asarray(X)
    if table.dtype.kind not in "OSU":
        return
    for place, value in np.ndenumerate(table):
        try:
            float(value)
        except ValueError:
            raise UserError(f"X{_place(place)} is not a number ({shorten(str(value))}).") from None
        except TypeError:
            return  # scikit-learn says what it is


def check_length(series: NDArray[np.float64], rules: Preprocessing, length: int) -> None:
    """Raise `UserError` if a model for series of this length does not take series `[N, M, W]`."""
    width = series.shape[2]
    if rules.length_policy == "error" and width != length:
        raise UserError(f"X has series of {plural(width, 'value')}, but the model takes series of {length}.")
    if rules.length_policy == "pad" and rules.lengths(series).max(initial=0) > length:
        raise UserError(f"X has series of {plural(width, 'value')}, but the model takes series of up to {length}.")


def read_labels(y: ArrayLike, count: int) -> tuple[NDArray[Any], list[str]]:
    """The classes in sorted order, and the labels of `count` series as a file would hold them.

    Raises:
        UserError: a label is missing, or two labels are the same text.
        ValueError: y is no vector of labels, or has another length.
    """
    if y is None:
        raise ValueError("LSTMFCNClassifier requires y to be passed, but the target y is None.")
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    if len(labels) != count:
        raise ValueError(f"X has {count} series, but y has {plural(len(labels), 'label')}.")
    classes, codes = np.unique(labels, return_inverse=True)
    texts = [label_text(label) for label in classes.tolist()]
    if len(set(texts)) < len(texts):
        raise UserError(f"y has labels that are the same text: {', '.join(map(repr, classes.tolist()))}.")
    return classes, [texts[code] for code in codes.tolist()]


def label_text(label: object) -> str:
    """A label as a file would hold it. Raises `UserError` if it is missing."""
    text = str(label)
    if label is None or not text.strip() or label != label:
        raise UserError(f"y has a missing label ({label!r}).")
    return text


def _place(index: Sequence[int] | NDArray[np.int64]) -> str:
    return f"[{', '.join(str(int(each)) for each in index)}]"
