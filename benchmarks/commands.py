"""The group of commands `lstm-fcn benchmark`."""

import click

from lstm_fcn.benchmarks.accuracy import run_command
from lstm_fcn.benchmarks.compare import compare_command
from lstm_fcn.benchmarks.problems import import_command


@click.group(commands=[import_command, run_command, compare_command])
def benchmark() -> None:
    """Import an archive of problems, measure accuracies over it, and compare them with published ones."""
