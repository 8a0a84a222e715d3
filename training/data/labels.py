"""Labels of the rows, classes of the problem, and the task that follows from both."""

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import Block
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.problem import Task, are_independent
from lstm_fcn.training.data.store import Store
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)

PASS_LABELS = 2**20  # that are encoded at once


class Labels:
    """The labels of a channel: one label for each row, or with a header the target columns.

    not_one_hot: file and row of the first row in which not exactly one target is 1; None if there is no such row.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        """Accept the labels in `classes` only; None: accept every label."""
        self.not_one_hot: str | None = None
        self._is_open = classes is None
        self._places = {label: k for k, label in enumerate(classes or ())}
        self._codes = Store(np.int32)  # places in _places
        self._targets = Store(np.uint8)

    @property
    def found(self) -> list[str]:
        """Labels in order of first appearance."""
        return list(self._places)

    def add(self, block: Block, name: str, kept: slice) -> None:
        """Check all rows of a block of the file `name`, and store the labels of the rows in `kept`.

        Raises:
            UserError: a label is not one of the classes.
        """
        codes = self._encode_block(block, name)
        if not block.labels and self.not_one_hot is None:
            wrong = np.flatnonzero(block.targets.sum(axis=1) != 1)
            self.not_one_hot = f"{name}, row {block.rows[wrong[0]]}" if wrong.size else None
        self._codes.append(codes[kept])
        self._targets.append(block.targets[kept])

    def _encode_block(self, block: Block, name: str) -> NDArray[np.int64]:
        """Places of the block's labels, int64 `[n]`."""
        try:
            return np.array([self._places[label] for label in block.labels], dtype=np.int64)
        except KeyError:  # rare, so the fast path does not test for it
            pass
        for row, label in zip(block.rows, block.labels, strict=True):
            if label not in self._places:
                if not self._is_open:
                    raise UserError(
                        f"{name}, row {row}, column 1: the label {label!r} is not in the training data, whose labels "
                        f"are {quote(self.found)}. Labels are compared as text, exactly as written."
                    )
                self._places[label] = len(self._places)
        return self._encode_block(block, name)

    def encode(self, task: Task, classes: Sequence[str], columns: Columns) -> NDArray[np.generic]:
        """Labels as numbers: indices of `classes`, int32 `[N]`; or for independent classes float32 `[N, C]`."""
        if columns != HEADERLESS:
            targets = self._targets.finish().values.reshape(-1, len(classes))
            return (
                targets.astype(np.float32)
                if are_independent(task, classes)
                else targets.argmax(axis=1).astype(np.int32)
            )
        index = {label: k for k, label in enumerate(classes)}
        indices = np.array([index[label] for label in self._places], dtype=np.int64)
        labels = self._codes.finish().values
        for first in range(0, len(labels), PASS_LABELS):  # in place: there may be very many
            part = labels[first : first + PASS_LABELS]
            part[:] = indices[part.astype(np.int64)]
        return labels


def agree_on_classes(
    labels: Labels, columns: Columns | None, task: str, group: Group
) -> tuple[Task, list[str], Columns]:
    """Task, classes and columns of the training data of all processes.

    Args:
        labels: of this process's rows.
        columns: of this process's files; None if it has no rows.
        task: the hyperparameter.
        group: the processes that train together.

    Raises:
        UserError: the headers differ between machines, or the labels do not fit the task.
    """
    mine = None if columns is None else [list(columns.targets), list(columns.series), columns.variables]
    gathered = group.gather("classes", (mine, labels.found, labels.not_one_hot))
    headers = [header for header, _, _ in gathered if header is not None]
    if any(header != headers[0] for header in headers):
        raise UserError("The headers of the training files differ between the machines of the job; use one header.")
    targets, series, variables = headers[0]
    if not targets:
        classes = sort_classes({label for _, found, _ in gathered for label in found})
        return _choose_task(task, classes), classes, HEADERLESS
    not_one_hot = next((place for _, _, place in gathered if place), None)
    chosen = _choose_task_of_targets(task, targets, not_one_hot)
    return chosen, targets, Columns(tuple(targets), tuple(series), variables)


def agree_on_names(names: tuple[str, ...], group: Group) -> tuple[str, ...]:
    """The columns of values in the tables of all processes; empty if no process has read a table.

    Raises:
        UserError: they differ between machines.
    """
    found = [tuple(each) for each in group.gather("columns of tables", list(names)) if each]
    if any(each != found[0] for each in found):
        raise UserError("The columns of the training tables differ between the machines of the job.")
    return found[0] if found else ()


def _choose_task(wanted: str, classes: list[str]) -> Task:
    """The task of headerless data, which has one label in each row."""
    if wanted == "multilabel":
        raise UserError(
            "task=multilabel needs a header and target columns: a column of 0 and 1 for each class, whose name starts "
            "with y, followed by the columns of values, whose names start with x."
        )
    if wanted == "binary" and len(classes) != 2:
        raise UserError(f"task=binary needs two classes, but the training data has {len(classes)}: {quote(classes)}.")
    return "binary" if wanted != "multiclass" and len(classes) == 2 else "multiclass"


def _choose_task_of_targets(wanted: str, targets: list[str], not_one_hot: str | None) -> Task:
    """The task of data with target columns; `not_one_hot` names a row in which not exactly one target is 1."""
    if wanted == "multilabel" or (wanted == "auto" and len(targets) > 1 and not_one_hot):
        return "multilabel"
    if wanted == "binary" and len(targets) > 2:
        raise UserError(f"task=binary needs one or two target columns, but there are {len(targets)}: {quote(targets)}.")
    if len(targets) == 1:
        if wanted == "multiclass":
            raise UserError(
                f"task=multiclass needs a target column for each class, but {targets[0]} is the only target column."
            )
        return "binary"
    if not_one_hot:
        raise UserError(
            f"{not_one_hot}: exactly one of the columns {quote(targets)} must be 1, because task={wanted} allows one "
            "class per row; use task=multilabel to allow any number."
        )
    return "binary" if wanted != "multiclass" and len(targets) == 2 else "multiclass"


def sort_classes(labels: set[str]) -> list[str]:
    """Sort labels as numbers if all of them are numbers, else as text."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if any(map(math.isnan, numbers.values())):  # NaN has no place in an order
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))


def count_classes(labels: NDArray[np.generic], classes: int, group: Group, name: str) -> list[int]:
    """Count the series of each class over all processes; `name` is that of what the group gathers."""
    if labels.ndim > 1:
        counts = labels.sum(axis=0).astype(np.int64)
    else:
        counts = np.zeros(classes, np.int64)
        for first in range(0, len(labels), PASS_LABELS):  # bincount copies its argument
            counts += np.bincount(labels[first : first + PASS_LABELS], minlength=classes)
    totals: list[int] = np.sum(group.gather(name, counts.tolist()), axis=0).tolist()
    return totals


def check_classes(classes: list[str], counts: list[int], rows: int, independent: bool) -> None:
    """Check that there is something to tell apart, and that the labels look like labels.

    Raises:
        UserError: all rows have the same label, or no target column changes.
    """
    constant = [k for k, n in zip(classes, counts, strict=True) if n == 0 or (independent and n == rows)]
    if independent and constant == classes:
        raise UserError(f"The target columns {quote(classes)} are constant in the training data; nothing to learn.")
    if not independent and np.count_nonzero(counts) < 2:
        raise UserError(
            f"The training data has only one class ({classes[int(np.argmax(counts))]!r}, {rows} rows); at least two "
            "are needed. Is the label in the first column?"
        )
    if constant:
        logger.warning("WARNING: %s cannot be learned: constant in the training data", quote(constant))
    if not independent and len(classes) > rows / 2:
        logger.warning(
            "WARNING: %d series have %d different labels; is the label in the first column?", rows, len(classes)
        )


def quote(labels: Sequence[str], limit: int = 10) -> str:
    """The first `limit` labels, for messages."""
    text = ", ".join(repr(label) for label in labels[:limit])
    return text if len(labels) <= limit else f"{text} and {len(labels) - limit} more"
