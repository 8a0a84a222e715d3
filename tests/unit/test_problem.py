import pytest

from lstm_fcn.container.csv_header import Columns
from lstm_fcn.container.problem import Problem, Scaling, Task


@pytest.mark.parametrize(
    ("task", "classes", "independent"),
    [
        ("binary", ("a", "b"), False),
        ("binary", ("y",), True),
        ("multiclass", ("a", "b", "c"), False),
        ("multilabel", ("y1", "y2"), True),
        ("multilabel", ("y1",), True),
    ],
)
def test_classes_are_independent_if_each_has_its_own_probability(
    task: Task, classes: tuple[str, ...], independent: bool
) -> None:
    problem = Problem(task=task, classes=classes, length=20, scaling=Scaling(method="none"))
    assert problem.independent is independent


@pytest.mark.parametrize(("columns", "has_header"), [(Columns(), False), (Columns(("y",), ("x1",)), True)])
def test_a_header_is_known_by_its_columns(columns: Columns, has_header: bool) -> None:
    problem = Problem(task="binary", classes=("y",), columns=columns, length=1, scaling=Scaling(method="none"))
    assert problem.has_header is has_header
