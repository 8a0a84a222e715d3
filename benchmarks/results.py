"""The table of results: a CSV file with a row for each run."""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import write_atomically


@dataclass(frozen=True)
class Row:
    """One run, or an average of runs.

    method: name of the method; for an ensemble or an average, with the number of networks.
    train_loss, epoch: of the selected weights.
    train, test: numbers of series.
    configuration: the hyperparameters that differ from their defaults.
    """

    dataset: str
    method: str
    cells: int
    seed: int
    preset: str
    accuracy: float
    balanced_accuracy: float
    f1: float
    train_loss: float
    epoch: int
    classes: int
    train: int
    test: int
    length: int
    variables: int
    parameters: int
    seconds: float
    device: str
    versions: str
    configuration: str

    @property
    def identity(self) -> tuple[str, str, int, int, str]:
        """Identifies the run: no two rows of a table have the same."""
        return self.dataset, self.method, self.cells, self.seed, self.preset


COLUMNS = [field.name for field in fields(Row)]


def read_results(path: Path) -> list[Row]:
    """Read a table; a missing file is an empty table, and an incomplete last line is ignored.

    Raises:
        UserError: the file is not such a table.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if lines and lines[0] != COLUMNS:
        raise UserError(f"{path}, row 1: the columns must be {', '.join(COLUMNS)}.")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        try:
            values = [field.type(cell) for field, cell in zip(fields(Row), cells, strict=True)]  # type: ignore[operator]
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}.") from error
        rows.append(Row(*values))
    return rows


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """Replace the table."""
    write_atomically((path, (",".join(COLUMNS) + "\n" + "".join(map(_line, rows))).encode()))


def append_result(path: Path, row: Row) -> None:
    """Add a row, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Row) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(asdict(row).values())
    return buffer.getvalue()
