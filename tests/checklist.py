"""The platform's checklist as a table: `python -m tests.checklist` runs each row's tests and says how it went.

A row is a test marked `checklist("NN: what the platform requires")`, or called `test_row_NN_...` with a docstring.
Several tests may share a row.
"""

import inspect
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FOLDERS = [FOLDER / "contract", FOLDER / "images", FOLDER / "unit"]
WORST = ["passed", "skipped", "failed"]  # of a row's tests, the worst counts


class Table:
    """A pytest plugin that notes how each row went."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}  # of each test
        self.requirements: dict[int, str] = {}
        self.outcomes: dict[int, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = []
        for item in items:
            found = row_of(item)
            if found is None:
                others.append(item)
            else:
                self.rows[item.nodeid], requirement = found
                self.requirements.setdefault(self.rows[item.nodeid], requirement)
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.nodeid in self.rows]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = self.rows.get(report.nodeid)
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


def row_of(item: pytest.Item) -> tuple[int, str] | None:
    """A test's row and what it requires; None if the test belongs to no row."""
    mark = item.get_closest_marker("checklist")
    if mark is not None:
        found = re.match(r"\D*(\d+)\W*(.*)", str(mark.args[0]))
        return (int(found[1]), found[2]) if found else None
    found = re.search(r"::test_row_(\d+)_", item.nodeid)
    if found is None or not isinstance(item, pytest.Function):
        return None
    return int(found[1]), (inspect.getdoc(item.function) or "").partition("\n")[0]


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
    code = pytest.main(["-q", *sys.argv[1:], *map(str, FOLDERS)], plugins=[table])
    print(f"\n{table.text()}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
