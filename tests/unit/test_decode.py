import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, NPY, REQUEST_TYPES
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.serving.decode import decode

ROWS = [[1.0, 2.5, -3e-5], [4.0, 0.0, 1e300]]


def model(columns: list[str] | None = None, variables: int = 1, **preprocessing: str) -> Metadata:
    problem = Problem(
        task="binary",
        classes=("a", "b"),
        columns=Columns((), tuple(columns), variables) if columns else HEADERLESS,
        num_variables=variables,
        preprocessing=Preprocessing.model_validate(preprocessing),
        length=3,
        scaling=Scaling(method="none"),
    )
    return Metadata(problem=problem, hyperparameters={}, metrics={}, versions={})


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
def test_every_format_gives_the_same(media_type: str, body: bytes) -> None:
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
        (b'{"instances": [', "request is not valid JSON: "),
        (b"\xff", "request is not valid JSON: "),
        (b'{"instances": [[1, 2, NaN]]}', "request is not valid JSON: "),
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
        (b"[1, 2, 1e999]", "request is not valid JSON: "),
        (b"[" * 5000, "request is not valid JSON: "),
    ],
)
def test_wrong_json(body: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(body, JSON, STRICT)
    assert message in str(caught.value)


def test_lines_are_counted_as_an_editor_does() -> None:
    with pytest.raises(UserError, match=r"request, line 3 has 1 value,"):
        decode(b"[1,2,3]\n\n[1]\n", JSON_LINES, STRICT)
    with pytest.raises(UserError, match=r"request, line 2 is not valid JSON"):
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
        with pytest.raises(UserError, match=r"dtype object; it must hold numbers|is not an array in NPY format"):
            decode(data, NPY, STRICT)
    assert not Bomb.exploded


HEADER = npy(np.zeros((2, 3)))[:128]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"1,2,3", "request is not an array in NPY format"),
        (npy(ROWS)[:50], "request is not an array in NPY format"),
        (npy(ROWS)[:-1], "the array needs 48 bytes of values, but has 47."),
        (npy(ROWS) + b"x", "the array needs 48 bytes of values, but has 49."),
        (HEADER.replace(b"(2, 3), }  ", b"(2, 99**99)"), "request is not an array in NPY format"),
        (HEADER.replace(b"(2, 3), }       ", b"(2, 9999999999)}"), "needs 159999999984 bytes of values, but has 0."),
        (HEADER.replace(b"(2, 3)", b"(-2,-3)")[:128] + bytes(47), "request"),
        (npy([1.0, 2.0, 3.0]), "the array has shape (3,); it must be [series, values]."),
        (npy(np.zeros((2, 2, 3))), "the array has shape (2, 2, 3)"),
        (npy([["a"]]), "the array has dtype <U1; it must hold numbers."),
        (npy([[1j, 2, 3]]), "the array has dtype complex128"),
        (npy([[True, False, True]]), "the array has dtype bool"),
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


TWO = model(variables=2)
PAIRS = np.array([[[1, 2.5, -3e-5], [4, 0, 1e300]], [[7, 8, 9], [-1, -2, -3]]])


class TestVariables:
    """Series of several variables."""

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            (CSV, b"1,2.5,-3e-5,4,0,1e300\n7,8,9,-1,-2,-3"),
            (JSON, json.dumps({"instances": PAIRS.tolist()}).encode()),
            (JSON, json.dumps({"instances": [{"features": pair} for pair in PAIRS.tolist()]}).encode()),
            (JSON, json.dumps({"instances": [{"data": {"features": {"values": p}}} for p in PAIRS.tolist()]}).encode()),
            (JSON_LINES, "\n".join(map(json.dumps, PAIRS.tolist())).encode()),
            (JSON_LINES, "\n".join(json.dumps({"features": pair}) for pair in PAIRS.tolist()).encode()),
            (NPY, npy(PAIRS)),
            (NPY, npy(np.asfortranarray(PAIRS))),
        ],
    )
    def test_every_format_gives_the_same(self, media_type: str, body: bytes) -> None:
        found = decode(body, media_type, TWO)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, PAIRS)

    @pytest.mark.parametrize("body", [b"[[1, 2, 3], [4, 5, 6]]", b'{"features": [[1, 2, 3], [4, 5, 6]]}'])
    def test_one_series_alone(self, body: bytes) -> None:
        np.testing.assert_array_equal(decode(body, JSON, TWO), [[[1, 2, 3], [4, 5, 6]]])

    @pytest.mark.parametrize("media_type", REQUEST_TYPES)
    def test_nothing_to_predict(self, media_type: str) -> None:
        assert decode(b"", media_type, TWO).shape == (0, 2, 3)

    def test_a_header_puts_columns_in_order(self) -> None:
        metadata = model(["x_a_1", "x_a_2", "x_a_3", "x_b_1", "x_b_2", "x_b_3"], variables=2)
        found = decode(b"x_b_1,x_a_1,x_b_2,x_a_2,x_b_3,x_a_3\n4,1,5,2,6,3", CSV, metadata)
        np.testing.assert_array_equal(found, [[[1, 2, 3], [4, 5, 6]]])
        np.testing.assert_array_equal(decode(b"[[1, 2, 3], [4, 5, 6]]", JSON, metadata), found)
        with pytest.raises(UserError, match=r"request, row 1 must be the header \(x_a_1,x_a_2,x_a_3,\.\.\.\)"):
            decode(b"1,2,3,4,5,6", CSV, metadata)
        with pytest.raises(UserError, match="request, row 1 lacks column 'x_a_2'; its header must name x_a_1"):
            decode(b"x_b_1,x_a_1\n4,1", CSV, metadata)

    def test_columns_of_an_older_model_are_one_variable_whatever_their_names(self) -> None:
        metadata = model(["x_b_1", "x_a_2", "x_a_1"])
        np.testing.assert_array_equal(decode(b"x_a_1,x_a_2,x_b_1\n1,2,3", CSV, metadata), [[[3, 2, 1]]])

    def test_missing_values_are_filled_as_in_csv(self) -> None:
        metadata = model(variables=2, missing_values="interpolate")
        array = [[[1, np.nan, 3], [np.nan, 5, 6]]]
        bodies = ((CSV, b"1,,3,,5,6"), (JSON, b"[[1, null, 3], [null, 5, 6]]"), (NPY, npy(array)))
        for media_type, body in bodies:
            np.testing.assert_array_equal(decode(body, media_type, metadata), [[[1, 2, 3], [5, 5, 6]]])

    @pytest.mark.parametrize(
        ("policy", "expected"), [("pad", [[1, 4, 4], [8, 6, 6]]), ("resample", [[1, 2.5, 4], [8, 7, 6]])]
    )
    def test_other_lengths_are_treated_as_in_csv(self, policy: str, expected: list[list[float]]) -> None:
        metadata = model(variables=2, length_policy=policy)
        bodies = (
            (CSV, b"1,4,8,6"),
            (CSV, b"1,4,,8,6,"),
            (JSON, b"[[1, 4], [8, 6]]"),
            (JSON, b"[[1, 4, null], [8, 6, null]]"),
            (NPY, npy([[[1, 4], [8, 6]]])),
        )
        for media_type, body in bodies:
            np.testing.assert_array_equal(decode(body, media_type, metadata), [expected])

    @pytest.mark.parametrize(
        ("media_type", "body", "message"),
        [
            (
                JSON,
                b'{"instances": [[[1, 2, 3], [4, 5, 6]], [1, 2, 3]]}',
                'request, instance 2 is [1, 2, 3]; it must be 2 lists of numbers, {"features": [...]} or {"data": '
                '{"features": {"values": [...]}}}, one list for each variable.',
            ),
            (JSON, b"[[1, 2, 3]]", "request, instance 1 is [[1, 2, 3]]; it must be 2 lists of numbers"),
            (JSON, b"[[1, 2, 3], 4]", "request, instance 1 is [[1, 2, 3], 4]; it must be 2 lists of numbers"),
            (JSON, b"[]", "request, instance 1 is []; it must be 2 lists of numbers"),
            (JSON, b'{"instances": 3}', '"instances" must be a list of series, each 2 lists of numbers, {"features": '),
            (JSON, b'"x"', "request, instance 1 must be 2 lists of numbers, "),
            (
                JSON,
                b"[[1, 2, 3], [4, 5]]",
                "instance 1, variable 2 has 2 values, but variable 1 has 3; use null where a value is missing.",
            ),
            (
                JSON,
                b"[[1, 2], [4, 5]]",
                "request, instance 1 has 2 values of each variable, but the model takes series of 2 variables with 3 "
                "values each.",
            ),
            (JSON, b"[[], []]", "request, instance 1 has 0 values of each variable"),
            (JSON, b"[[1], [2]]", "request, instance 1 has 1 value of each variable"),
            (JSON, b'[[1, 2, 3], [4, "5", 6]]', "request, instance 1, variable 2, value 2 is '5'; every value must be"),
            (
                JSON,
                b"[[1, 2, 3], [4, 5, null]]",
                "request, instance 1, variable 2, value 3 is missing; every value must",
            ),
            (JSON_LINES, b"\n[[1, 2, 3], [4, 5, null]]", "request, line 2, variable 2, value 3 is missing"),
            (JSON_LINES, b"[1, 2, 3]", "request, line 1 is [1, 2, 3]; it must be 2 lists of numbers"),
            (
                NPY,
                npy(np.zeros((5, 3))),
                "request: the array has shape (5, 3); it must be [series, 2 variables, values].",
            ),
            (NPY, npy(np.zeros((5, 3, 2))), "has shape (5, 3, 2); it must be [series, 2 variables, values]."),
            (NPY, npy(np.zeros((5, 2, 4))), "request, series 1 has 4 values of each variable, but the model takes"),
            (
                NPY,
                npy(np.where(PAIRS == 9, np.inf, 0)),
                "request, series 2, variable 1, value 3 is inf; every value mu",
            ),
            (NPY, npy(np.where(PAIRS == -1, np.nan, 0)), "request, series 2, variable 2, value 1 is missing; every va"),
            (CSV, b"1,2,3,4,5\n", "request, row 1 has 5 values, but the model takes series of 2 variables with 3 val"),
            (CSV, b"1,2,3,4,5,6\n1,2,3,4,5,x\n", "request, row 2, column 6 is 'x'; every value must be a finite num"),
        ],
    )
    def test_what_is_wrong(self, media_type: str, body: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            decode(body, media_type, TWO)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("rules", "body", "message"),
        [
            (
                {"length_policy": "pad"},
                b"[[1, 2], [3, null]]",
                "request, instance 1, variable 2, value 2 is missing, with values beside it or after it; missing-valu",
            ),
            (
                {"length_policy": "pad"},
                b"[[1, 2, 3, 4], [1, 2, 3, 4]]",
                "has 4 values of each variable, but the model takes series of 2 variables with up to 3 values each.",
            ),
            (
                {"missing_values": "interpolate"},
                b"[[1, 2, 3], [null, null, null]]",
                "request, instance 1 has no values of variable 2, only missing ones.",
            ),
        ],
    )
    def test_series_that_cannot_be_completed(self, rules: dict[str, str], body: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            decode(body, JSON, model(None, 2, **rules))
        assert message in str(caught.value)

    @given(
        arrays.arrays(
            np.float64,
            st.tuples(st.integers(1, 3), st.integers(2, 3), st.integers(1, 4)),
            elements=st.floats(allow_infinity=False),
        ),
        st.sampled_from([{}, {"missing_values": "interpolate", "length_policy": "pad"}]),
    )
    def test_formats_agree_on_any_series_and_on_what_is_wrong_with_it(self, array: Any, rules: dict[str, str]) -> None:
        metadata = model(None, array.shape[1], **rules)
        nested = np.where(np.isnan(array), np.array(None), array).tolist()
        outcomes = []
        for media_type, body in ((NPY, npy(array)), (JSON, json.dumps({"instances": nested}).encode())):
            try:
                outcomes.append(str(decode(body, media_type, metadata).tolist()))
            except UserError as error:
                outcomes.append(str(error).replace("instance", "series"))
        assert outcomes[0] == outcomes[1]


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
    for metadata in (STRICT, TWO):
        try:
            found = decode(body, media_type, metadata)
        except UserError as error:
            assert len(str(error)) < 400  # noqa: PT017
        else:
            assert found.shape[1:] == (metadata.problem.num_variables, 3)
            assert np.isfinite(found).all()
