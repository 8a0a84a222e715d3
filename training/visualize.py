"""Pictures of a model: `python -m lstm_fcn.training.visualize MODEL DATA.csv PICTURES`.

From the files of the model and labelled series, in the form of the training data: what the convolutions look at in a
series, what the attention looks at, learned filters, learning curves, the confusion matrix, and the most confident
mistakes. Each as PNG and SVG.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training import pictures
from lstm_fcn.training.data.loading import load_validation
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.explain import activation_maps, attention, filters, load_classifier, predict
from lstm_fcn.training.network.model import Network
from lstm_fcn.training.pictures import Example
from lstm_fcn.training.report import Evaluation

MOST_SERIES = 500  # drawn side by side in one picture of attention


@dataclass(frozen=True)
class Subject:
    """A model and the series that it is shown with.

    scaled, raw: float32 and float64 `[N, M, T]`.
    evaluation: what the model says of them.
    """

    metadata: Metadata
    network: Network
    scaled: Tensor
    raw: NDArray[np.float64]
    evaluation: Evaluation

    def examples(self, places: list[tuple[int, int]]) -> list[Example]:
        """Series with the class activation maps of the classes that the places name."""
        rows, classes = zip(*places, strict=True)
        maps = activation_maps(self.network, self.scaled[list(rows)], classes)
        return [
            self.evaluation.example(place, self.raw[place[0]], None if maps is None else maps[number])
            for number, place in enumerate(places)
        ]


def main() -> int:
    arguments = _parser().parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    try:
        wanted = (arguments.rows or (), arguments.class_name, arguments.one_per_class)
        for name in draw_model(arguments.model, arguments.data, arguments.pictures, *wanted):
            print(arguments.pictures / f"{name}.png")
    except UserError as error:
        print(error, file=sys.stderr)
        return UserError.exit_code
    return 0


def draw_model(
    model: Path,
    data: Path,
    folder: Path,
    rows: Sequence[int] = (),
    class_name: str | None = None,
    one_per_class: bool = False,
) -> list[str]:
    """Draw the model in the folder `model` with the labelled series of the file `data`; returns the pictures' names.

    Args:
        model: holds `model.json` and `weights.safetensors`.
        data: CSV in the form of the training data.
        folder: where each picture is written, as PNG and SVG.
        rows: class activation maps of these rows, counted from 1; none: of typical series of each class.
        class_name: what speaks for this class, not for the predicted one.
        one_per_class: attention to the first series of each class only.

    Raises:
        UserError: the model or the data cannot be used, there is no such class or row, or the folder cannot be written.
    """
    subject = read_subject(model, data)
    metadata, evaluation = subject.metadata, subject.evaluation
    figures = _examples(subject, rows, class_name)
    figures |= _attention(subject, one_per_class) | _filters(subject)
    if metadata.curves:
        figures["curves"] = pictures.learning_curves(metadata.curves, metadata.best_epoch)
    draw = pictures.target_matrices if evaluation.independent else pictures.confusion_matrix
    figures["confusion"] = draw(evaluation.confusion(), metadata.problem.classes)
    if evaluation.mistakes():
        figures["mistakes"] = pictures.mistakes(subject.examples(evaluation.mistakes()))
    for name, figure in figures.items():
        pictures.save(figure, folder, name)
    return list(figures)


def read_subject(model: Path, data: Path) -> Subject:
    """Load the model in the folder `model`, and show it the labelled series of the file `data`.

    Raises:
        UserError: one of them cannot be used; of the data, names row and column.
    """
    metadata, classifier = load_classifier(model)
    if not data.is_file():
        raise UserError(f"There is no file {data}.")
    problem = metadata.problem
    source = Source("data", data.parent, (data,))
    scaled, _ = load_validation(source, problem, Group())
    raw, _ = load_validation(source, problem.model_copy(update={"scaling": Scaling(method="none")}), Group())
    truth: NDArray[np.int64] = scaled.labels.numpy().astype(np.int64)
    probabilities = predict(classifier.network, scaled.series, metadata.problem.independent)
    evaluation = Evaluation("validation", len(truth), metadata.problem.classes, truth, probabilities)
    return Subject(metadata, classifier.network, scaled.series, raw.series.numpy().astype(np.float64), evaluation)


def _examples(subject: Subject, rows: Sequence[int], class_name: str | None) -> dict[str, Figure]:
    """The rows that were asked for, each by itself; else typical ones of each class, side by side."""
    evaluation, classes = subject.evaluation, subject.metadata.problem.classes
    if class_name is not None and class_name not in classes:
        raise UserError(f"The model has no class {class_name!r}; it has {', '.join(map(repr, classes))}.")
    for row in rows:
        if not 1 <= row <= len(evaluation.truth):
            raise UserError(f"There is no row {row}; the data has the rows 1 to {len(evaluation.truth)}.")
    if not rows:
        places = evaluation.typical() or [(0, int(evaluation.probabilities[0].argmax()))]
    else:
        places = [(row - 1, int(evaluation.probabilities[row - 1].argmax())) for row in rows]
    if class_name is not None:
        places = [(row, classes.index(class_name)) for row, _ in places]
    examples = subject.examples(places)
    if not rows:
        return {"examples": pictures.class_activation_maps(examples)}
    return {f"row-{row}": pictures.class_activation_map(example) for row, example in zip(rows, examples, strict=True)}


def _attention(subject: Subject, one_per_class: bool) -> dict[str, Figure]:
    """The context vectors of an attention LSTM: of each variable, or over time its shares."""
    truth = subject.evaluation.truth
    labels = truth.argmax(axis=1) if truth.ndim > 1 else truth
    rows = np.arange(min(len(labels), MOST_SERIES))
    if one_per_class:
        rows = np.sort(np.unique(labels, return_index=True)[1])
    attended = attention(subject.network, subject.scaled[rows])
    if attended is None:
        return {}
    classes, series = subject.metadata.problem.classes, subject.raw[rows]
    if attended.over_time:
        # Shares are close to even ones in long series: what is drawn is by how much they differ.
        more = attended.weights * attended.weights.shape[1] - 1
        label = "attention: 0 is an even share, 0.1 is 10 % more"
        return {"attention": pictures.attention_context(series[:, 0], more, labels[rows], classes, label)}
    return {
        "attention" if series.shape[1] == 1 else f"attention-{variable + 1}": pictures.attention_context(
            series[:, variable], attended.contexts[:, variable], labels[rows], classes
        )
        for variable in range(min(series.shape[1], pictures.MOST_VARIABLES))
    }


def _filters(subject: Subject) -> dict[str, Figure]:
    """The filters of each convolution, and what they answer to the first series."""
    if not subject.metadata.explains:
        return {}
    series = subject.raw[0].mean(axis=0)
    found = {}
    for number in (1, 2, 3):
        weights, responses = filters(subject.network, number, subject.scaled[0])
        found[f"filters-{number}"] = pictures.filters(weights.astype(float), responses.astype(float), series)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lstm_fcn.training.visualize", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder with model.json and weights.safetensors")
    parser.add_argument("data", type=Path, metavar="DATA.csv", help="labelled series, as for training")
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help="folder to write to")
    parser.add_argument(
        "--rows", nargs="+", type=int, metavar="N", help="class activation maps of these rows of the data, from 1"
    )
    parser.add_argument(
        "--class", dest="class_name", metavar="LABEL", help="what speaks for this class, in place of the predicted one"
    )
    parser.add_argument("--one-per-class", action="store_true", help="attention: the first series of each class only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
