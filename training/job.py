"""The story of a training job, top to bottom."""

import logging
import platform
from importlib.metadata import version

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn import __version__
from lstm_fcn.container import artifact
from lstm_fcn.container.channels import find_channels
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.metrics import metric_text
from lstm_fcn.container.optml import OptML
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.checkpoint import Checkpoints
from lstm_fcn.training.data import Data, load
from lstm_fcn.training.devices import choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.earlier import EarlierModel, load_earlier
from lstm_fcn.training.explain import Network
from lstm_fcn.training.export import export_graph, export_weights
from lstm_fcn.training.loop import Fitted, Loop
from lstm_fcn.training.model import Classifier, Scaler, make_network
from lstm_fcn.training.stop import StopSignal

logger = logging.getLogger(__name__)

CURVE_POINTS = 200  # epochs of the learning curves that go into the model
# What may change between a job and its continuation: it has no influence on the weights.
WITHOUT_INFLUENCE = ("checkpoint-epochs", "checkpoint-minutes")


def run(optml: OptML, stop: StopSignal, group: Group) -> None:
    """Train the model that the job below `optml.root` describes, and write it to its model folder.

    Raises:
        UserError: settings, data or folders that the user can mend.
        AlgorithmError: the exported graph does not agree with the trained network; another machine was lost.
    """
    logger.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    settings = parse_hyperparameters(optml.hyperparameters())
    channels = find_channels(optml)
    if group.is_first:
        check_writable(optml.model, "model")
    placement = choose_placement(settings.precision, group)
    earlier = load_earlier(channels["model"]) if "model" in channels else None
    if earlier:
        settings = earlier.take_architecture(settings)
    logger.info("hyperparameters: %s", _describe(settings))

    data = load(channels, settings, group, earlier.metadata if earlier else None)
    logger.info("task: %s; classes: %s", data.problem.task, _describe_classes(data.problem))
    problem = data.problem
    settings = settings.with_batch_size(problem.series_count)
    _check_batch_size(settings, group)
    network = make_network(settings, problem.num_variables, problem.length, len(problem.classes))
    if earlier:
        earlier.carry_over(network, data.problem)
    if not group.is_first:
        torch.manual_seed(settings.seed + group.rank)  # each process drops out other cells
    checkpoints = _open_checkpoints(optml, settings, data, earlier, group)
    loop = Loop(
        network.to(placement.device),
        data.training.to(placement.device),
        data.validation.to(placement.device) if data.validation else None,
        class_weights(settings, data.problem).to(placement.device),
        settings,
        placement,
        stop,
        group,
        checkpoints,
        saves=any(group.gather("checkpoints", checkpoints is not None)),
    )
    fitted = loop.fit()
    if group.is_first:
        _save(optml, settings, data, network, fitted, loop.history)
        if not loop.stopping:  # there may be no time to look back
            _report(optml, settings, data, network, fitted, loop.history)
        logger.info("saved: %s, %s", fitted.place, metric_text(fitted.metrics))
        if checkpoints and not loop.stopping:
            checkpoints.remove_all()


def _save(
    optml: OptML,
    settings: Hyperparameters,
    data: Data,
    network: Network,
    fitted: Fitted,
    history: list[dict[str, float]],
) -> None:
    problem = data.problem
    classifier = Classifier(Scaler(problem.scaling), network.cpu(), problem.independent).eval()
    graph = export_graph(classifier, data.sample)
    metadata = artifact.Metadata(
        problem=problem,
        explains=classifier.explains,
        hyperparameters=settings.model_dump(by_alias=True),
        metrics=fitted.metrics,
        best_epoch=(fitted.epoch, fitted.round),
        curves=_thin_out(history, fitted),
        versions=versions(),
    )
    artifact.save(optml.model, metadata, graph, export_weights(classifier))
    logger.info("model: %s", optml.model)


def _thin_out(history: list[dict[str, float]], fitted: Fitted) -> list[dict[str, float]]:
    """At most `CURVE_POINTS` of the epochs, and the one that was kept; rounded, as curves are drawn."""
    picked = set(np.linspace(0, len(history) - 1, min(len(history), CURVE_POINTS)).astype(int).tolist())
    kept = (fitted.epoch, fitted.round)
    return [
        {name: float(f"{value:.6g}") for name, value in entry.items()}
        for number, entry in enumerate(history)
        if number in picked or (entry["epoch"], entry["round"]) == kept
    ]


def _report(
    optml: OptML,
    settings: Hyperparameters,
    data: Data,
    network: Network,
    fitted: Fitted,
    history: list[dict[str, float]],
) -> None:
    """Write the report; the model is what matters, and is kept if this fails."""
    from lstm_fcn.training.report import (
        write_report,  # with all that draws, which is slow to load and not always needed
    )
    from lstm_fcn.training.summary import make_report

    try:
        write_report(optml.output_data, make_report(settings, data, network, fitted, history, versions()))
    except UserError as error:
        logger.warning("WARNING: no report is written: %s", error)
        return
    logger.info("report: %s", optml.output_data / "report.html")


def _open_checkpoints(
    optml: OptML, settings: Hyperparameters, data: Data, earlier: EarlierModel | None, group: Group
) -> Checkpoints | None:
    """The job's checkpoints, in its first process; None if they have no place and were not asked for (T64)."""
    if not group.is_first:
        return None
    folder, asked_for = optml.checkpoints()
    try:
        check_writable(folder, "checkpoint")
    except UserError as error:
        if asked_for:
            raise
        logger.warning("WARNING: no checkpoints are written: %s", error)
        return None
    values = settings.model_dump(by_alias=True)
    fingerprint = {name: value for name, value in values.items() if name not in WITHOUT_INFLUENCE}
    fingerprint |= {"data": data.fingerprint, "processes": group.size, "length": data.problem.length}
    fingerprint |= {"data classes": data.problem.classes, "data earlier model": earlier.sha256 if earlier else None}
    checkpoints = Checkpoints(folder, fingerprint)
    checkpoints.remove_partial()
    return checkpoints


def _check_batch_size(settings: Hyperparameters, group: Group) -> None:
    smallest = max(1, settings.batch_size >> settings.fine_tune_rounds)
    if smallest < group.size:
        raise UserError(
            f"batch-size={settings.batch_size} is too small for {group.size} processes, which share each batch"
            + (f" (in the last fine-tuning round of {smallest})." if settings.fine_tune_rounds else ".")
        )


def versions() -> dict[str, str]:
    """The versions of what made the model."""
    packages = {name: version(name) for name in ("torch", "numpy", "onnx")}
    packages["onnxruntime"] = onnxruntime.__version__  # which several packages bring
    return {"lstm-fcn": __version__, "python": platform.python_version(), **packages}


def class_weights(settings: Hyperparameters, problem: Problem) -> Tensor:
    """Float32 `[C]`, or `[C, 2]` for independent classes: the weights of 0 and 1 of each.

    Balanced weights are those of scikit-learn: inversely proportional to how often a class comes.
    """
    counts = np.array(problem.class_counts, dtype=np.float64)
    if problem.independent:
        counts = np.stack([problem.series_count - counts, counts], axis=1)
    if settings.class_weight == "none":
        return torch.ones(counts.shape)
    return torch.from_numpy(_balance(counts, problem.series_count)).float()


def _balance(counts: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Weights along the last axis; 1 for a class that never comes."""
    present = counts > 0
    classes = present.sum(axis=-1, keepdims=True)
    return np.where(present, total / (classes * np.maximum(counts, 1)), 1.0)


def _describe(settings: Hyperparameters) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.model_dump(by_alias=True).items())


def _describe_classes(problem: Problem, limit: int = 20) -> str:
    counts = list(zip(problem.classes, problem.class_counts, strict=True))
    text = ", ".join(f"{label!r}: {count}" for label, count in counts[:limit])
    return text if len(counts) <= limit else f"{text} and {len(counts) - limit} more"
