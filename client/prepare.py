"""The command `prepare`: tables of recordings become training data."""

from typing import Any, get_args

import click

from lstm_fcn.container.recording import Unit


@click.command()
@click.argument("source", metavar="TABLE")
@click.argument("output", type=click.Path(file_okay=False))
@click.option("--id", help="column that says to which recording a row belongs [all rows are one recording]")
@click.option("--time", help="column of times: timestamps, ISO 8601, or numbers [rows are in order]")
@click.option("--values", multiple=True, help="column of values; repeat it for several [all other columns of numbers]")
@click.option("--label", help="column of labels")
@click.option("--intervals", help="instead: table with the columns start, end, label, and the one named by --id")
@click.option("--group", help="column; recordings of one group are never both in training and in validation [--id]")
@click.option("--unit", type=click.Choice(get_args(Unit)), default="s", show_default=True, help="of numeric times")
@click.option("--timezone", help="of times without an offset, such as Europe/Berlin [UTC]")
@click.option("--every", help="step of the grid, such as 100ms, 1s or 5min [every row is a step]")
@click.option("--fill", type=click.Choice(["linear", "last"]), default="linear", show_default=True, help="between rows")
@click.option("--max-gap", help="longest gap to fill, such as 10s [any]")
@click.option("--window", default="100", show_default=True, help="steps, or time such as 10s (with --every)")
@click.option("--stride", help="from one window to the next, in steps or time [half a window]")
@click.option("--label-by", type=click.Choice(["majority", "last"]), default="majority", show_default=True)
@click.option("--minimum-share", type=float, default=0.5, show_default=True, help="of a window that has its label")
@click.option("--unlabelled", metavar="LABEL", help="class of what has no label [left out]")
@click.option("--split-at", metavar="TIME", help="from here on for validation")
def prepare(source: str, output: str, **options: Any) -> None:
    """Prepare the recordings in TABLE for training: sort them, put them onto a grid, label every step.

    TABLE has a row for each moment: CSV or Parquet, a folder of files, or an SQL query for DuckDB. OUTPUT gets the
    folder `training` and, with --split-at, `validation`, for `lstm-fcn train`.
    """
    from lstm_fcn.data import prepare as prepare_table

    prepared = prepare_table(source, output, **options)
    for line in prepared.findings.lines():
        click.echo(f"WARNING: {line}", err=True)
    for name, part in prepared.parts.items():
        click.echo(f"{name}: {part}")
