"""The files that `lstm_fcn.data.prepare` writes: a row for each step of a recording, in order.

Columns: `recording` and `group` (text), `piece` (number of a part without gaps), `time` (of the step), `label` (text or
null), and one of numbers for each variable. The `Preparation` is in the metadata of the schema.
"""

from pathlib import Path

from lstm_fcn.container.recording import Preparation
from lstm_fcn.container.tables import is_table

COLUMNS = ("recording", "group", "piece", "time", "label")
KEY = b"lstm_fcn.preparation"


def read_preparation(path: Path) -> Preparation | None:
    """How a file was prepared; None if it was not, or is damaged."""
    if not is_table(path):
        return None
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
    except (pyarrow.ArrowException, OSError):  # reading it as a table says what is wrong
        return None
    return Preparation.model_validate_json(metadata[KEY]) if KEY in metadata else None
