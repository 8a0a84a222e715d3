"""Fuzz targets: functions of bytes that must not raise, whatever the bytes are.

Each takes its options from the first byte. `python -m tests.fuzz` searches for bytes that break one; the unit tests run
the corpus of earlier findings.
"""

import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from flask.testing import FlaskClient
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import Block, SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import REQUEST_TYPES
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import GOLDEN, save_plain_model

CORPUS = Path(__file__).parent / "corpus"

RULES = [
    Preprocessing.model_validate({"missing_values": missing, "length_policy": length})
    for missing in ("error", "interpolate")
    for length in ("error", "pad", "resample")
]
COLUMNS = (None, HEADERLESS, Columns(("y1", "y2"), ("x1", "x2", "x3")))
VARIABLES = (None, 3, 2)
METHODS = ("POST", "GET", "PUT", "HEAD")
PATHS = ("/invocations", "/ping", "/v2/models/model/infer", "/nothing")
STATUSES = {200, 204, 400, 404, 405, 406, 413, 415}


def fuzz_csv(data: bytes) -> None:
    """Any text is read or gets a `UserError`, with the same result in blocks of any size and line by line."""
    options, text = data[:1] or b"\0", data[1:]
    labelled, rules, columns = options[0] & 1, RULES[options[0] // 2 % 6], COLUMNS[options[0] // 12 % 3]
    variables = VARIABLES[options[0] // 36 % 3]
    if not labelled and columns is None:
        columns = HEADERLESS
    if columns not in (None, HEADERLESS) and variables == 3:
        columns = replace(columns, variables=3)

    def read(block_bytes: int | None, careful: bool) -> list[Block] | str:
        reader = SeriesReader(
            io.BytesIO(text),
            "f",
            labelled=bool(labelled),
            columns=columns,
            preprocessing=rules,
            length=None if labelled else 3,
            variables=variables,
            block_bytes=block_bytes,
        )
        if careful:
            reader.parse_plain_blocks = lambda texts: ((number, text, None) for number, text in texts)  # type: ignore[method-assign]
        try:
            return list(reader)
        except UserError as error:
            assert len(str(error)) < 500  # noqa: PT017
            return str(error)

    whole, slow = read(None, careful=False), read(None, careful=True)
    if isinstance(whole, str) or isinstance(slow, str):
        assert whole == slow, (whole, slow)
        return
    assert [list(block.rows) for block in whole] == [list(block.rows) for block in slow]
    for fast, careful in zip(whole, slow, strict=True):
        assert fast.labels == careful.labels
        np.testing.assert_array_equal(fast.series, careful.series)
        np.testing.assert_array_equal(fast.targets, careful.targets)
        assert rules.reads_missing or np.isfinite(fast.series).all()
    parts = read(7, careful=False)
    assert not isinstance(parts, str), parts
    assert rows_of(parts) == rows_of(whole)


def rows_of(blocks: list[Block]) -> list[tuple[int, list[list[float]]]]:
    """Rows and their values, without the padding of shorter rows."""

    def values(series: NDArray[np.float64]) -> list[list[float]]:
        known = np.flatnonzero(~np.isnan(series).all(axis=0))
        whole = series[:, : known[-1] + 1] if known.size else series[:, :0]
        found: list[list[float]] = np.where(np.isnan(whole), -0.5, whole).tolist()
        return found

    return [
        (number, values(series)) for block in blocks for number, series in zip(block.rows, block.series, strict=True)
    ]


def fuzz_decode(data: bytes) -> None:
    """A request in any format becomes complete series or gets a `UserError`."""
    options, body = data[:1] or b"\0", data[1:]
    metadata = predictor(options[0] & 1).metadata
    variables = (1, 2, 4, 16)[options[0] // 48 % 4]
    update = {"preprocessing": RULES[options[0] // 8 % 6], "num_variables": variables, "length": 16 // variables}
    metadata = metadata.model_copy(update={"problem": metadata.problem.model_copy(update=update)})
    try:
        series = decode(body, REQUEST_TYPES[options[0] // 2 % 4], metadata)
    except UserError as error:
        assert len(str(error)) < 500  # noqa: PT017
        return
    assert series.shape[1:] == (variables, metadata.problem.length)
    assert np.isfinite(series).all()


def fuzz_http(data: bytes) -> None:
    """Every request gets a status of the contract, never an internal error.

    The first byte chooses model, method and path; NUL ends `Content-Type`, another one ends `Accept`.
    """
    options, rest = data[:1] or b"\0", data[1:]
    content_type, _, rest = rest.partition(b"\0")
    accept, _, body = rest.partition(b"\0")
    headers = {"Content-Type": content_type.decode("latin-1"), "Accept": accept.decode("latin-1")}
    if any(character in value for value in headers.values() for character in "\r\n"):
        return  # a server never passes such headers on
    method, path = METHODS[options[0] // 2 % 4], PATHS[options[0] // 8 % 4]
    response = client(options[0] & 1).open(path, method=method, data=body, headers=headers)
    assert response.status_code in STATUSES, (response.status_code, response.text)
    if response.status_code >= 400:
        assert len(response.text) < 1000 + len(accept) + len(content_type)
        assert "Traceback" not in response.text


@cache
def predictor(number: int) -> Predictor:
    """A model of data without a header, or with one."""
    if number:
        return Predictor(*artifact.load(GOLDEN / "model"), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        return Predictor(*artifact.load(save_plain_model(Path(folder))), threads=1)


@cache
def client(number: int) -> FlaskClient:
    return create_app(OneModel(predictor(number)), Settings.from_environment({})).test_client()


TARGETS: dict[str, Callable[[bytes], None]] = {"csv": fuzz_csv, "decode": fuzz_decode, "http": fuzz_http}
