"""Metrics and plots of a saved model, from its files and labelled series in the form of the training data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.data.loading import load_validation
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import EVALUATION_BATCH, evaluate
from lstm_fcn.training.explain import activation_maps, attention, filters, load_classifier, predict, unscale
from lstm_fcn.training.fit import class_weights
from lstm_fcn.training.network.model import Classifier
from lstm_fcn.training.output import charts, explanations, layers
from lstm_fcn.training.output.evaluation import Evaluation
from lstm_fcn.training.output.explanations import Example
from lstm_fcn.training.output.style import save

Rows = Sequence[int] | NDArray[np.int64]
MAX_SERIES = 500  # rows of one attention plot


@dataclass(frozen=True)
class Subject:
    """A saved model and the labelled series that it is plotted with.

    dataset: the series, scaled as the model requires, and their labels.
    unscaled: the series as they are, if their scales are not known.
    evaluation: predictions of these series.
    """

    metadata: Metadata
    classifier: Classifier
    dataset: Dataset
    unscaled: Dataset | None
    evaluation: Evaluation

    def scaled(self, rows: Rows) -> Tensor:
        """The series of these rows, counted from 0, float32 `[n, M, T]`."""
        return self.dataset.batch(torch.as_tensor(rows))[0]

    def raw(self, rows: Rows) -> NDArray[np.float64]:
        """The series of these rows before scaling, float64 `[n, M, T]`."""
        if self.unscaled is not None:
            return self.unscaled.batch(torch.as_tensor(rows))[0].numpy().astype(np.float64)
        return unscale(self.scaled(rows).numpy(), self.metadata.problem.scaling)

    def metrics(self) -> dict[str, float]:
        """The metrics that training logs for the validation data, measured on these series."""
        weights = class_weights(parse_hyperparameters(self.metadata.hyperparameters), self.metadata.problem)
        return evaluate(self.classifier.logits, self.dataset, weights, Group(), scores=True)

    def examples(self, places: list[tuple[int, int]]) -> list[Example]:
        """The series of the places, each with the activation map of its class."""
        rows, classes = zip(*places, strict=True)
        maps = activation_maps(self.classifier, self.scaled(list(rows)), classes)
        raw = self.raw(list(rows))
        return [
            self.evaluation.example(place, raw[number], None if maps is None else maps[number])
            for number, place in enumerate(places)
        ]


def draw_model(
    model: Path,
    data: Path,
    folder: Path,
    rows: Sequence[int] = (),
    class_name: str | None = None,
    one_per_class: bool = False,
) -> list[str]:
    """Plot the model in the folder `model` with the labelled series of the file `data`.

    Args:
        model: folder with `model.json` and `weights.safetensors`.
        data: CSV in the form of the training data.
        folder: each plot is written there as a PNG.
        rows: rows to plot with their class activation maps, counted from 1; by default typical rows of each class.
        class_name: explain this class instead of the predicted one.
        one_per_class: plot the attention to the first series of each class only.

    Returns:
        the names of the plots, without `.png`.

    Raises:
        UserError: the model or the data is invalid, the class or a row does not exist, or the folder is not writable.
    """
    subject = read_subject(model, data)
    metadata, evaluation = subject.metadata, subject.evaluation
    figures = _draw_examples(subject, rows, class_name)
    figures |= _draw_attention(subject, one_per_class) | _draw_filters(subject)
    if metadata.curves:
        figures["curves"] = charts.learning_curves(metadata.curves, metadata.best_epoch)
    draw_matrix = charts.target_matrices if evaluation.independent else charts.confusion_matrix
    figures["confusion"] = draw_matrix(evaluation.confusion(), metadata.problem.classes)
    if evaluation.mistakes():
        figures["mistakes"] = explanations.mistakes(subject.examples(evaluation.mistakes()))
    for name, figure in figures.items():
        save(figure, folder, name)
    return list(figures)


def read_subject(model: Path, data: Path) -> Subject:
    """Load the model in the folder `model` and predict the labelled series of the file `data`.

    Raises:
        UserError: the model or the data is invalid; for data, the message names row and column.
    """
    metadata, classifier = load_classifier(model)
    if not data.is_file():
        raise UserError(f"File not found: {data}")
    problem = metadata.problem
    source = Source("data", data.parent, (data,))
    scaled, _ = load_validation(source, problem, Group())
    unscaled = None
    if problem.scaling.method == "series":  # scaled with statistics that are not kept
        as_they_are = problem.model_copy(update={"scaling": Scaling(method="none")})
        unscaled = load_validation(source, as_they_are, Group())[0]
    truth: NDArray[np.int64] = scaled.labels.numpy().astype(np.int64)
    parts = torch.arange(len(scaled)).split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    probabilities = np.concatenate([predict(classifier, scaled.batch(part)[0]) for part in parts])
    row_numbers = np.arange(1, len(truth) + 1)
    evaluation = Evaluation("validation", len(truth), problem.classes, truth, probabilities, row_numbers)
    return Subject(metadata, classifier, scaled, unscaled, evaluation)


def _draw_examples(subject: Subject, rows: Sequence[int], class_name: str | None) -> dict[str, Figure]:
    """A plot for each requested row; without rows, one plot of typical rows of each class."""
    evaluation, classes = subject.evaluation, subject.metadata.problem.classes
    if class_name is not None and class_name not in classes:
        raise UserError(f"The model has no class {class_name!r}; its classes are {', '.join(map(repr, classes))}.")
    for row in rows:
        if not 1 <= row <= len(evaluation.truth):
            raise UserError(f"Row {row} does not exist; the data has rows 1 to {len(evaluation.truth)}.")
    if not rows:
        places = evaluation.typical() or [(0, int(evaluation.probabilities[0].argmax()))]
    else:
        places = [(row - 1, int(evaluation.probabilities[row - 1].argmax())) for row in rows]
    if class_name is not None:
        places = [(row, classes.index(class_name)) for row, _ in places]
    examples = subject.examples(places)
    if not rows:
        return {"examples": explanations.class_activation_maps(examples)}
    return {
        f"row-{row}": explanations.class_activation_map(example) for row, example in zip(rows, examples, strict=True)
    }


def _draw_attention(subject: Subject, one_per_class: bool) -> dict[str, Figure]:
    """The context of an attention LSTM: a plot for each variable; or its weights over time."""
    truth = subject.evaluation.truth
    labels = truth.argmax(axis=1) if truth.ndim > 1 else truth
    rows = np.arange(min(len(labels), MAX_SERIES))
    if one_per_class:
        rows = np.sort(np.unique(labels, return_index=True)[1])
    attended = attention(subject.classifier, subject.scaled(rows))
    if attended is None:
        return {}
    classes, series = subject.metadata.problem.classes, subject.raw(rows)
    if attended.over_time:
        # In long series all weights are close to 1/T, so their relative difference from it is drawn.
        difference = attended.weights * attended.weights.shape[1] - 1
        label = "attention: 0 is an even share, 0.1 is 10 % more"
        return {"attention": layers.attention_context(series[:, 0], difference, labels[rows], classes, label)}
    return {
        "attention" if series.shape[1] == 1 else f"attention-{variable + 1}": layers.attention_context(
            series[:, variable], attended.contexts[:, variable], labels[rows], classes
        )
        for variable in range(min(series.shape[1], explanations.MAX_VARIABLES))
    }


def _draw_filters(subject: Subject) -> dict[str, Figure]:
    """The filters of each convolution and their responses to the first series."""
    if not subject.metadata.explains:
        return {}
    series = subject.raw([0])[0].mean(axis=0)
    figures = {}
    for number in (1, 2, 3):
        weights, dilations, responses = filters(subject.classifier, number, subject.scaled([0])[0])
        figure = layers.filters(weights.astype(float), dilations, responses.astype(float), series)
        figures[f"filters-{number}"] = figure
    return figures
