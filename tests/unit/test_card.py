"""The model card: figures with their origin, settings that were changed, and no README of a user lost."""

from pathlib import Path
from typing import Any

import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.card import MARK, model_card
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.container.recording import Preparation

TRAINED = {"train_loss": 0.01, "train_accuracy": 1.0}
HELD_OUT = {"valid_loss": 0.5, "valid_accuracy": 0.75}


def make(metrics: dict[str, float], variables: int = 1, policy: Any = "error", **settings: Any) -> Metadata:
    problem = Problem(
        task="binary",
        classes=("a|b", "c"),
        class_counts=(5, 7),
        series_count=12,
        preprocessing=Preprocessing(length_policy=policy),
        num_variables=variables,
        length=20,
        scaling=Scaling(method="dataset"),
    )
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    values = parse_hyperparameters(names).model_dump(by_alias=True)
    return Metadata(problem=problem, hyperparameters=values, metrics=metrics, versions={"torch": "2.13.0"})


def test_series_data_settings_and_versions() -> None:
    card = model_card(make(HELD_OUT, lr="0.001"))
    assert card.startswith(f"---\n{MARK}\n")
    assert "series of 20 values and returns the probability of each of 2 classes" in card
    assert "1 network and kernel features" in card
    assert "| a\\|b | 5 |\n| c | 7 |" in card
    assert "| `lr` | 0.001 |" in card
    assert "`dropout`" not in card
    assert "Made with torch 2.13.0." in card
    assert "# [N, 20]" in card


def test_variables_and_lengths() -> None:
    card = model_card(make(HELD_OUT, variables=3, policy="pad", preset="paper"))
    assert "series of any length, 3 variables each" in card
    assert "1 network (LSTM-FCN" in card
    assert "# [N, 3, T]" in card


@pytest.mark.parametrize(
    ("metrics", "settings", "origin", "figures"),
    [
        (TRAINED, {}, "**These are figures of the training data; they say little", ["train_loss", "train_accuracy"]),
        (TRAINED | HELD_OUT, {}, "Measured on validation data", ["valid_loss", "valid_accuracy"]),
        (
            TRAINED | HELD_OUT,
            {"validation_fraction": "0.25"},
            "It is 25% of the training data",
            ["valid_loss", "valid_accuracy"],
        ),
        (
            TRAINED | HELD_OUT,
            {"cross_validation_folds": "5"},
            "Estimated by 5-fold cross-validation",
            ["valid_loss", "valid_accuracy"],
        ),
    ],
)
def test_figures_come_with_their_origin(
    metrics: dict[str, float], settings: dict[str, Any], origin: str, figures: list[str]
) -> None:
    text = model_card(make(metrics, **settings)).partition("## Figures")[2].partition("## Data")[0]
    assert origin in text
    assert [name for name in metrics if name in text] == figures


def test_a_model_without_class_counts() -> None:
    metadata = make(HELD_OUT)
    problem = metadata.problem.model_copy(update={"class_counts": ()})
    assert "| c |  |" in model_card(metadata.model_copy(update={"problem": problem}))


def test_many_classes_are_not_listed() -> None:
    metadata = make(HELD_OUT)
    names = tuple(f"class {k}" for k in range(60))
    problem = metadata.problem.model_copy(update={"classes": names, "class_counts": (1,) * 60})
    card = model_card(metadata.model_copy(update={"problem": problem}))
    assert "class 49" in card
    assert "class 50" not in card
    assert "and 10 more classes" in card


def test_the_readme_of_a_user_is_left_alone(tmp_path: Path) -> None:
    readme, metadata = tmp_path / "README.md", make(HELD_OUT)
    artifact.save(tmp_path, metadata, b"graph", b"weights")
    assert readme.read_text() == model_card(metadata)
    artifact.save(tmp_path, make(TRAINED), b"graph", b"weights")
    assert readme.read_text() == model_card(make(TRAINED))
    readme.write_text("# My project\n")
    artifact.save(tmp_path, metadata, b"graph", b"weights")
    assert readme.read_text() == "# My project\n"
    assert artifact.load(tmp_path)[0].metrics == HELD_OUT


def test_windows_of_recordings() -> None:
    made = make(TRAINED | HELD_OUT, validation_fraction="0.25")
    preparation = Preparation(values=("speed", "load"), every=500_000_000, window=20, stride=1)
    problem = made.problem.model_copy(update={"preparation": preparation})
    card = model_card(made.model_copy(update={"problem": problem}))
    assert "25% of the training data, drawn at random, whole groups of recordings at a time." in card
    assert "| window | 20 steps, one every 1 step |\n| step | 0.5 s |\n| columns | speed, load |" in card
    assert "lstm-fcn predict . recordings.parquet" in card
