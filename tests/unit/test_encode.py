import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, OUTPUTS
from lstm_fcn.container.problem import Problem, Scaling, Task
from lstm_fcn.serving.encode import Encoder, ResponseFormat
from lstm_fcn.serving.predictor import Predictions

PREDICTIONS = Predictions(
    np.array([[0.75, 0.125], [1e-9, 1 / 3]], dtype=np.float32), np.array([[1, -2, 0.5], [0, 3, 1e20]], dtype=np.float32)
)


def make(
    classes: list[str],
    columns: list[str] | None = None,
    task: Task = "multiclass",
    num_variables: int = 1,
    explains: bool = True,
) -> Encoder:
    problem = Problem(
        task=task,
        classes=tuple(classes),
        columns=Columns(tuple(classes), tuple(columns), num_variables) if columns else HEADERLESS,
        num_variables=num_variables,
        length=3,
        scaling=Scaling(method="none"),
    )
    return Encoder(Metadata(problem=problem, explains=explains, hyperparameters={}, metrics={}, versions={}))


PLAIN = make(["a", 'b, "c"'])
HEADED = make(["y1", "y_warm"], ["x1", "x2", "x3"], "multilabel")


class TestCSV:
    def test_labels(self) -> None:
        assert PLAIN.encode(PREDICTIONS, ResponseFormat(CSV)) == 'a\n"b, ""c"""\n'

    def test_everything(self) -> None:
        assert PLAIN.encode(PREDICTIONS, ResponseFormat(CSV, OUTPUTS)) == (
            'a,0.75,0.75,0.125,1,-2,0.5\n"b, ""c""",0.3333333,1e-09,0.3333333,0,3,1e+20\n'
        )

    def test_names(self) -> None:
        text = PLAIN.encode(PREDICTIONS, ResponseFormat(CSV, OUTPUTS, header=True))
        assert next(csv.reader(io.StringIO(text))) == [
            *("predicted_label", "probability", "probability_a", 'probability_b, "c"'),
            *("explanation_1", "explanation_2", "explanation_3"),
        ]

    def test_targets_come_with_their_probabilities_under_a_header(self) -> None:
        text = HEADED.encode(PREDICTIONS, ResponseFormat(CSV))
        assert text == "y1,y_warm,p1,p_warm\n1,0,0.75,0.125\n0,0,1e-09,0.3333333\n"

    def test_one_target_of_each_row_is_1_where_classes_exclude_each_other(self) -> None:
        text = make(["y1", "y2"], ["x1", "x2", "x3"]).encode(PREDICTIONS, ResponseFormat(CSV, header=False))
        assert text == "1,0,0.75,0.125\n0,1,1e-09,0.3333333\n"

    def test_everything_under_a_header(self) -> None:
        text = HEADED.encode(PREDICTIONS, ResponseFormat(CSV, OUTPUTS))
        assert text.splitlines()[0] == "y1,y_warm,probability,p1,p_warm,e1,e2,e3"
        assert text.splitlines()[1] == "1,0,0.75,0.75,0.125,1,-2,0.5"

    def test_names_that_need_quotes_are_quoted(self) -> None:
        text = make(['y,"1"', "y2"], ["x1", "x2", "x3"]).encode(PREDICTIONS, ResponseFormat(CSV))
        assert next(csv.reader(io.StringIO(text, newline=""))) == ['y,"1"', "y2", 'p,"1"', "p2"]

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0")), min_size=1))
    def test_labels_survive(self, names: list[str]) -> None:
        every = Predictions(np.eye(len(names), dtype=np.float32), np.zeros((len(names), 3), np.float32))
        text = make(names).encode(every, ResponseFormat(CSV))
        assert [row[0] if row else "" for row in csv.reader(io.StringIO(text, newline=""))] == names
        lines = make(names).encode(every, ResponseFormat(JSON_LINES)).splitlines()
        assert [json.loads(line)["predicted_label"] for line in lines] == names


class TestJSON:
    def test_everything(self) -> None:
        document = json.loads(PLAIN.encode(PREDICTIONS, ResponseFormat(JSON, OUTPUTS)))
        assert document == {
            "predictions": [
                {
                    "predicted_label": "a",
                    "probability": 0.75,
                    "probabilities": {"a": 0.75, 'b, "c"': 0.125},
                    "explanation": [1, -2, 0.5],
                },
                {
                    "predicted_label": 'b, "c"',
                    "probability": 0.3333333,
                    "probabilities": {"a": 1e-9, 'b, "c"': 0.3333333},
                    "explanation": [0, 3, 1e20],
                },
            ]
        }

    def test_lines(self) -> None:
        assert PLAIN.encode(PREDICTIONS, ResponseFormat(JSON_LINES)) == (
            '{"predicted_label": "a"}\n{"predicted_label": "b, \\"c\\""}\n'
        )

    def test_targets(self) -> None:
        assert json.loads(HEADED.encode(PREDICTIONS, ResponseFormat(JSON_LINES)).splitlines()[0]) == {
            "predicted_label": {"y1": 1, "y_warm": 0},
            "probabilities": {"y1": 0.75, "y_warm": 0.125},
        }


class TestVariables:
    """Of series of several variables, each time step is explained once."""

    COLUMNS = tuple(f"x_{variable}_{step}" for variable in "ab" for step in (1, 2, 3))
    FORMAT = ResponseFormat(CSV, ("explanation",), header=True)

    def test_csv(self) -> None:
        lines = make(["y1", "y2"], num_variables=2).encode(PREDICTIONS, self.FORMAT).splitlines()
        assert lines == ["explanation_1,explanation_2,explanation_3", "1,-2,0.5", "0,3,1e+20"]

    def test_csv_under_a_header(self) -> None:
        lines = make(["y1", "y2"], list(self.COLUMNS), num_variables=2).encode(PREDICTIONS, self.FORMAT).splitlines()
        assert lines == ["e_1,e_2,e_3", "1,-2,0.5", "0,3,1e+20"]

    @pytest.mark.parametrize("columns", [None, list(COLUMNS)])
    def test_json(self, columns: list[str] | None) -> None:
        text = make(["y1", "y2"], columns, num_variables=2).encode(
            PREDICTIONS, ResponseFormat(JSON_LINES, ("explanation",))
        )
        assert [json.loads(line)["explanation"] for line in text.splitlines()] == [[1, -2, 0.5], [0, 3, 1e20]]


def test_a_model_without_explanation_reports_it() -> None:
    with pytest.raises(UserError, match="The model has no explanation, because its network has no convolutions"):
        make(["a", "b"], explains=False).encode(PREDICTIONS, ResponseFormat(JSON, ("explanation",)))
