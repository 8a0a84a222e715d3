"""Train time series classifiers and predict with them, on this machine or on Amazon SageMaker."""

import importlib
import sys
from importlib.util import find_spec

import click

from lstm_fcn import __version__
from lstm_fcn.container.command_line import run_command
from lstm_fcn.container.errors import UserError

# Where each command is and what it does. A command is imported when it is called: this keeps `--help` fast, and the
# packages that one command needs do not have to be installed for another.
COMMANDS = {
    "train": ("lstm_fcn.client.local:train", "Train a classifier on labelled series."),
    "predict": ("lstm_fcn.client.local:predict", "Predict the series of a file."),
    "evaluate": ("lstm_fcn.client.local:evaluate", "Measure a model on labelled series."),
    "visualize": ("lstm_fcn.client.local:visualize", "Draw pictures that explain a model."),
    "serve": ("lstm_fcn.client.local:serve", "Serve a model over HTTP, with a page to try it."),
    "watch": ("lstm_fcn.client.recordings:watch", "Predict recordings as their rows arrive."),
    "prepare": ("lstm_fcn.client.prepare:prepare", "Make training data of tables of recordings."),
    "transform": ("lstm_fcn.serving.transform:transform", "Predict files and folders of any size."),
    "train-many": ("lstm_fcn.client.train_many:train_many_command", "Train a classifier for each value of a column."),
    "predict-dataset": (
        "lstm_fcn.client.predict_dataset:predict_dataset_command",
        "Predict the files of a folder, many at a time.",
    ),
    "tune": ("lstm_fcn.client.tuning.command:tune", "Search for good hyperparameters."),
    "benchmark": ("lstm_fcn.benchmarks.commands:benchmark", "Measure accuracies over an archive of problems."),
    "sagemaker": (
        "lstm_fcn.client.sagemaker.commands:sagemaker",
        "Train, tune, deploy and predict on Amazon SageMaker.",
    ),
}
# The extras that install what a command needs, each with a package that shows whether it is installed.
EXTRAS = {
    "train": {"train": "torch"},
    "evaluate": {"train": "torch"},
    "visualize": {"train": "torch"},
    "serve": {"serve": "flask"},
    "prepare": {"tables": "duckdb"},
    "train-many": {"train": "torch", "tables": "duckdb"},
    "predict-dataset": {"tables": "pyarrow"},
    "tune": {"tune": "optuna"},
    "benchmark": {"benchmark": "pandas"},
    "sagemaker": {"sagemaker": "boto3"},
}


class LazyGroup(click.Group):
    """The group of `COMMANDS`, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        for extra, package in EXTRAS.get(cmd_name, {}).items():
            if find_spec(package) is None:
                raise UserError(
                    f"{cmd_name} needs the package {package}, which is not installed: pip install 'lstm-fcn[{extra}]'."
                )
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lstm-fcn")
def lstm_fcn() -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for invalid input, 130 after Ctrl-C."""
    return run_command(lstm_fcn, "lstm-fcn", arguments)


if __name__ == "__main__":
    sys.exit(main())
