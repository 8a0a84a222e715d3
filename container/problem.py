"""What a model learns: its classes, and the series that it takes."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.preprocess import STRICT, Preprocessing
from lstm_fcn.container.recording import Preparation

Task = Literal["binary", "multiclass", "multilabel"]


class Scaling(BaseModel):
    """How the graph scales series, variable by variable.

    method: by mean and standard deviation, of the training set (`dataset`) or of each series (`series`), or not at all.
    mean, std: one of each for every variable; used by the method `dataset`.
    """

    model_config = ConfigDict(frozen=True)

    method: Literal["dataset", "series", "none"]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Problem(BaseModel):
    """A classification problem, derived from the training data and the hyperparameters.

    classes: labels exactly as written in the data; with a header, the names of the target columns.
    class_counts: training series of each class, over all machines; a series can have several classes if `task` is
        multilabel.
    series_count: training series, over all machines.
    columns: the columns that the header names; `HEADERLESS` without a header.
    names: the columns of values in tables without such names, each a variable or a time step; empty for other data.
    preparation: how recordings become series; None if the series are rows.
    length: time steps of each series after preprocessing.
    """

    model_config = ConfigDict(frozen=True)

    task: Task
    classes: tuple[str, ...]
    class_counts: tuple[int, ...] = ()
    series_count: int = 0
    columns: Columns = HEADERLESS
    names: tuple[str, ...] = ()
    preparation: Preparation | None = None
    preprocessing: Preprocessing = STRICT
    num_variables: int = 1
    length: int
    scaling: Scaling

    @property
    def independent(self) -> bool:
        """Each class has its own probability (sigmoid); otherwise they sum to 1 (softmax)."""
        return are_independent(self.task, self.classes)

    @property
    def has_header(self) -> bool:
        return self.columns != HEADERLESS


def are_independent(task: Task, classes: Sequence[str]) -> bool:
    """Whether a series can have any number of the classes, not exactly one of them."""
    return task == "multilabel" or len(classes) == 1
