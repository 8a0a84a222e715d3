"""Encode predictions as CSV, JSON and JSON Lines (S20, S24, S25)."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, JSON

if TYPE_CHECKING:  # see gunicorn_conf
    from lstm_fcn.serving.predictor import Predictions


PLACE = ("recording", "start", "end")
Places = Sequence[tuple[str, ...]]  # of windows: recording, times of the first and the last step


@dataclass(frozen=True)
class ResponseFormat:
    """How predictions are written.

    outputs: some of `OUTPUTS`, in the order in which they are written; empty: the model's default.
    header: whether CSV starts with a line of names; None: as the training data of the model.
    """

    media_type: str
    outputs: tuple[str, ...] = ()
    header: bool | None = None

    @property
    def content_type(self) -> str:
        return f"{CSV}; charset=utf-8" if self.media_type == CSV else self.media_type


class Encoder:
    """Writes the predictions of one model, one row per series."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._problem = metadata.problem
        self._has_columns = metadata.problem.has_header
        self._csv_labels = [_csv_line([label]) for label in metadata.problem.classes]
        self._json_names = [json.dumps(label) for label in metadata.problem.classes]

    def encode(self, predictions: "Predictions", chosen: ResponseFormat, places: Places | None = None) -> str:
        """The complete text of a response, ending with a newline; `places` are of windows."""
        if places is not None and chosen.header is None:
            chosen = replace(chosen, header=True)
        rows, header = self.rows(predictions, chosen), self.header(chosen)
        if places is not None:
            rows = join_places(places, rows, chosen.media_type)
            header = [",".join([*PLACE, line]) for line in header]
        if chosen.media_type == JSON:
            return f'{{"predictions": [{", ".join(rows)}]}}\n'
        return "\n".join([*header, *rows, ""])

    def outputs(self, chosen: ResponseFormat) -> tuple[str, ...]:
        """The outputs to write: by default the label or, if the training data had a header, targets and probabilities.

        Raises:
            UserError: the model does not have one of the outputs.
        """
        default = ("predicted_label", "probabilities") if self._has_columns else ("predicted_label",)
        outputs = chosen.outputs or default
        if "explanation" in outputs and not self._metadata.explains:
            raise UserError("The model has no explanation, because its network has no convolutions.")
        return outputs

    def header(self, chosen: ResponseFormat) -> list[str]:
        """The line of names that CSV starts with, or nothing."""
        wanted = self._has_columns if chosen.header is None else chosen.header
        if chosen.media_type != CSV or not wanted:
            return []
        return [_csv_line([name for output in self.outputs(chosen) for name in self._names(output)])]

    def rows(self, predictions: "Predictions", chosen: ResponseFormat) -> list[str]:
        """A CSV line or a JSON object for each series, without a newline."""
        outputs = self.outputs(chosen)
        if chosen.media_type == CSV:
            columns = [self._csv_cells(output, predictions) for output in outputs]
            return columns[0] if len(columns) == 1 else [",".join(cells) for cells in zip(*columns, strict=True)]
        values = [self._json_values(output, predictions) for output in outputs]
        keys = [f'"{output}": ' for output in outputs]
        return [f"{{{', '.join(map(''.join, zip(keys, row, strict=True)))}}}" for row in zip(*values, strict=True)]

    def no_predictions(self) -> "Predictions":
        """The predictions of no series."""
        from lstm_fcn.serving.predictor import Predictions

        classes, length = len(self._problem.classes), self._problem.length
        return Predictions(np.empty((0, classes), np.float32), np.empty((0, length), np.float32))

    def columns(self, predictions: "Predictions", chosen: ResponseFormat) -> dict[str, NDArray[Any]]:
        """The columns of a table, named as in CSV: text, integers or float32 `[N]`; an explanation is `[N, length]`."""
        columns: dict[str, NDArray[Any]] = {}
        for output in self.outputs(chosen):
            if output == "explanation":
                columns[output] = predictions.explanation
            elif output == "probability":
                columns[output] = predictions.probabilities.max(axis=1)
            elif output == "predicted_label" and not self._has_columns:
                columns[output] = np.array(self._problem.classes, dtype=np.str_)[predictions.most_probable]
            else:
                values = predictions.probabilities if output == "probabilities" else self._targets(predictions)
                columns |= zip(self._names(output), values.T, strict=True)
        return columns

    def tensor(self, output: str, predictions: "Predictions") -> tuple[str, list[int], list[str]]:
        """An output as a tensor: its datatype and shape in the Open Inference Protocol, and its values as JSON, flat.

        Raises:
            UserError: the model does not have it.
        """
        self.outputs(ResponseFormat(JSON, (output,)))
        count = len(predictions.probabilities)
        if output == "predicted_label":
            if not self._has_columns:
                return "BYTES", [count], [self._json_names[k] for k in predictions.most_probable.tolist()]
            targets = self._targets(predictions)
            return "INT64", list(targets.shape), list(map(str, targets.ravel().tolist()))
        rows = _numbers(output, predictions)
        shape = [count] if output == "probability" else [count, len(rows[0]) if rows else 0]
        return "FP32", shape, [cell for row in rows for cell in row]

    def _names(self, output: str) -> Sequence[str]:
        """The column names of an output, derived from the columns of the training data if it had a header."""
        problem = self._problem
        classes, columns = problem.classes, problem.columns.series
        if output == "probability":
            return [output]
        if not problem.has_header:
            if output == "predicted_label":
                return [output]
            if output == "probabilities":
                return [f"probability_{label}" for label in classes]
            return [f"{output}_{step}" for step in range(1, problem.length + 1)]
        if output == "predicted_label":
            return classes
        if output == "probabilities":
            return [f"p{name[1:]}" for name in classes]
        if len(columns) == problem.length:
            return [f"e{name[1:]}" for name in columns]
        return [f"e_{step}" for step in range(1, problem.length + 1)]  # one for all variables

    def _csv_cells(self, output: str, predictions: "Predictions") -> list[str]:
        if output == "predicted_label":
            if self._has_columns:
                return [",".join(map(str, row)) for row in self._targets(predictions).tolist()]
            return [self._csv_labels[k] for k in predictions.most_probable.tolist()]
        return list(map(",".join, _numbers(output, predictions)))

    def _json_values(self, output: str, predictions: "Predictions") -> list[str]:
        if output == "predicted_label":
            if self._has_columns:
                return [self._json_object(map(str, row)) for row in self._targets(predictions).tolist()]
            return [self._json_names[k] for k in predictions.most_probable.tolist()]
        numbers = _numbers(output, predictions)
        if output == "probability":
            return [row[0] for row in numbers]
        if output == "probabilities":
            return [self._json_object(row) for row in numbers]
        return [f"[{', '.join(row)}]" for row in numbers]

    def _json_object(self, values: Iterable[str]) -> str:
        pairs = (f"{name}: {value}" for name, value in zip(self._json_names, values, strict=True))
        return f"{{{', '.join(pairs)}}}"

    def _targets(self, predictions: "Predictions") -> NDArray[np.int64]:
        """Target columns `[N, C]`: 1 for the most probable class, or for each above 0.5 if classes are independent."""
        probabilities = predictions.probabilities
        if self._problem.independent:
            return (probabilities > 0.5).astype(np.int64)
        return np.eye(probabilities.shape[1], dtype=np.int64)[predictions.most_probable]


def join_places(places: Places, rows: Sequence[str], media_type: str) -> list[str]:
    """CSV lines or JSON objects of windows, with their places."""
    if media_type == CSV:
        return [f"{_csv_line(place)},{row}" for place, row in zip(places, rows, strict=True)]
    named = (json.dumps(dict(zip(PLACE, place, strict=True))) for place in places)
    return [f"{place[:-1]}, {row[1:]}" for place, row in zip(named, rows, strict=True)]


def _numbers(output: str, predictions: "Predictions") -> list[list[str]]:
    """The numbers of each series, all finite, as both CSV and JSON write them."""
    values = {
        "probability": predictions.probabilities.max(axis=1, keepdims=True),
        "probabilities": predictions.probabilities,
        "explanation": predictions.explanation,
    }[output]
    return [[f"{value:.7g}" for value in row] for row in values.tolist()]


def _csv_line(cells: Sequence[str]) -> str:
    """A line of cells, quoted where CSV requires it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
