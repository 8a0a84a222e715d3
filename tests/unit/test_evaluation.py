"""Confusion matrices and scores of each class, against scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, precision_recall_fscore_support

from lstm_fcn.training.output.evaluation import Evaluation


def evaluation(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Evaluation:
    names = [f"class {k}" for k in range(probabilities.shape[1])]
    return Evaluation("validation", len(truth), names, truth, probabilities)


def test_classes_that_exclude_each_other() -> None:
    rng = np.random.default_rng(0)
    truth, probabilities = rng.integers(0, 3, 50), rng.dirichlet(np.ones(5), 50)
    probabilities[:, 2] = 0.0  # never predicted; classes 3 and 4 have no rows
    found = evaluation(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(found.confusion(), confusion_matrix(truth, predicted, labels=range(5)))
    expected = precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=np.nan)
    np.testing.assert_allclose(found.scores(), np.stack(expected, axis=1))


@pytest.mark.parametrize("classes", [1, 4])
def test_independent_classes(classes: int) -> None:
    rng = np.random.default_rng(0)
    truth, probabilities = rng.integers(0, 2, (50, classes)), rng.random((50, classes))
    found = evaluation(truth, probabilities)
    predicted = (probabilities > 0.5).astype(int)
    if classes == 1:  # scikit-learn takes a single target as one column of two classes
        counts = multilabel_confusion_matrix(truth[:, 0], predicted[:, 0], labels=[1])
        expected = precision_recall_fscore_support(truth[:, 0], predicted[:, 0], labels=[1])
    else:
        counts = multilabel_confusion_matrix(truth, predicted)
        expected = precision_recall_fscore_support(truth, predicted)
    np.testing.assert_array_equal(found.confusion(), counts)
    np.testing.assert_allclose(found.scores(), np.stack(expected, axis=1))
