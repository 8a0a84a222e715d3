"""Time series classification with LSTM-FCN: training, serving and the command `lstm-fcn`."""

__version__ = "0.2.0"
