"""Time series classification with LSTM-FCN: training, serving and the command `lstm-fcn`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_fcn.classifier import LSTMFCNClassifier

__all__ = ["LSTMFCNClassifier", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import the estimator when it is first used: scikit-learn takes a second."""
    if name == "LSTMFCNClassifier":
        from lstm_fcn.classifier import LSTMFCNClassifier

        return LSTMFCNClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
