"""A training job from top to bottom: read the configuration and the data, train, save the model, write the report."""

import logging
import platform
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import onnxruntime

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
from lstm_fcn.training.cross_validation import OutOfFold, cross_validate
from lstm_fcn.training.data.datasets import Data
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.devices import Placement, choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.earlier import EarlierModel, load_earlier
from lstm_fcn.training.export import export_graph, export_weights
from lstm_fcn.training.fit import Fit, fit
from lstm_fcn.training.loop import BestEpoch
from lstm_fcn.training.stop import StopSignal

logger = logging.getLogger(__name__)

CURVE_POINTS = 200  # epochs in the learning curves that are saved with the model
# A job may resume from its checkpoint after these have changed: they do not influence the weights.
WITHOUT_INFLUENCE = ("checkpoint-epochs", "checkpoint-minutes", "device")


def run(optml: OptML, stop: StopSignal, group: Group) -> None:
    """Run the job in the folder `optml.root`: train a model and write it to the job's model folder.

    Raises:
        UserError: invalid hyperparameters, data or folders.
        StopBeforeTraining: a stop was requested before the first training step.
        AlgorithmError: the exported graph differs from the trained network, or another machine failed.
    """
    logger.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    settings = parse_hyperparameters(optml.hyperparameters())
    channels = find_channels(optml)
    if group.is_first:
        check_writable(optml.model, "model")
    placement = choose_placement(settings.precision, group, settings.device)
    earlier = load_earlier(channels["model"]) if "model" in channels else None
    if earlier:
        settings = earlier.take_architecture(settings)
    logger.info("hyperparameters: %s", _describe(settings))

    data = load(channels, settings, group, earlier.metadata if earlier else None)
    logger.info("task: %s; classes: %s", data.problem.task, _describe_classes(data.problem))
    checkpoints = _open_checkpoints(optml, settings, data, earlier, group)
    trained, folds = train(data, settings, placement, group, stop, checkpoints, earlier)
    if group.is_first:
        artifact.save(optml.model, *make_artifact(data, trained))
        logger.info("model: %s", optml.model)
    if not trained.stopped:  # the platform leaves little time after a stop
        _report(optml, data, trained, folds, group)
    if group.is_first:
        logger.info("saved: %s, %s", trained.best.place, metric_text(trained.best.metrics))
        if checkpoints and not trained.stopped:
            checkpoints.remove_all()
            checkpoints.of_folds().remove_all()


def train(
    data: Data,
    settings: Hyperparameters,
    placement: Placement,
    group: Group,
    stop: StopSignal,
    checkpoints: Checkpoints | None = None,
    earlier: EarlierModel | None = None,
) -> tuple[Fit, OutOfFold | None]:
    """Train the model and, if the hyperparameters ask for it, cross-validate first. For the arguments, see `fit`."""
    folds = None
    if settings.cross_validation_folds:
        of_folds = checkpoints.of_folds() if checkpoints else None
        folds = cross_validate(data, settings, placement, group, stop, of_folds)
    trained = fit(data, settings, placement, group=group, stop=stop, checkpoints=checkpoints, earlier=earlier)
    if folds:
        trained = replace(trained, best=replace(trained.best, metrics=trained.best.metrics | folds.metrics))
    return trained, folds


def make_artifact(data: Data, trained: Fit) -> tuple[artifact.Metadata, bytes, bytes]:
    """Metadata, graph and weights of a trained classifier, as `artifact.save` takes them.

    Raises:
        AlgorithmError: the exported graph differs from the trained network.
    """
    problem = data.problem
    classifier = trained.classifier.cpu()
    graph = export_graph(classifier, data.sample)
    metadata = artifact.Metadata(
        problem=problem,
        explains=classifier.explains,
        hyperparameters=trained.settings.model_dump(by_alias=True),
        metrics=trained.best.metrics,
        best_epoch=(trained.best.epoch, trained.best.round),
        curves=thin_out(trained.history, trained.best),
        versions=versions(),
    )
    return metadata, graph, export_weights(classifier)


def thin_out(history: list[dict[str, float]], best: BestEpoch) -> list[dict[str, float]]:
    """At most `CURVE_POINTS` epochs spread over the training, and the best one; values rounded to six digits."""
    picked = set(np.linspace(0, len(history) - 1, min(len(history), CURVE_POINTS)).astype(int).tolist())
    return [
        {name: float(f"{value:.6g}") for name, value in entry.items()}
        for number, entry in enumerate(history)
        if number in picked or (entry["epoch"], entry["round"]) == (best.epoch, best.round)
    ]


def _report(optml: OptML, data: Data, trained: Fit, folds: OutOfFold | None, group: Group) -> None:
    """Write the report; if that fails, the job still succeeds, because it has a model.

    Every process calls this, because the report covers the data of all of them; the first one writes.
    """
    # Imported here because matplotlib is slow to import and not every job gets this far.
    from lstm_fcn.training.output.report import write_report
    from lstm_fcn.training.output.summary import make_report

    classifier = trained.classifier.cpu()
    report = make_report(trained.settings, data, classifier, trained.best, trained.history, versions(), folds, group)
    if not group.is_first:
        return
    try:
        write_report(optml.output_data, report)
    except UserError as error:
        logger.warning("WARNING: no report was written: %s", error)
        return
    logger.info("report: %s", optml.output_data / "report.html")


def _open_checkpoints(
    optml: OptML, settings: Hyperparameters, data: Data, earlier: EarlierModel | None, group: Group
) -> Checkpoints | None:
    """The job's checkpoints, in its first process; None if the folder is not writable and was not configured (T64)."""
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
    checkpoints.of_folds().remove_partial()
    return checkpoints


def versions() -> dict[str, str]:
    """Versions of the software that trained the model."""
    packages = {name: version(name) for name in ("torch", "numpy", "onnx")}
    packages["onnxruntime"] = onnxruntime.__version__  # installed by one of several packages
    return {"lstm-fcn": __version__, "python": platform.python_version(), **packages}


def _describe(settings: Hyperparameters) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.model_dump(by_alias=True).items())


def _describe_classes(problem: Problem, limit: int = 20) -> str:
    counts = list(zip(problem.classes, problem.class_counts, strict=True))
    text = ", ".join(f"{label!r}: {count}" for label, count in counts[:limit])
    return text if len(counts) <= limit else f"{text} and {len(counts) - limit} more"
