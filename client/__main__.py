"""`lstm-fcn`: from a CSV file to a trained classifier and its predictions, here or on SageMaker."""

import importlib
import sys
from importlib.util import find_spec
from typing import Any

import click

from lstm_fcn import __version__
from lstm_fcn.container.errors import UserError

# Where each command is implemented. A command is imported when it is called, because extras may not be installed.
COMMANDS = {
    "train": ("lstm_fcn.client.local:train", "Train a classifier on CSV files."),
    "predict": ("lstm_fcn.client.local:predict", "Predict the series of a CSV file."),
    "evaluate": ("lstm_fcn.client.local:evaluate", "Measure a model on labelled series."),
    "visualize": ("lstm_fcn.client.local:visualize", "Draw what a model looks at."),
    "serve": ("lstm_fcn.client.local:serve", "Serve a model over HTTP, with a page to try it."),
    "transform": ("lstm_fcn.client.local:transform", "Predict whole folders of files of any size."),
    "tune": ("lstm_fcn.client.tuning.command:tune", "Search for good hyperparameters."),
    "benchmark": ("lstm_fcn.benchmarks.commands:benchmark", "Measure accuracies over an archive of problems."),
    "sagemaker": (
        "lstm_fcn.client.sagemaker.commands:sagemaker",
        "Train, tune, deploy and predict on Amazon SageMaker.",
    ),
}
# The extra that installs what a command needs, and a package that shows whether it is installed.
EXTRAS = {
    "train": ("train", "torch"),
    "predict": ("serve", "flask"),
    "evaluate": ("train", "torch"),
    "visualize": ("train", "torch"),
    "serve": ("serve", "flask"),
    "transform": ("serve", "flask"),
    "tune": ("tune", "optuna"),
    "benchmark": ("benchmark", "pandas"),
    "sagemaker": ("sagemaker", "boto3"),
}


class Commands(click.Group):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        extra, package = EXTRAS[cmd_name]
        if find_spec(package) is None:
            raise UserError(
                f"{cmd_name} needs the package {package}, which is not installed: pip install 'lstm-fcn[{extra}]'."
            )
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in `--help`, without loading any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lstm-fcn")
def lstm_fcn() -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit code, which is 2 for invalid input."""
    try:
        code: Any = lstm_fcn.main(arguments, prog_name="lstm-fcn", standalone_mode=False)
    except UserError as error:
        click.echo(f"Error: {error}", err=True)
        return UserError.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 130
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
