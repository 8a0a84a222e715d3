"""The command `train-many`: one model for each value of a column of a table."""

from pathlib import Path
from typing import Any

import click

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options, spread_options
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.training.many import SUMMARY, train_many, write_summary


@click.command("train-many")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--by", required=True, metavar="COLUMN", help="column; each of its values gets a model")
@spread_options
@hyperparameter_options
def train_many_command(
    source: Path, output: Path, by: str, workers: int | None, cluster: str | None, **options: Any
) -> int:
    """Train a classifier for each value of a column of the table INPUT, each on one core.

    INPUT is a file or a folder of files: CSV with a header, Parquet or Arrow with a series in each row, or recordings
    that lstm-fcn prepare has written. OUTPUT gets a folder for each model, summary.csv and report.html, the worst model
    first. If training is interrupted (Ctrl-C), run the same command again to resume it: models that are complete are
    kept.
    """
    found = train_many(source, output, by, given_hyperparameters(options), workers, cluster)
    write_summary(output, found, by)
    failed = sum(bool(trained.error) for trained in found)
    click.echo(f"{output / SUMMARY}: {plural(len(found) - failed, 'model')}" + f"; {failed} failed" * bool(failed))
    return UserError.exit_code if failed else 0
