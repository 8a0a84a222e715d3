"""What the training image and the serving image agree on."""

__version__ = "0.1.0"
