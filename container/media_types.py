"""What requests and responses can hold: media types, outputs and precisions of the serving image."""

from typing import Literal

CSV, JSON, JSON_LINES, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
REQUEST_TYPES = (CSV, JSON, JSON_LINES, NPY)
RESPONSE_TYPES = (CSV, JSON, JSON_LINES)

OUTPUTS = ("predicted_label", "probability", "probabilities", "explanation")

Precision = Literal["float32", "bfloat16"]  # of predictions


def parse_outputs(text: str) -> tuple[str, ...]:
    """Names of outputs, separated by commas. Raises `ValueError` with the reason."""
    names = tuple(name.strip().lower() for name in text.split(","))
    for name in names:
        if name not in OUTPUTS:
            raise ValueError(f"{name!r} is not an output; supported: {', '.join(OUTPUTS)}")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is listed twice")
    return names
