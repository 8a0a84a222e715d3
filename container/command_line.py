"""Running a click command as a program: every program reports errors in one form and with the same exit codes."""

from collections.abc import Sequence

import click

from lstm_fcn.container.errors import UserError

INTERRUPTED = 130  # exit code that shells report for a program ended by Ctrl-C


def run_command(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command whose function returns its exit code, or None for 0.

    Args:
        command: to run.
        name: of the program, for its help.
        arguments: of the program; by default `sys.argv[1:]`.

    Returns:
        the exit code; 2 for invalid input, which is reported as `Error: ...` on standard error.
    """
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except UserError as error:
        click.echo(f"Error: {error}", err=True)
        return UserError.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else 0
