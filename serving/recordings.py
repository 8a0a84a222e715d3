"""Requests with whole recordings: a prediction for each window."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_blocks import BYTE_ORDER_MARK
from lstm_fcn.container.errors import UserError, shorten
from lstm_fcn.container.media_types import CSV, JSON
from lstm_fcn.container.moments import format_times
from lstm_fcn.container.recording import Preparation, Window, Windows
from lstm_fcn.container.recording_text import Rows, names_recording, parse_columns, parse_csv
from lstm_fcn.serving.decode import SOURCE, parse_json
from lstm_fcn.serving.encode import Places

MOST_WINDOWS = 100_000  # in a request
JSON_RECORDING = re.compile(rb'\s*\{\s*"recording"')


class Recordings(NamedTuple):
    """The windows of a request's recordings: the recording of each part, and its windows."""

    names: list[str]
    windows: list[Window]

    @property
    def series(self) -> list[NDArray[np.float64]]:
        """The windows of each part, float64 `[n, M, window]`."""
        return [window.series for window in self.windows]

    def places(self, metadata: Metadata) -> Places:
        """Recording, and times of the first and the last step, of each window."""
        preparation = preparation_of(metadata)
        found: list[tuple[str, ...]] = []
        for name, window in zip(self.names, self.windows, strict=True):
            starts, ends = (format_times(window.times[:, step], preparation) for step in (0, -1))
            found += [(name, start, end) for start, end in zip(starts, ends, strict=True)]
        return found


def preparation_of(metadata: Metadata) -> Preparation:
    """How a model prepares recordings. Raises `UserError` if it was trained with rows."""
    if metadata.problem.preparation is None:
        raise UserError("The model was trained with a series in each row, not with recordings (lstm-fcn prepare).")
    return metadata.problem.preparation


def decode_recordings(body: bytes, media_type: str, metadata: Metadata) -> Recordings | None:
    """The windows of the recordings in a request; None if it holds series.

    CSV holds recordings if its first line names columns of the training data; JSON, if it is
    `{"recording": {column: [...], ...}}`.

    Raises:
        UserError: a column is missing, or a cell is not what its column holds, or no window is full.
    """
    preparation = metadata.problem.preparation
    if preparation is None:
        return None
    if media_type == CSV and names_recording(_first_line(body), preparation):
        rows = parse_csv(_decode(body), preparation, SOURCE)
    elif media_type == JSON and JSON_RECORDING.match(body):
        rows = parse_columns(_columns(parse_json(body, SOURCE)["recording"]), preparation, SOURCE)
    else:
        return None
    found = cut(rows, preparation)
    if not found.windows:
        raise no_window(SOURCE, preparation)
    return found


def no_window(source: str, preparation: Preparation) -> UserError:
    """The error of a source whose recordings are all too short."""
    return UserError(
        f"{source}: no window is full; a window has {preparation.window} steps, and no recording has as many "
        "without a gap."
    )


def cut(recordings: Sequence[Rows], preparation: Preparation) -> Recordings:
    """The windows of complete recordings. Raises `UserError` if there are more than `MOST_WINDOWS`."""
    found, count = Recordings([], []), 0
    for rows in recordings:
        windows = Windows(preparation)
        for window in [*windows.add(rows.times, rows.values), *windows.finish()]:
            found.names.append(rows.recording)
            found.windows.append(window)
            count += len(window)
            if count > MOST_WINDOWS:
                raise UserError(f"{SOURCE} has more than {MOST_WINDOWS:,} windows; predict long recordings as files.")
    return found


def _first_line(body: bytes) -> str:
    return body.removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")[0].decode(errors="replace")


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{SOURCE} is not UTF-8 text.") from error


def _columns(document: Any) -> dict[str, list[Any]]:
    if not isinstance(document, dict) or not all(isinstance(column, list) for column in document.values()):
        raise UserError(f'{SOURCE}: "recording" is {shorten(document)}; it must be {{column: [value, ...], ...}}.')
    return document
