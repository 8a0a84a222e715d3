"""Cells of a CSV row: numbers in any usual notation, missing values, and what is wrong with a cell."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.errors import shorten
from lstm_fcn.container.preprocess import Preprocessing

# Words such as nan and inf are not numbers.
_NUMBER = re.compile(r"\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
# A missing value: a whole cell between commas.
_MISSING = re.compile(r"(?:(?<=,)|^)\s*(?:(?:nan|na|n/a|null|none)\s*)?(?=,|$)", re.IGNORECASE)


def are_names(cells: Sequence[str]) -> bool:
    """Whether none of the cells is a number or a missing value."""
    return len(cells) > 0 and not any(_NUMBER.fullmatch(cell) or _MISSING.fullmatch(cell) for cell in cells)


def parse_cells(lines: list[str], rules: Preprocessing, variables: int, fill: bool) -> NDArray[np.float64] | None:
    """Parse lines of unquoted values.

    Args:
        lines: values separated by commas.
        rules: whether values may be missing.
        variables: number of variables in each line, each with the same number of values.
        fill: append missing values to each variable of a shorter line.

    Returns:
        Float64 `[n, W]`, where W is the width of the widest line, with NaN for missing values. None if a cell is
        invalid; `find_bad_cell` then finds it.
    """
    cells = lines
    if rules.reads_missing:
        cells = [_MISSING.sub("nan", line) for line in lines]
        if fill:
            longest = max(line.count(",") + 1 for line in cells) // variables
            cells = [_fill_up(line, longest, variables) for line in cells]
    if not all(map(str.strip, cells)):  # loadtxt would skip a line that consists of one empty cell
        return None
    try:
        matrix = np.loadtxt(cells, delimiter=",", comments=None, ndmin=2, dtype=np.float64)
    except ValueError:
        return None
    valid = ~np.isinf(matrix) if rules.reads_missing else np.isfinite(matrix)
    return matrix if valid.all() else None


def _fill_up(line: str, longest: int, variables: int) -> str:
    missing = longest - (line.count(",") + 1) // variables
    if missing == 0:
        return line
    if variables == 1:
        return line + ",nan" * missing
    cells = line.split(",")
    length = len(cells) // variables
    return ",".join(",".join(cells[k : k + length]) + ",nan" * missing for k in range(0, len(cells), length))


def find_bad_cell(lines: list[str], rules: Preprocessing, advise: bool) -> tuple[int, int, str]:
    """The first cell that `parse_cells` refuses: index of the line, index of the cell, and the problem.

    `advise` adds how missing values can be allowed.
    """
    for row, line in enumerate(lines):
        for column, cell in enumerate(line.split(",")):
            missing = _MISSING.fullmatch(cell) is not None
            if missing and rules.reads_missing:
                continue
            advice = ". Set missing-values=interpolate to fill in missing values" if missing and advise else ""
            if not cell.strip():
                return row, column, f"is empty; every value must be a number{advice}"
            if not _NUMBER.fullmatch(cell):
                return row, column, not_a_number(cell) + advice
            if not np.isfinite(float(cell.strip())):  # float refuses some white space that the pattern accepts
                return row, column, f"is {shorten(cell)}, which is too large for a number"
    raise AssertionError("the parser refused lines in which every cell is a number")


def not_a_number(cell: str) -> str:
    return f"is {shorten(cell)}; every value must be a finite number"
