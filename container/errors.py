"""The two kinds of error: invalid input and internal errors; and how messages quote what was given."""


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


def plural(count: int, noun: str) -> str:
    """`1 value`, `2 values`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
