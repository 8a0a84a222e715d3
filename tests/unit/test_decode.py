import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from container.artifact import Metadata, Scaling
from container.errors import UserError
from container.preprocess import Preprocessing
from serving.decode import decode
from serving.negotiation import CSV, JSON, JSON_LINES, NPY, REQUEST_TYPES

ROWS = [[1.0, 2.5, -3e-5], [4.0, 0.0, 1e300]]


def model(columns: list[str] | None = None, **preprocessing: str) -> Metadata:
    return Metadata(
        classes=["a", "b"],
        columns=columns,
        preprocessing=Preprocessing.model_validate(preprocessing),
        length=3,
        scaling=Scaling(method="none"),
        hyperparameters={},
        metrics={},
        versions={},
    )


STRICT = model()


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (CSV, b"1,2.5,-3e-5\n4,0,1e300"),
        (JSON, json.dumps({"instances": [{"features": row} for row in ROWS]}).encode()),
        (JSON, json.dumps({"instances": [{"data": {"features": {"values": row}}} for row in ROWS]}).encode()),
        (JSON, json.dumps({"instances": ROWS, "parameters": {"a": "b"}}).encode()),
        (JSON, b"\xef\xbb\xbf" + json.dumps({"instances": ROWS}, indent=3).encode() + b"\n"),
        (JSON_LINES, "\n".join(json.dumps({"features": row}) for row in ROWS).encode()),
        (JSON_LINES, "\r\n\n".join(json.dumps({"data": {"features": {"values": row}}}) for row in ROWS).encode()),
        (JSON_LINES, b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode() + b"\n\n"),
        (NPY, npy(ROWS)),
        (NPY, npy(np.array(ROWS)[:, None, :], (2, 0))),
        (NPY, npy(np.asfortranarray(ROWS))),
        (NPY, npy(np.array(ROWS, dtype=">f8"))),
    ],
)
def test_every_format_says_the_same(media_type: str, body: bytes) -> None:
    found = decode(body, media_type, STRICT)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.array(ROWS)[:, None, :])


@pytest.mark.parametrize(
    "body", [b'{"data": {"features": {"values": [1, 2, 3]}}}', b'{"features": [1, 2, 3]}', b"[1, 2, 3]"]
)
def test_one_series_alone(body: bytes) -> None:
    np.testing.assert_array_equal(decode(body, JSON, STRICT), [[[1, 2, 3]]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64", "<i2"])
def test_other_numbers(dtype: str) -> None:
    np.testing.assert_array_equal(decode(npy(np.array([[1, 2, 3]], dtype)), NPY, STRICT), [[[1, 2, 3]]])


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        *((media_type, b"") for media_type in REQUEST_TYPES),
        (CSV, b"\n"),
        (JSON, b" \n"),
        (JSON_LINES, b"\r\n\n"),
        (JSON, b'{"instances": []}'),
        (NPY, npy(np.empty((0, 3)))),
    ],
)
def test_nothing_to_predict(media_type: str, body: bytes) -> None:
    assert decode(body, media_type, STRICT).shape == (0, 1, 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": [', "request is no valid JSON: "),
        (b"\xff", "request is no valid JSON: "),
        (b'{"instances": [[1, 2, NaN]]}', "request is no valid JSON: "),
        (b'{"instances": {"features": [1, 2, 3]}}', 'request: "instances" must be a list of series, each a list of'),
        (b'{"instances": null}', 'request: "instances" must be a list'),
        (b'{"predict": [1]}', 'request, instance 1 must be a list of numbers, {"features": [...]} or {"data": '),
        (b'"1,2,3"', "request, instance 1 must be a list of numbers"),
        (b'{"instances": [[1, 2, 3], 4]}', "request, instance 2 must be a list of numbers"),
        (b'{"instances": [[1, 2, 3], [1, 2]]}', "request, instance 2 has 2 values, but the model takes series of 3 v"),
        (b'{"instances": [[]]}', "request, instance 1 has 0 values"),
        (b'{"instances": [[1, "2", 3]]}', "instance 1, value 2 is '2'; every value must be a finite number."),
        (b'{"instances": [[1, true, 3]]}', "instance 1, value 2 is True; every value must be a finite number."),
        (b'{"instances": [[1, [2], 3]]}', "instance 1, value 2 is [2]; every value must be a finite number."),
        (b'{"instances": [[1, null, 3]]}', "instance 1, value 2 is missing; every value must be a number."),
        (b"[1, 2, 1e999]", "request is no valid JSON: "),
        (b"[" * 5000, "request is no valid JSON: "),
    ],
)
def test_wrong_json(body: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(body, JSON, STRICT)
    assert message in str(caught.value)


def test_lines_are_counted_as_an_editor_does() -> None:
    with pytest.raises(UserError, match=r"request, line 3 has 1 value,"):
        decode(b"[1,2,3]\n\n[1]\n", JSON_LINES, STRICT)
    with pytest.raises(UserError, match=r"request, line 2 is no valid JSON"):
        decode(b"[1,2,3]\n1,2,3\n", JSON_LINES, STRICT)


class Bomb:
    """Leaves a trace if it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "exploded", True)


def test_a_pickle_is_refused_and_not_run() -> None:
    body = io.BytesIO()
    np.save(body, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    for data in (body.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(UserError, match=r"type is object; it must hold numbers|is no array in NPY format"):
            decode(data, NPY, STRICT)
    assert not Bomb.exploded


HEADER = npy(np.zeros((2, 3)))[:128]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"1,2,3", "request is no array in NPY format"),
        (npy(ROWS)[:50], "request is no array in NPY format"),
        (npy(ROWS)[:-1], "the array's values take 48 bytes, but there are 47."),
        (npy(ROWS) + b"x", "the array's values take 48 bytes, but there are 49."),
        (HEADER.replace(b"(2, 3), }  ", b"(2, 99**99)"), "request is no array in NPY format"),
        (HEADER.replace(b"(2, 3), }       ", b"(2, 9999999999)}"), "values take 159999999984 bytes, but there are 0."),
        (HEADER.replace(b"(2, 3)", b"(-2,-3)")[:128] + bytes(47), "request"),
        (npy([1.0, 2.0, 3.0]), "the array has the shape (3,); it must be [series, values]."),
        (npy(np.zeros((2, 2, 3))), "the array has the shape (2, 2, 3)"),
        (npy([["a"]]), "the array's type is <U1; it must hold numbers."),
        (npy([[1j, 2, 3]]), "the array's type is complex128"),
        (npy([[True, False, True]]), "the array's type is bool"),
        (npy(np.zeros((2, 4))), "request, series 1 has 4 values, but the model takes series of 3 values."),
        (npy(np.zeros((2, 0))), "request, series 1 has 0 values"),
        (npy([[1, 2, 3], [1, np.nan, 2]]), "request, series 2, value 2 is missing; every value must be a number."),
        (npy([[1, np.inf, 2]]), "request, series 1, value 2 is inf; every value must be a finite number."),
    ],
)
def test_wrong_npy(body: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(body, NPY, STRICT)
    assert message in str(caught.value)


def test_missing_values_are_filled_as_in_csv() -> None:
    metadata = model(missing_values="interpolate")
    for media_type, body in ((CSV, b"1,,3"), (JSON, b"[1, null, 3]"), (NPY, npy([[1, np.nan, 3]]))):
        np.testing.assert_array_equal(decode(body, media_type, metadata), [[[1, 2, 3]]])
    with pytest.raises(UserError, match=r"request, instance 1 has no values, only missing ones\."):
        decode(b"[null, null, null]", JSON, metadata)


@pytest.mark.parametrize(("policy", "expected"), [("pad", [1, 4, 4]), ("resample", [1, 2.5, 4])])
def test_other_lengths_are_treated_as_in_csv(policy: str, expected: list[float]) -> None:
    metadata = model(length_policy=policy)
    for media_type, body in ((CSV, b"1,4"), (JSON, b"[1, 4]"), (JSON, b"[1, 4, null]"), (NPY, npy([[1, 4]]))):
        np.testing.assert_array_equal(decode(body, media_type, metadata), [[expected]])
    with pytest.raises(UserError, match=r"instance 1, value 1 is missing, with values after it; missing-values=inter"):
        decode(b"[null, 4]", JSON, metadata)
    if policy == "pad":
        with pytest.raises(UserError, match=r"has 4 values, but the model takes series of up to 3 values\."):
            decode(b"[1, 2, 3, 4]", JSON, metadata)


def test_a_header_is_for_csv_only() -> None:
    metadata = model(["x1", "x2", "x3"])
    np.testing.assert_array_equal(decode(b"x3,x1,x2\n3,1,2", CSV, metadata), [[[1, 2, 3]]])
    np.testing.assert_array_equal(decode(b"[1, 2, 3]", JSON, metadata), [[[1, 2, 3]]])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["instances", "features", "data", "values"]), inner)
    ),
)


@given(st.sampled_from(REQUEST_TYPES), st.binary())
def test_bytes_of_any_kind_are_series_or_a_user_error(media_type: str, body: bytes) -> None:
    assert_series_or_user_error(body, media_type)


@given(st.sampled_from([JSON, JSON_LINES]), json_values)
def test_json_of_any_kind_is_series_or_a_user_error(media_type: str, document: Any) -> None:
    assert_series_or_user_error(json.dumps(document).encode(), media_type)


@given(arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes()), st.integers(0, 200), st.binary())
def test_arrays_of_any_kind_are_series_or_a_user_error(array: Any, place: int, change: bytes) -> None:
    body = npy(array)
    assert_series_or_user_error(body, NPY)
    assert_series_or_user_error(body[:place] + change + body[place + len(change) :], NPY)


def assert_series_or_user_error(body: bytes, media_type: str) -> None:
    try:
        found = decode(body, media_type, STRICT)
    except UserError as error:
        assert len(str(error)) < 400  # noqa: PT017
    else:
        assert found.shape[1:] == (1, 3)
        assert np.isfinite(found).all()
