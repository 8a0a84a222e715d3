import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lstm_fcn.container.preprocess import STRICT, Fault, Preprocessing

NAN = np.nan
INTERPOLATE = Preprocessing(missing_values="interpolate")
PAD = Preprocessing(length_policy="pad")
RESAMPLE = Preprocessing(length_policy="resample")
PAD_AND_FILL = Preprocessing(missing_values="interpolate", length_policy="pad")
RESAMPLE_AND_FILL = Preprocessing(missing_values="interpolate", length_policy="resample")
ALL = [STRICT, INTERPOLATE, PAD, RESAMPLE, PAD_AND_FILL, RESAMPLE_AND_FILL]

values = st.floats(-1e6, 1e6)
series = st.lists(values, min_size=1, max_size=8)


def apply(rules: Preprocessing, row: list[float], length: int) -> list[float]:
    """One series of one variable, treated."""
    ((found,),) = rules.apply(np.array([[row]], dtype=np.float64), length).tolist()
    return list(found)


@pytest.mark.parametrize("rules", ALL)
def test_complete_series_stay_as_they_are(rules: Preprocessing) -> None:
    rows = np.array([[[1.5, -2, 3]], [[0, 0, 1e300]]])
    np.testing.assert_array_equal(rules.apply(rows, 3), rows)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1, NAN, 3], [1, 2, 3]),
        ([1, NAN, NAN, 7], [1, 3, 5, 7]),
        ([NAN, NAN, 4, 6], [4, 4, 4, 6]),
        ([4, 6, NAN, NAN], [4, 6, 6, 6]),
        ([NAN, 5, NAN], [5, 5, 5]),
    ],
)
def test_missing_values_lie_between_their_neighbours(row: list[float], expected: list[float]) -> None:
    assert apply(INTERPOLATE, row, len(row)) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [([1, 2], [1, 2, 2, 2]), ([1, 2, NAN], [1, 2, 2, 2]), ([7], [7, 7, 7, 7]), ([1, 2, 3, 4], [1, 2, 3, 4])],
)
def test_padding_repeats_the_last_value(row: list[float], expected: list[float]) -> None:
    assert apply(PAD, row, 4) == expected


@pytest.mark.parametrize(
    ("row", "length", "expected"),
    [
        ([1, 3], 3, [1, 2, 3]),
        ([1, 2, 3, 4, 5], 3, [1, 3, 5]),
        ([1, 3, NAN], 3, [1, 2, 3]),
        ([1, 2, 3, NAN], 3, [1, 2, 3]),
        ([7], 3, [7, 7, 7]),
        ([7, NAN, NAN, NAN], 2, [7, 7]),
    ],
)
def test_resampling_keeps_both_ends_and_is_linear_between(row: list[float], length: int, expected: list[float]) -> None:
    assert apply(RESAMPLE, row, length) == expected


def test_gaps_are_filled_in_the_time_of_the_series_before_it_is_resampled() -> None:
    assert apply(RESAMPLE_AND_FILL, [0, NAN, 4, NAN, NAN], 5) == [0, 1, 2, 3, 4]
    assert apply(RESAMPLE_AND_FILL, [NAN, 2, NAN, 6], 7) == [2, 2, 2, 3, 4, 5, 6]


def test_gaps_are_filled_and_short_series_padded() -> None:
    assert apply(PAD_AND_FILL, [NAN, 1, NAN, 3, NAN], 5) == [1, 1, 2, 3, 3]


@pytest.mark.parametrize("rules", [PAD, RESAMPLE, PAD_AND_FILL, RESAMPLE_AND_FILL])
def test_missing_values_at_the_end_are_no_part_of_the_series(rules: Preprocessing) -> None:
    rows = np.array([[1, 2, 3], [1, NAN, NAN], [1, NAN, 3], [NAN, 2, NAN]])[:, None]
    assert rules.lengths(rows).tolist() == [3, 1, 3, 2]


def test_where_all_have_one_length_missing_values_at_the_end_are_values() -> None:
    assert INTERPOLATE.lengths(np.array([[[1, 2, NAN]]])).tolist() == [3]


@pytest.mark.parametrize(
    ("rules", "any_length", "reads_missing"),
    [(STRICT, False, False), (INTERPOLATE, False, True), (PAD, True, True), (RESAMPLE_AND_FILL, True, True)],
)
def test_what_may_stand_in_a_file(rules: Preprocessing, any_length: bool, reads_missing: bool) -> None:
    assert (rules.any_length, rules.reads_missing) == (any_length, reads_missing)


@pytest.mark.parametrize("rules", ALL)
def test_no_rows(rules: Preprocessing) -> None:
    assert rules.apply(np.empty((0, 2, 3)), 3).shape == (0, 2, 3)


def test_what_is_given_is_not_changed() -> None:
    rows = np.array([[[1, NAN, 3]], [[1, 2, 3]]])
    before = rows.copy()
    INTERPOLATE.apply(rows, 3)
    np.testing.assert_array_equal(rows, before)


series_with_gaps = st.builds(lambda head, last: [*head, last], st.lists(values | st.just(NAN), max_size=7), values)


@given(
    st.lists(series_with_gaps, min_size=1, max_size=5),
    st.sampled_from([PAD_AND_FILL, RESAMPLE_AND_FILL]),
    st.integers(8, 12),
)
def test_rows_do_not_depend_on_those_beside_them(rows: list[list[float]], rules: Preprocessing, length: int) -> None:
    width = max(map(len, rows))
    together = rules.apply(np.array([[row + [NAN] * (width - len(row))] for row in rows]), length)[:, 0]
    alone = [apply(rules, row, length) for row in rows]
    np.testing.assert_array_equal(together, alone)
    assert np.isfinite(together).all()


@given(series, st.integers(1, 12), st.sampled_from([RESAMPLE, RESAMPLE_AND_FILL]))
def test_resampling_stays_within_the_values_and_keeps_the_ends(
    row: list[float], length: int, rules: Preprocessing
) -> None:
    found = apply(rules, row, length)
    assert len(found) == length
    assert min(row) - 1e-9 <= min(found)
    assert max(found) <= max(row) + 1e-9
    assert found[0] == row[0]
    if length > 1:
        assert found[-1] == row[-1]


@given(st.integers(2, 20), st.integers(2, 20))
def test_a_straight_line_stays_one_when_resampled(width: int, length: int) -> None:
    found: NDArray[np.float64] = RESAMPLE.apply(np.linspace(0, 1, width)[None, None], length)
    np.testing.assert_allclose(found[0, 0], np.linspace(0, 1, length), atol=1e-12)


class TestVariables:
    """Series of several variables, each treated by itself over one span of time."""

    @pytest.mark.parametrize(
        ("series", "length"),
        [
            ([[1, 2, 3], [4, 5, 6]], 3),
            ([[1, 2, NAN], [4, 5, NAN]], 2),
            ([[1, NAN, NAN], [4, 5, NAN]], 2),
            ([[NAN, NAN, 3], [4, NAN, NAN]], 3),
        ],
    )
    def test_a_series_ends_where_no_variable_has_a_value(self, series: list[list[float]], length: int) -> None:
        assert PAD.lengths(np.array([series])).tolist() == [length]
        assert INTERPOLATE.lengths(np.array([series])).tolist() == [3]

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            (PAD, [[1, 3, 3, 3, 3], [9, 5, 5, 5, 5]]),
            (RESAMPLE, [[1, 1.5, 2, 2.5, 3], [9, 8, 7, 6, 5]]),
            (RESAMPLE_AND_FILL, [[1, 1.5, 2, 2.5, 3], [9, 8, 7, 6, 5]]),
        ],
    )
    def test_shorter_series(self, rules: Preprocessing, expected: list[list[float]]) -> None:
        series = np.array([[[1, 3, NAN], [9, 5, NAN]]])
        np.testing.assert_array_equal(rules.apply(series, 5), [expected])
        np.testing.assert_array_equal(rules.apply(series[:, :, :2], 5), [expected])

    def test_a_variable_that_ends_before_the_others_lacks_values(self) -> None:
        series = np.array([[[0, 1, 2], [5, 7, NAN]]])
        np.testing.assert_array_equal(PAD_AND_FILL.apply(series, 4), [[[0, 1, 2, 2], [5, 7, 7, 7]]])
        np.testing.assert_array_equal(RESAMPLE_AND_FILL.apply(series, 5), [[[0, 0.5, 1, 1.5, 2], [5, 6, 7, 7, 7]]])

    def test_values_missing_in_one_variable_leave_the_others_as_they_are(self) -> None:
        series = np.array([[[1e300, 1 / 3, -0.1], [1, NAN, 2]], [[1, 2, 3], [4, 5, 6]]])
        expected = series.copy()
        expected[0, 1, 1] = 1.5
        np.testing.assert_array_equal(INTERPOLATE.apply(series, 3), expected)

    @pytest.mark.parametrize(
        ("rules", "series", "fault"),
        [
            (INTERPOLATE, [[1, NAN], [NAN, NAN]], Fault(1, 1, None, "has no values of variable 2, only missing ones")),
            (PAD, [[1, NAN], [NAN, NAN]], Fault(1, 1, None, "has no values of variable 2, only missing ones")),
            (
                PAD,
                [[1, 2], [3, NAN]],
                Fault(1, 1, 1, "is missing, with values beside it or after it; missing-values=interpolate fills it"),
            ),
            (
                RESAMPLE,
                [[NAN, 2], [3, NAN]],
                Fault(1, 0, 0, "is missing, with values beside it or after it; missing-values=interpolate fills it"),
            ),
            (PAD_AND_FILL, [[NAN, 2], [3, NAN]], None),
            (PAD, [[1, NAN], [3, NAN]], None),
        ],
    )
    def test_faults(self, rules: Preprocessing, series: list[list[float]], fault: Fault | None) -> None:
        assert rules.find_fault(np.array([[[1.0, 2], [3, 4]], series])) == fault

    def test_a_fault_of_a_single_variable_does_not_name_it(self) -> None:
        fault = INTERPOLATE.find_fault(np.array([[[NAN, NAN]]]))
        assert fault == Fault(0, 0, None, "has no values, only missing ones")
        fault = PAD.find_fault(np.array([[[NAN, 1]]]))
        assert fault == Fault(0, 0, 0, "is missing, with values after it; missing-values=interpolate fills it")

    @given(
        st.lists(st.lists(series_with_gaps, min_size=3, max_size=3), min_size=1, max_size=3),
        st.sampled_from([PAD_AND_FILL, RESAMPLE_AND_FILL]),
        st.integers(8, 12),
    )
    def test_series_without_gaps_at_their_end_are_treated_variable_by_variable(
        self, several: list[list[list[float]]], rules: Preprocessing, length: int
    ) -> None:
        for variables in several:
            span = max(map(len, variables))
            filled = [row + [row[-1]] * (span - len(row)) for row in variables]
            found = rules.apply(np.array([filled]), length)
            np.testing.assert_array_equal(found, [[apply(rules, row, length) for row in filled]])
