"""The header of a CSV file: which columns are targets, which are values, and of which variable."""

import re
from dataclasses import dataclass
from typing import NoReturn, Protocol

from lstm_fcn.container.errors import plural, shorten

# The column of a variable's value at a time step; no step has more digits.
_OF_VARIABLE = re.compile(r"[xX]_(.+)_([0-9]{1,18})")


@dataclass(frozen=True)
class Columns:
    """The columns that a header names, in order: targets start with `y`, values of the series with `x`.

    Names `x_<variable>_<step>` of several variables declare series of that many variables; the columns of the first
    variable come first, in the order of their steps. Without a header both are empty: rows hold a label, then values.
    """

    targets: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    variables: int = 1


HEADERLESS = Columns()


class Fail(Protocol):
    """Raises the `UserError` about the header's row, or about one of its columns, counted from 1."""

    def __call__(self, problem: str, column: int | None = None) -> NoReturn: ...


@dataclass(frozen=True)
class Header:
    """The header of one file.

    line: as in the file.
    targets, series: index in a row of each column, in the order of `columns`; no targets if rows have none.
    """

    line: str
    columns: Columns
    targets: list[int]
    series: list[int]

    @property
    def width(self) -> int:
        return len(self.targets) + len(self.series)


def read_header(
    line: str, cells: list[str], expected: Columns | None, labelled: bool, num_variables: int | None, fail: Fail
) -> Header:
    """Read a header.

    Args:
        line: the header as in the file.
        cells: its cells.
        expected: the columns that it must have, in any order; None: any.
        labelled: rows have targets.
        num_variables: variables that the columns must have; None: any.
        fail: called with the first problem.
    """
    _check_names(cells, labelled, fail)
    columns = expected or _order_by_variable(_split_names(cells), fail)
    wanted = dict.fromkeys([*(columns.targets if labelled else ()), *columns.series])
    found = dict.fromkeys(cells)
    if wanted.keys() != found.keys():
        surplus, lacking = [n for n in found if n not in wanted], [n for n in wanted if n not in found]
        problem = f"has column {shorten(surplus[0])}" if surplus else f"lacks column {shorten(lacking[0])}"
        fail(f"{problem}; its header must name {_list(list(wanted))}")
    if num_variables not in (None, columns.variables):
        advice = "name them x_<variable>_<step>" if columns.variables == 1 else "leave num-variables out"
        named = plural(columns.variables, "variable")
        fail(f"names columns of {named}, but num-variables is {num_variables}; {advice}")
    places = {name: place for place, name in enumerate(cells)}
    targets = [places[name] for name in columns.targets] if labelled else []
    return Header(line, columns, targets, [places[name] for name in columns.series])


def _check_names(cells: list[str], labelled: bool, fail: Fail) -> None:
    found: set[str] = set()
    for column, cell in enumerate(cells, 1):
        if not cell:
            fail("has no name; every column of a header needs a name that starts with x or y", column)
        if cell[0] not in "xXyY":
            rule = "column names must start with y (targets) or x (values); without such columns, remove the header"
            if any(name.startswith(("x", "X", "y", "Y")) for name in cells[1:]):
                fail(f"names {shorten(cell)}; {rule}", column)
            fail(f"looks like a header ({shorten(','.join(cells[1:] if labelled else cells))}); {rule}")
        if cell in found:
            fail(f"names {shorten(cell)} twice", column)
        found.add(cell)
    names = _split_names(cells)
    if labelled and not (names.targets and names.series):
        fail(f"is a header without columns of {'targets (y...)' if names.series else 'values (x...)'}")


def _split_names(cells: list[str]) -> Columns:
    return Columns(
        tuple(cell for cell in cells if cell.startswith(("y", "Y"))),
        tuple(cell for cell in cells if cell.startswith(("x", "X"))),
    )


def _order_by_variable(names: Columns, fail: Fail) -> Columns:
    """The columns sorted by variable, if their names declare several variables."""
    steps: dict[str, dict[int, str]] = {}
    for name in names.series:
        match = _OF_VARIABLE.fullmatch(name)
        if match is None:
            return names
        steps.setdefault(match[1], {})[int(match[2])] = name
    if len(steps) < 2:
        return names
    first, *others = steps
    for other in others:
        if steps[other].keys() != steps[first].keys():
            fail(f"names other time steps for variable {shorten(other)} than for {shorten(first)}")
    ordered = [columns[step] for columns in steps.values() for step in sorted(columns)]
    for name in sorted(set(names.series) - set(ordered))[:1]:
        fail(f"names {shorten(name)} twice, in two spellings")
    return Columns(names.targets, tuple(ordered), len(steps))


def _list(names: list[str], limit: int = 4) -> str:
    return ", ".join(names) if len(names) <= limit else f"{', '.join(names[: limit - 1])}, ... {names[-1]}"
