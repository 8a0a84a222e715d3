import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.training.output import explanations, style
from lstm_fcn.training.output.evaluation import Evaluation
from lstm_fcn.training.output.explanations import Example
from lstm_fcn.training.output.report import Report, curves_csv, metrics_json, page, write_report

RNG = np.random.default_rng(0)
VOID = {"br", "meta"}


def evaluation(**changes: Any) -> Evaluation:
    """Six rows, five of them right."""
    values: dict[str, Any] = {
        "part": "validation",
        "rows": 6,
        "classes": ["up", "down", "level"],
        "truth": np.array([0, 0, 0, 1, 1, 2]),
        "probabilities": np.array(
            [[0.9, 0.1, 0], [0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.2, 0.8, 0], [0.1, 0.6, 0.3], [0.05, 0.9, 0.05]]
        ),
    }
    return Evaluation(**values | changes)


def targets(classes: int = 2) -> Evaluation:
    """Four rows with independent classes; of the first, row 2 is a false alarm and row 4 is missed."""
    truth = np.array([[1, 0], [0, 0], [1, 1], [1, 1]])[:, :classes]
    probabilities = np.array([[0.9, 0.1], [0.8, 0.3], [0.6, 0.7], [0.4, 0.9]])[:, :classes]
    return evaluation(rows=4, classes=["p", "q"][:classes], truth=truth, probabilities=probabilities)


def example(length: int = 12, variables: int = 1, **changes: Any) -> Example:
    series = RNG.normal(size=(variables, length)).cumsum(axis=1)
    return dataclasses.replace(Example(series, "up", 0.9, "up", RNG.normal(size=length), 3), **changes)


def history(epochs: int) -> list[dict[str, float]]:
    return [{"epoch": k + 1, "round": 0, "train_loss": 1 / (k + 1)} for k in range(epochs)]


def report(**changes: Any) -> Report:
    """A report with few pictures, as drawing them takes most of the time."""
    values: dict[str, Any] = {
        "title": "LSTM-FCN: ramps",
        "evaluation": evaluation(),
        "metrics": {"train_loss": 0.1, "train_accuracy": 0.95, "valid_loss": 0.25, "valid_accuracy": 5 / 6},
        "history": history(3),
        "best_epoch": (2, 0),
        "configuration": {"epochs": "3", "lr": "0.001"},
        "defaults": {"epochs": "2000", "lr": "0.001"},
        "data": {"task": "multiclass", "length": "12"},
        "class_counts": {"training": [10, 5, 1]},
        "versions": {"torch": "2.13.0"},
    }
    return Report(**values | changes)


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.text = ""  # what a reader sees, pictures left out
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self.open[-1] if self.open else ""
        self.texts.setdefault(tag, []).append(data)
        if tag not in ("style", "text"):
            self.text += data if tag in ("strong", "figcaption") else f" {data} "

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


HOSTILE = ["<script>alert(1)</script>", '" onload="alert(1)', "</style><svg onload=alert(1)>\x00", "&lt;"]


def hostile() -> Report:
    """Markup wherever a user's text can come."""
    bad = HOSTILE[0]
    return report(
        title=bad,
        evaluation=evaluation(classes=HOSTILE[:3]),
        configuration={bad: HOSTILE[1]},
        defaults={bad: HOSTILE[2]},
        data={bad: HOSTILE[1]},
        versions={HOSTILE[3]: bad},
        examples=[example(predicted=bad, truth=HOSTILE[1])],
    )


VARIANTS: dict[str, Callable[[], Report]] = {
    "classes": lambda: report(
        history=[entry | {"valid_accuracy": 0.5, "lr": 0.1} for entry in history(3)],
        examples=[example(), example()],
        mistakes=[example(truth="down")],
    ),
    "hostile": hostile,
    "targets": lambda: report(evaluation=targets(), class_counts={"training": [3, 2]}),
    "one target": lambda: report(evaluation=targets(1), class_counts={"training": [3]}),
    "variables": lambda: report(examples=[example(variables=15)], mistakes=[example(1, activation=None)]),
    "many classes": lambda: report(
        evaluation=evaluation(classes=[str(k) for k in range(30)], probabilities=RNG.random((6, 30))),
        class_counts={"training": range(30)},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_is_well_formed_and_needs_nothing_from_outside(variant: str) -> None:
    text = page(VARIANTS[variant]())
    found = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    references = found.values("href") + found.values("xlink:href") + found.values("src")
    references += re.findall(r"url\((.*?)\)", " ".join(found.values("style") + found.values("clip-path")))
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert references
    for reference in references:
        assert reference.startswith("data:image/png;base64,") or reference.removeprefix("#") in ids
    assert not re.search(r"@import|https?:|url\(", "".join(found.texts["style"]))
    assert len(found.texts["style"]) == 1  # none of a picture's own, which would hold of the whole page
    policy = next(attributes["content"] for tag, attributes in found.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_labels_are_shown_and_not_obeyed() -> None:
    found = Page(page(hostile()))
    for label in HOSTILE:
        assert label.replace("\x00", "\ufffd") in found.text
    assert HOSTILE[0] in found.texts["title"]


def test_the_result_comes_first() -> None:
    found = Page(page(report(examples=[example()], mistakes=[example(truth="down")])))
    assert found.texts["h2"] == [
        *("Result", "Learning curves", "Confusion matrix", "Classes", "Examples", "Most confident mistakes"),
        *("Configuration", "Data", "Versions"),
    ]
    assert found.texts["dd"][:2] == ["0.833", "training data: 0.950"]
    assert "Measured on the validation data, 6 rows." in found.text
    assert "The model has the weights of epoch 2." in found.text
    assert "no validation data" not in found.text


def test_without_validation_data_the_page_warns() -> None:
    found = Page(page(report(evaluation=evaluation(part="training"), best_epoch=(2, 1))))
    assert found.texts["dd"][0] == "0.950"
    assert "There is no validation data, so it is unknown" in found.text
    assert "epoch 2 of round 1" in found.text


def test_a_continued_training_says_so() -> None:
    history = [{"epoch": 1, "round": number, "train_loss": 0.5, "lr": 0.1} for number in (0, 1, 2)]
    assert "Training was continued twice, because" in Page(page(report(history=history))).text
    tuned = {"configuration": {"fine-tune-rounds": "1"}, "defaults": {"fine-tune-rounds": "0"}}
    assert "Training was continued once, because" in Page(page(report(history=history, **tuned))).text
    assert "was continued" not in Page(page(report(history=history[:2], **tuned))).text


def test_a_sample_is_called_one() -> None:
    assert (
        "Per-class results are computed on a sample of 6 rows."
        in Page(page(report(evaluation=evaluation(rows=1000)))).text
    )


def test_examples_say_what_was_predicted_and_what_is_true() -> None:
    found = Page(page(report(examples=[example()], mistakes=[example(truth="down", row=None)])))
    assert "row 3: predicted up, probability 0.900" in found.text
    assert re.search(r"predicted up, probability 0\.900\s*true class down", found.text)
    assert "Class activation map:" in found.text


def test_examples_may_be_missing_or_have_no_activation() -> None:
    found = Page(page(report(examples=[example(activation=None)])))
    assert "Class activation map:" not in found.text
    assert "Most confident mistakes" not in found.texts["h2"]


def test_changed_hyperparameters_are_marked() -> None:
    found = Page(page(report()))
    assert found.texts["strong"] == ["3"]


def test_one_epoch_and_one_row() -> None:
    alone = evaluation(rows=1, truth=np.array([0]), probabilities=np.array([[0.9, 0.1, 0.0]]))
    found = Page(page(report(evaluation=alone, history=history(1), best_epoch=(1, 0))))
    assert "nan" not in found.text.lower()
    assert "\N{EN DASH}" in found.text  # recall of classes without rows


def test_a_large_job_has_a_small_page() -> None:
    long = example(3000, truth=None, activation=RNG.normal(size=3000))
    assert len(page(report(history=history(2000), examples=[long])).encode()) < 150_000
    many = example(3000, variables=20, activation=RNG.normal(size=3000))
    assert len(page(report(history=history(2000), examples=[many])).encode()) < 200_000


def test_the_same_job_has_the_same_files(tmp_path: Path) -> None:
    one = report()
    for name in ("a", "b"):
        write_report(tmp_path / name, one)
    names = ["curves.csv", "metrics.json", "report.html"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert [(tmp_path / "a" / n).read_bytes() for n in names] == [(tmp_path / "b" / n).read_bytes() for n in names]


def test_a_folder_that_cannot_be_written_to_is_the_users_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_fcn.training.output.report.page", lambda _: "")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"metrics\.json cannot be written: "):
        write_report(tmp_path / "file", report())


def test_metrics_for_programs() -> None:
    found = json.loads(metrics_json(report(metrics={"valid_accuracy": 5 / 6, "valid_loss": math.nan})))
    assert found["metrics"] == {"valid_accuracy": 5 / 6, "valid_loss": None}
    assert found["best_epoch"] == {"epoch": 2, "round": 0}
    assert found["evaluated_on"] == {"data": "validation", "rows": 6, "of": 6}
    assert found["confusion"] == [[3, 0, 0], [0, 2, 0], [0, 1, 0]]
    assert found["classes"] == [
        {"class": "up", "precision": 1, "recall": 1, "f1": 1, "rows": 3},
        {"class": "down", "precision": 2 / 3, "recall": 1, "f1": 0.8, "rows": 2},
        {"class": "level", "precision": None, "recall": 0, "f1": 0, "rows": 1},
    ]


@pytest.mark.parametrize("classes", [1, 2])
def test_metrics_of_independent_targets(classes: int) -> None:
    found = json.loads(metrics_json(report(evaluation=targets(classes))))
    assert found["confusion"] == [[[0, 1], [1, 2]], [[2, 0], [0, 2]]][:classes]
    assert found["classes"][0] == {"class": "p", "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "rows": 3}


def test_curves_for_programs() -> None:
    entries = [{"epoch": 1, "train_loss": 0.25, "lr": 1e-3}, {"epoch": 2, "round": 1, "train_loss": math.inf}]
    rows = list(csv.reader(io.StringIO(curves_csv(report(history=entries)))))
    assert rows == [["round", "epoch", "train_loss", "lr"], ["0", "1", "0.25", "0.001"], ["1", "2", "", ""]]


def test_mistakes_are_those_of_the_highest_probability() -> None:
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    found = evaluation(classes=["a", "b"], truth=np.array([1, 0, 1, 1]), probabilities=probabilities)
    assert found.mistakes() == [(1, 1), (3, 0), (0, 0)]
    assert found.mistakes(1) == [(1, 1)]


def test_mistakes_of_targets_are_false_alarms_and_misses() -> None:
    assert targets().mistakes() == [(1, 0), (3, 0)]


def test_typical_rows_are_right_and_of_each_class_alike() -> None:
    assert evaluation().typical(6) == [(0, 0), (2, 0), (3, 1), (4, 1)]
    assert evaluation().typical(2) == [(0, 0), (3, 1)]
    assert targets().typical(2) == [(0, 0), (3, 1)]
    assert targets(1).typical(2) == [(0, 0)]  # no row without the target is right


def test_an_example_of_a_class() -> None:
    series, activation = np.zeros((1, 4)), np.ones(4)
    found = evaluation().example((5, 1), series, activation)
    assert (found.predicted, found.probability, found.truth, found.row) == ("down", 0.9, "level", None)
    assert evaluation(rows=100, row_numbers=np.arange(11, 17)).example((5, 1), series, None).row == 16
    assert found.activation is activation


def test_an_example_of_an_absent_target_is_explained_by_what_speaks_against_it() -> None:
    found = targets().example((3, 0), np.zeros((1, 4)), np.ones(4))
    assert (found.predicted, found.truth) == ("not p", "p")
    assert found.probability == pytest.approx(0.6)
    assert found.activation is not None
    assert found.activation.tolist() == [-1] * 4
    assert found.is_mistake


def test_pictures_of_a_page_have_names_of_their_own() -> None:
    text = page(report(examples=[example(), example()]))
    assert set(re.findall(r'id="(\w+)-axes_1"', text)) == {"curve0", "confusion", "example0", "example1"}
    assert style.svg(explanations.thumbnail(example(), 1.0)).count(b'id="axes_1"') == 1
