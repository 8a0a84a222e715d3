"""The platform's checklist as a table: `python -m tests.checklist` runs each row's tests and says how it went.

A row is a test `test_row_NN_...`; its docstring says what the platform asks for.
"""

import inspect
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FILES = [
    FOLDER / "contract" / "test_checklist.py",
    FOLDER / "contract" / "test_serving_checklist.py",
    FOLDER / "images" / "test_checklist.py",
    FOLDER / "images" / "test_local_mode.py",
]
WORST = ["passed", "skipped", "failed"]  # of a row's tests, the worst counts


class Table:
    """A pytest plugin that notes how each row went."""

    def __init__(self) -> None:
        self.requirements: dict[int, str] = {}
        self.outcomes: dict[int, tuple[str, str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            row = row_of(item.nodeid)
            if row is not None and isinstance(item, pytest.Function):
                self.requirements[row] = (inspect.getdoc(item.function) or "").partition("\n")[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = row_of(report.nodeid)
        if row is None or (report.passed and report.when != "call"):
            return
        worst = self.outcomes.get(row, ("passed", ""))
        if WORST.index(report.outcome) >= WORST.index(worst[0]):
            self.outcomes[row] = report.outcome, reason(report)

    def text(self) -> str:
        lines = []
        for row, requirement in sorted(self.requirements.items()):
            outcome, why = self.outcomes.get(row, ("failed", "it was not run"))
            word = {"passed": "pass", "failed": "FAIL"}.get(outcome, outcome)
            lines.append(f"{row:>3}  {word:<7}  {requirement}" + (f" ({why})" if why else ""))
        return "\n".join(lines)


def row_of(nodeid: str) -> int | None:
    found = re.search(r"::test_row_(\d+)_", nodeid)
    return int(found[1]) if found else None


def reason(report: pytest.TestReport) -> str:
    """Why a test was skipped or failed, on one line."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        return (crash.message if crash else report.longreprtext).partition("\n")[0]
    return ""


def main() -> int:
    table = Table()
    code = pytest.main(["-q", *sys.argv[1:], *map(str, FILES)], plugins=[table])
    print(f"\n{table.text()}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
