"""Decode requests: CSV, JSON, JSON Lines and NPY (S20, S21)."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_blocks import BYTE_ORDER_MARK
from lstm_fcn.container.csv_reader import describe_length, read_series
from lstm_fcn.container.errors import UserError, shorten
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, NPY

SOURCE = "request"  # in messages
LAYOUTS = '{series}, {{"features": [...]}} or {{"data": {{"features": {{"values": [...]}}}}}}'


def decode(body: bytes, media_type: str, metadata: Metadata) -> NDArray[np.float64]:
    """The complete series of a request, float64 `[N, M, length]`; N is 0 if it holds only white space.

    Except under a CSV header, values are in the order of the training data.

    Raises:
        UserError: names the first invalid series, the position in it, and what is expected.
    """
    return DECODERS[media_type](body, metadata)


def _decode_csv(body: bytes, metadata: Metadata) -> NDArray[np.float64]:
    problem = metadata.problem
    return read_series(body, SOURCE, problem.length, problem.columns, problem.preprocessing, problem.num_variables)


def _decode_json(body: bytes, metadata: Metadata) -> NDArray[np.float64]:
    """`{"instances": [series, ...]}`, or a single series."""
    if not body.strip():
        return _stack([], metadata)
    document = parse_json(body, SOURCE)
    instances = document["instances"] if isinstance(document, dict) and "instances" in document else [document]
    if not isinstance(instances, list):
        raise UserError(f'{SOURCE}: "instances" must be a list of series, each {_layouts(metadata)}.')
    places = [f"{SOURCE}, instance {number}" for number in range(1, len(instances) + 1)]
    series = [_numbers(item, place, metadata) for item, place in zip(instances, places, strict=True)]
    return _stack([_complete(row, place, metadata) for row, place in zip(series, places, strict=True)], metadata)


def _decode_json_lines(body: bytes, metadata: Metadata) -> NDArray[np.float64]:
    series = []
    for number, line in enumerate(body.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        if line.strip():
            place = f"{SOURCE}, line {number}"
            series.append(_complete(_numbers(parse_json(line, place), place, metadata), place, metadata))
    return _stack(series, metadata)


def _decode_npy(body: bytes, metadata: Metadata) -> NDArray[np.float64]:
    """An array `[N, M, L]` of numbers, or `[N, L]` for one variable; pickled objects are refused."""
    if not body:
        return _stack([], metadata)
    return complete_series(_read_npy(body), SOURCE, metadata)


def complete_series(array: NDArray[Any], place: str, metadata: Metadata) -> NDArray[np.float64]:
    """The complete series of an array `[N, M, L]`, or `[N, L]` for one variable. Raises `UserError` as `decode`."""
    variables = metadata.problem.num_variables
    if array.ndim == 2 and variables == 1:
        array = array[:, np.newaxis, :]
    if array.ndim != 3 or array.shape[1] != variables:
        wanted = "[series, values]" if variables == 1 else f"[series, {variables} variables, values]"
        raise UserError(f"{place}: the array has shape {array.shape}; it must be {wanted}.")
    rows = enumerate(array.astype(np.float64), 1)
    return _stack([_complete(row, f"{place}, series {number}", metadata) for number, row in rows], metadata)


DECODERS: dict[str, Callable[[bytes, Metadata], NDArray[np.float64]]] = {
    CSV: _decode_csv,
    JSON: _decode_json,
    JSON_LINES: _decode_json_lines,
    NPY: _decode_npy,
}


def parse_json(text: bytes, place: str) -> Any:
    """The content of a JSON document, which `place` names in messages. Raises `UserError` if it is invalid."""
    try:
        # A new parser for each text: its results are valid only as long as it is.
        return simdjson.Parser().parse(text.removeprefix(BYTE_ORDER_MARK).strip(), recursive=True)
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition(": ")[2].partition(".")[0]  # the first sentence, without the name of the error
        raise UserError(
            f"{place} is not valid JSON: {reason or error} (write null, not NaN, for a missing value)."
        ) from error


def _layouts(metadata: Metadata) -> str:
    lists = (
        "a list of numbers"
        if metadata.problem.num_variables == 1
        else f"{metadata.problem.num_variables} lists of numbers"
    )
    return LAYOUTS.format(series=lists)


def _numbers(item: Any, place: str, metadata: Metadata) -> NDArray[np.float64]:
    """One series in any of the layouts, float64 `[M, L]`; NaN for null."""
    values = item
    if isinstance(values, dict) and "data" in values:
        values = values["data"]
    if isinstance(values, dict):
        values = values.get("features")
    if isinstance(values, dict):
        values = values.get("values")
    if not isinstance(values, list):
        raise UserError(f"{place} must be {_layouts(metadata)}.")
    if metadata.problem.num_variables == 1:
        return list_of_numbers(values, place)[np.newaxis]
    if len(values) != metadata.problem.num_variables or not all(isinstance(variable, list) for variable in values):
        raise UserError(f"{place} is {shorten(values)}; it must be {_layouts(metadata)}, one list for each variable.")
    rows = [list_of_numbers(variable, f"{place}, variable {number}") for number, variable in enumerate(values, 1)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{place}, variable {number} has {len(row)} values, but variable 1 has {len(rows[0])}; use null where "
                "a value is missing."
            )
    return np.stack(rows)


def list_of_numbers(values: list[Any], place: str) -> NDArray[np.float64]:
    """Values of a JSON list, NaN for null. Raises `UserError` for anything that is not a number."""
    if not set(map(type, values)) <= {int, float, type(None)}:
        bad = next(k for k, value in enumerate(values) if type(value) not in (int, float, type(None)))
        raise UserError(f"{place}, value {bad + 1} is {shorten(values[bad])}; every value must be a finite number.")
    return np.array(values, dtype=np.float64)


def _read_npy(body: bytes) -> NDArray[Any]:
    """The array of an NPY file, without a copy. numpy's own reader would allocate whatever size the header claims."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, by_columns, dtype = read_header(stream)
    except Exception as error:  # many kinds: the header is a Python literal
        raise UserError(f"{SOURCE} is not an array in NPY format (version 1 or 2).") from error
    if dtype.kind not in "fiu":
        raise UserError(f"{SOURCE}: the array has dtype {dtype}; it must hold numbers.")
    expected, found = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if expected != found or min(shape, default=0) < 0:
        raise UserError(f"{SOURCE}: the array needs {expected} bytes of values, but has {found}.")
    values = np.frombuffer(body, dtype=dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if by_columns else "C")


def _complete(values: NDArray[np.float64], place: str, metadata: Metadata) -> NDArray[np.float64]:
    """Complete a series, float64 `[M, L]` with NaN for missing values, to `[M, length]`."""
    rules, length, found = metadata.problem.preprocessing, metadata.problem.length, values.shape[1]
    fits = 0 < found <= length if rules.length_policy == "pad" else found == length
    if not (fits or (rules.length_policy == "resample" and found)):
        has = "1 value" if found == 1 else f"{found} values"
        each = " of each variable" if metadata.problem.num_variables > 1 else ""
        taken = describe_length(length, metadata.problem.num_variables, rules)
        raise UserError(f"{place} has {has}{each}, but the model takes {taken}.")
    if not np.isfinite(values).all():
        _check_missing(values, place, metadata)
    complete: NDArray[np.float64] = rules.apply(values[np.newaxis], length)[0]
    return complete


def _check_missing(values: NDArray[np.float64], place: str, metadata: Metadata) -> None:
    def at(variable: int, step: int) -> str:
        of = f", variable {variable + 1}" if metadata.problem.num_variables > 1 else ""
        return f"{place}{of}, value {step + 1}"

    rules = metadata.problem.preprocessing
    for variable, step in np.argwhere(np.isinf(values))[:1]:
        raise UserError(f"{at(variable, step)} is {values[variable, step]}; every value must be a finite number.")
    if not rules.reads_missing:
        variable, step = np.argwhere(np.isnan(values))[0]
        raise UserError(f"{at(variable, step)} is missing; every value must be a number.")
    fault = rules.find_fault(values[np.newaxis])
    if fault is not None:
        where = place if fault.step is None else at(fault.variable, fault.step)
        raise UserError(f"{where} {fault.problem}.")


def _stack(series: Sequence[NDArray[np.float64]], metadata: Metadata) -> NDArray[np.float64]:
    return np.stack(series) if series else np.empty((0, metadata.problem.num_variables, metadata.problem.length))
