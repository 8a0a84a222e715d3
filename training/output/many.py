"""The report of many models: a histogram of their accuracies, and a table with the worst ones first."""

from collections.abc import Mapping, Sequence
from typing import Any

from lstm_fcn.training.output import charts
from lstm_fcn.training.output.report import embed, environment, style_sheet

COLUMNS = ("group", "folder", "series", "classes", "accuracy", "estimate", "seconds")
MOST_ROWS = 1000


def page(by: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Render the HTML page, with its picture and its style sheet inside.

    Args:
        by: the column of groups.
        rows: a mapping with `COLUMNS` and `error` for each group, the worst first.
    """
    trained = [row for row in rows if not row["error"]]
    picture = charts.accuracy_histogram([row["accuracy"] for row in trained]) if trained else None
    return (
        environment()
        .get_template("many.html")
        .render(
            by=by,
            css=style_sheet(),
            columns=COLUMNS,
            rows=rows[:MOST_ROWS],
            count=len(rows),
            trained=len(trained),
            estimates=sorted({row["estimate"] for row in trained}),
            picture=picture and embed(picture, "accuracies", "histogram of the accuracies"),
        )
    )
