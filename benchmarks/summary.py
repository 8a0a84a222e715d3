"""Summaries of archives: CSV tables with the counts that each problem should have, such as `DataSummary.csv`."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lstm_fcn.benchmarks.archive import list_files
from lstm_fcn.container.errors import UserError

SUMMARY = "DataSummary.csv"  # the summary of the UCR archive
_LENGTH = re.compile(r"(?:([0-9]+)\s*-\s*)?([0-9]+)\s*(?:\(max.*\))?")


@dataclass(frozen=True)
class Declared:
    """The counts that a summary declares for a problem; None where it does not say. `source` names the summary."""

    source: str
    train: int
    test: int
    classes: int
    shortest: int | None
    length: int | None


def find_summary(archive: Path, summary: Path | None = None, password: str = "") -> dict[str, Declared] | None:
    """The declared counts by problem: from `summary`, or else from the archive's own summary, if it has one.

    Raises:
        UserError: the summary cannot be read.
    """
    if summary is not None:
        try:
            return read_summary(summary.read_bytes(), str(summary))
        except OSError as error:
            raise UserError(f"The summary {summary} cannot be read: {error.strerror}.") from error
    own = next((file for file in list_files(archive, password) if file.path == SUMMARY), None)
    return read_summary(own.read(), SUMMARY) if own else None


def read_summary(content: bytes, source: str) -> dict[str, Declared]:
    """Parse a summary: CSV with the columns name, train, test, class (or classes) and length, and possibly others.

    A length is `150`, `7-29`, `455(max; varies)` or `Vary`.

    Returns:
        The declared counts, by the name of the problem in lower case.

    Raises:
        UserError: names the missing column, or the row of an invalid value.
    """
    rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig", errors="replace")))
    columns = {name.strip().lower().replace("classes", "class"): name for name in rows.fieldnames or []}
    for name in ("name", "train", "test", "class", "length"):
        if name not in columns:
            raise UserError(f"{source} has no column {name}; a summary has name, train, test, class and length.")
    declared = {}
    try:
        for row in rows:
            cells = {name: (row[column] or "").strip() for name, column in columns.items()}
            declared[cells["name"].lower()] = _parse_row(cells, source)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{source}, row {rows.line_num}: {error}.") from error
    return declared


def _parse_row(cells: Mapping[str, str], source: str) -> Declared:
    """Raises `ValueError`."""
    for name in ("train", "test", "class"):
        if not cells[name].isdecimal():
            raise ValueError(f"{name} is {cells[name]!r}; it must be a whole number")
    train, test, classes = (int(cells[name]) for name in ("train", "test", "class"))
    if cells["length"].lower() in ("", "vary"):
        return Declared(source, train, test, classes, None, None)
    match = _LENGTH.fullmatch(cells["length"])
    if match is None:
        raise ValueError(f"the length is {cells['length']!r}; it must be like 150, 7-29, 455(max; varies) or Vary")
    shortest = int(match[1]) if match[1] else None
    return Declared(source, train, test, classes, shortest, int(match[2]))
