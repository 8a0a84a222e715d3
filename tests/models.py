"""Models made by hand, whose predictions are known: tests of serving neither train nor read binary files."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling, Task
from lstm_fcn.container.recording import Preparation

GOLDEN = Path(__file__).parent / "golden" / "v1"  # a trained model: two variables, three targets under a header

LENGTH = 16
CLASSES = ("1.0", 'up, not "down"')
SLOPE = np.linspace(-1, 1, LENGTH).round(3)
SERIES = np.array(
    [(1 if k % 2 == 0 else -1) * SLOPE + np.random.default_rng(k).normal(scale=0.1, size=LENGTH) for k in range(8)]
).round(5)
ROWS = "".join(",".join(f"{value:.5f}" for value in row) + "\n" for row in SERIES)
NAMES = [CLASSES[1], CLASSES[0]] * 4
LABELS = ['"up, not ""down"""', "1.0"] * 4  # as CSV cells


def probabilities(series: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the plain model returns for `[N, LENGTH]`: a series that rises is of the second class."""
    rising = 1 / (1 + np.exp(-series @ SLOPE))
    return np.stack([1 - rising, rising], axis=1)


# One hidden layer whose units all hold the same sum; it takes about as long as a small network.
PLAIN_GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
classifier (double[batch, 1, 16] series) => (float[batch, 2] probabilities, float[batch, 16] explanation)
<float[16, 1] slope = {%s}>
{
    values = Cast <to = 1> (series)
    row = Constant <value_ints = [0, 16]> ()
    rows = Reshape (values, row)
    units = Constant <value_ints = [1, 8192]> ()
    weights = Expand (slope, units)
    hidden = MatMul (rows, weights)
    last = Constant <value_ints = [1]> ()
    score = ReduceMean <keepdims = 1> (hidden, last)
    rising = Sigmoid (score)
    one = Constant <value_float = 1.0> ()
    falling = Sub (one, rising)
    probabilities = Concat <axis = 1> (falling, rising)
    order = Transpose (slope)
    explanation = Mul (rows, order)
}
"""

# The classes are the variables; the most probable one has the largest mean.
VARIABLES_GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
classifier (double[batch, 3, 2] series) => (float[batch, 3] probabilities, float[batch, 2] explanation)
{
    values = Cast <to = 1> (series)
    steps_axis = Constant <value_ints = [2]> ()
    variables_axis = Constant <value_ints = [1]> ()
    means = ReduceMean <keepdims = 0> (values, steps_axis)
    probabilities = Softmax <axis = 1> (means)
    explanation = ReduceSum <keepdims = 0> (values, variables_axis)
}
"""


# The classes are directions: the score of a series is its mean product with a ramp from -1 to 1.
RAMPS_GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
ramps (double[N, {variables}, {length}] series) => (float[N, {classes}] probabilities{explanation})
<
    double[{length}] ramp = {{{ramp}}}, double[1, {classes}] weights = {{{weights}}}, double bias = {{{bias}}},
    double[{classes}] weight = {{{weights}}}, int64[1] middle = {{1}}
>
{{
    products = Mul (series, ramp)
    steps = ReduceMean <keepdims = 0> (products, middle)
    score = ReduceMean <keepdims = 1> (steps, middle)
    weighted = MatMul (score, weights)
    logits = Add (weighted, bias)
    likely = {activation} (logits)
    probabilities = Cast <to = 1> (likely)
    chosen = ArgMax <axis = 1, keepdims = 1> (logits)
    direction = Gather (weight, chosen)
    evidence = Mul (steps, direction)
    explanation = Cast <to = 1> (evidence)
}}
"""


def save_plain_model(folder: Path) -> Path:
    """A model of data without a header: series of one variable and 16 values, two classes."""
    graph = PLAIN_GRAPH % ", ".join(map(str, SLOPE))
    return _save(folder, graph, Problem(task="binary", classes=CLASSES, length=LENGTH, scaling=Scaling(method="none")))


def save_model_of_recordings(folder: Path, preparation: Preparation) -> Path:
    """The plain model for windows of recordings, which have 16 steps of one variable."""
    graph = PLAIN_GRAPH % ", ".join(map(str, SLOPE))
    problem = Problem(
        task="binary",
        classes=CLASSES,
        length=LENGTH,
        names=preparation.values,
        preparation=preparation,
        scaling=Scaling(method="none"),
    )
    return _save(folder, graph, problem)


def save_model_of_variables(folder: Path, columns: tuple[str, ...] = ()) -> Path:
    """A model for series of three variables and two time steps, whose classes are the variables."""
    classes = ("y_a", "y_b", "y_c")
    problem = Problem(
        task="multiclass",
        classes=classes,
        columns=Columns(classes, columns, 3) if columns else HEADERLESS,
        num_variables=3,
        length=2,
        scaling=Scaling(method="none"),
    )
    return _save(folder, VARIABLES_GRAPH, problem)


def save_model_of_ramps(
    folder: Path,
    classes: tuple[str, ...],
    *,
    task: Task = "multiclass",
    variables: int = 1,
    columns: Columns = HEADERLESS,
    preprocessing: Preprocessing | None = None,
    explains: bool = True,
) -> Path:
    """A model in which rising series belong to the first class, falling series to the second.

    With independent classes, series that hardly rise or fall belong to none of them.
    """
    problem = Problem(
        task=task,
        classes=classes,
        columns=columns,
        preprocessing=preprocessing or Preprocessing(missing_values="error", length_policy="error"),
        num_variables=variables,
        length=LENGTH,
        scaling=Scaling(method="none"),
    )
    text = RAMPS_GRAPH.format(
        variables=variables,
        length=LENGTH,
        classes=len(classes),
        explanation=f", float[N, {LENGTH}] explanation" if explains else "",
        ramp=", ".join(map(str, np.linspace(-1, 1, LENGTH).tolist())),
        weights=", ".join(map(str, [10.0, -10.0, *[1.0] * len(classes)][: len(classes)])),
        bias=-0.5 if problem.independent else 0.0,
        activation="Sigmoid" if problem.independent else "Softmax <axis = 1>",
    )
    return _save(folder, text, problem, explains)


def _save(folder: Path, text: str, problem: Problem, explains: bool = True) -> Path:
    graph = onnx.parser.parse_model(text)
    onnx.checker.check_model(graph)
    metadata = Metadata(problem=problem, explains=explains, hyperparameters={}, metrics={}, versions={})
    artifact.save(folder, metadata, graph.SerializeToString(), b"")
    return folder
