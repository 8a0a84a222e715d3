"""The two kinds of error: the user's, who can mend it, and ours."""


class UserError(Exception):
    """Something the user can mend: bad data, a bad setting, an unusable folder.

    The text says what is wrong, where (file, row, column) and what would be right. It goes to the
    failure file and to HTTP clients as it is (T56, T57, S21).
    """

    exit_code = 2
    http_status = 400


class AlgorithmError(Exception):
    """Our own fault. Users are told that it happened; the traceback goes to the log only."""

    exit_code = 1
    http_status = 500
