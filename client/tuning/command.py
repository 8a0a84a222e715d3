"""`lstm-fcn tune`: local hyperparameter tuning from the command line."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import click

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options
from lstm_fcn.client.tuning import trials
from lstm_fcn.client.tuning.report import best_table, write_results
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.container.metrics import METRICS
from lstm_fcn.container.ranges import parse_assignments

EXISTING = click.Path(exists=True, path_type=Path)
STUDY_FILE = "study.db"
INTERRUPTED = 130  # exit code that shells report for a process ended by Ctrl-C


@click.command()
@click.option("--training", type=EXISTING, required=True, multiple=True, help="CSV file, or a folder of CSV files")
@click.option("--validation", type=EXISTING, multiple=True, help="CSV file, or a folder of CSV files")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder for the results"
)
@click.option(
    "--trials", type=click.IntRange(1), default=20, show_default=True, help="trials that the study has at the end"
)
@click.option(
    "--objective",
    default="valid_accuracy",
    show_default=True,
    metavar="METRIC",
    help="metric to optimize: " + ", ".join(metric.name for metric in METRICS),
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=RANGE",
    help="tune only the hyperparameters given this way: lr=0.0001:0.1:log, dropout=0.2:0.9, hidden-size=8,64,128",
)
@click.option("--workers", type=click.IntRange(1), help="trials that run at a time [one per core]")
@click.option(
    "--storage",
    help="SQLite file of the study on a local disk [study.db in the output folder], or a database that several "
    "machines share: postgresql://USER:PASSWORD@HOST/DATABASE",
)
@click.option("--study", "study_name", default="lstm-fcn", show_default=True, help="name of the study in the storage")
@click.option("--pruning/--no-pruning", default=True, show_default=True, help="end bad trials early")
@click.option(
    "--timeout", "minutes", type=click.FloatRange(0), metavar="MINUTES", help="start no more trials after this time"
)
@click.option(
    "--search-seed", type=click.IntRange(0, 2**31 - 1), help="seed of the search; --seed is the seed of training"
)
@hyperparameter_options
def tune(output: Path, storage: str | None, ranges: Sequence[str], **options: Any) -> int:
    """Search for good hyperparameters with many trainings (trials), several at a time.

    Hyperparameters that are set are the same in all trials. If the search is interrupted, run the same command again to
    resume it; a larger --trials continues a finished one.
    """
    hyperparameters = given_hyperparameters(options)
    parsed_ranges = parse_assignments("--range", ranges)
    check_writable(output, "output")
    result = trials.tune(
        storage=storage or output / STUDY_FILE,
        ranges=parsed_ranges or None,
        hyperparameters=hyperparameters,
        **{name: value for name, value in options.items() if name in signature(trials.tune).parameters},
    )
    write_results(result, output)
    if result.ranking:
        click.echo(best_table(result))
        click.echo(f"report: {output / 'report.md'}\nbest: {output / 'hyperparameters.json'}")
    if result.stopped:
        click.echo("Interrupted. Run the same command again to resume the search.", err=True)
        return INTERRUPTED
    if not result.ranking:
        errors = [f" The last error: {trial.error}" for trial in result.trials if trial.error]
        raise UserError(f"No trial is complete.{errors[-1] if errors else ''}")
    return 0
