"""The constructor of the estimator, generated from the table of hyperparameters.

Editors and scikit-learn read the names, types and defaults from the source:

    python -m lstm_fcn.client.signature > lstm_fcn/parameters.py
"""

import re
import textwrap

from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter

# Set by the data, or without a meaning in memory.
LEFT_OUT = ("task", "num-variables", "checkpoint-epochs", "checkpoint-minutes")
WIDTH = 120  # of a line

MODULE = '''"""The hyperparameters as constructor parameters.

Generated from the table of hyperparameters: python -m lstm_fcn.client.signature > lstm_fcn/parameters.py
"""

from typing import Literal

from sklearn.base import BaseEstimator


class Parameters(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The hyperparameters of an estimator."""

    def __init__(
        self,
        *,
{parameters}
        verbose: bool = False,
    ) -> None:
        """Choose hyperparameters. None: the value that the preset sets, or the default in square brackets.

        Args:
{descriptions}
            verbose: show the progress of training and its log.
        """
{assignments}
        self.verbose = verbose
'''


def module() -> str:
    """The source text of `lstm_fcn.parameters`."""
    chosen = [parameter for parameter in PARAMETERS.values() if parameter.name not in LEFT_OUT]
    return MODULE.format(
        parameters="\n".join(map(_declare, chosen)),
        descriptions="\n".join(map(_describe, chosen)),
        assignments="\n".join(f"        self.{_name(one)} = {_name(one)}" for one in chosen),
    )


def _name(parameter: Parameter) -> str:
    return parameter.name.replace("-", "_")


def _declare(parameter: Parameter) -> str:
    """The parameter with its type and default, formatted like the rest of the source."""
    line = f"        {_name(parameter)}: {_annotation(parameter)},"
    if len(line) <= WIDTH:
        return line
    start, choices, end = re.split(r"(?<=\[)|(?=\])", line)
    return f"{start}\n            {choices}\n        {end}".replace("] | None", "]\n        | None")


def _annotation(parameter: Parameter) -> str:
    if parameter.kind != "choice":
        return f"{'int' if parameter.kind == 'integer' else 'float'} | None = None"
    words = [f'"{choice}"' for choice in parameter.choices if choice not in ("true", "false")]
    kinds = ["bool"] * ("true" in parameter.choices) + [f"Literal[{', '.join(words)}]"] * bool(words)
    if parameter.name == "preset":
        return f'{kinds[0]} = "default"'
    return f"{' | '.join(kinds)} | None = None"


def _describe(parameter: Parameter) -> str:
    text = re.sub(r"\[.*?\]\((.*?)\)", r"docs/\1", parameter.help)
    default = {"true": "True", "false": "False"}.get(str(parameter.default), str(parameter.default))
    line = f"{_name(parameter)}: {text}. [{default}]"
    return textwrap.fill(line, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 16, break_on_hyphens=False)


if __name__ == "__main__":
    print(module(), end="")
