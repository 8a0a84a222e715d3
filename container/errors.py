"""The two kinds of error: invalid input and internal errors; and how messages quote what was given."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Invalid input that the user can correct: bad data, a bad setting, an unusable folder.

    The text says what is wrong, where (file, row, column) and how to fix it. It is written to the failure file and
    sent to HTTP clients unchanged (T56, T57, S21).
    """

    exit_code = 2
    http_status = 400


class AlgorithmError(Exception):
    """Internal error. Users are told that it happened; the traceback goes to the log only."""

    exit_code = 1
    http_status = 500


def shorten(value: object, limit: int = 40) -> str:
    """A value as messages quote it: its `repr`, cut after `limit` characters."""
    if isinstance(value, str):
        return repr(value if len(value) <= limit else value[:limit] + "...")
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def suggest(name: str, there: Iterable[str], most: int = 8) -> str:
    """What to write instead of a name that is not there: the nearest one, or some of those that are."""
    names = list(there)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {shorten(close[0])}?" if close else f"it has {', '.join(map(shorten, names[:most]))}."


def plural(count: int, noun: str) -> str:
    """`1 value`, `2 values`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
