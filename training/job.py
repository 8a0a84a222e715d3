"""The story of a training job, top to bottom."""

import logging
import platform
from importlib.metadata import version

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from container import __version__, artifact
from container.channels import find_channels
from container.errors import UserError
from container.hyperparameters import Hyperparameters, parse_hyperparameters
from container.metrics import metric_text
from container.optml import OptML
from training.data import Dataset, load_datasets, measure_scaling
from training.devices import Placement, choose_placement
from training.export import export_graph, export_weights
from training.loop import Loop, TensorSet
from training.model import LSTMFCN, Classifier, Scaler
from training.stop import StopSignal

logger = logging.getLogger(__name__)

CHECKED_ROWS = 512  # series on which the exported graph is compared with torch
SCALING_BLOCK = 4096  # series scaled at once, which bounds the memory for it


def run(optml: OptML, stop: StopSignal) -> None:
    """Train the model that the job below `optml.root` describes, and write it to its model folder.

    Raises:
        UserError: settings, data or folders that the user can mend.
        AlgorithmError: the exported graph does not agree with the trained network.
    """
    logger.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    settings = parse_hyperparameters(optml.hyperparameters())
    if len(optml.hosts()) > 1:
        raise UserError(f"The job has {len(optml.hosts())} machines, but one machine is all that is supported.")
    channels = find_channels(optml)
    artifact.check_writable(optml.model)
    placement = choose_placement(settings.precision)
    logger.info("hyperparameters: %s", _describe(settings))

    training, validation, classes = load_datasets(channels)
    logger.info("classes: %s", _count_classes(training, classes))
    torch.manual_seed(settings.seed)
    scaling = measure_scaling(training.series, settings.scaling)
    scaler = Scaler(scaling)
    network = _make_network(settings, training.length, len(classes)).to(placement.device)
    loop = Loop(
        network,
        _to_tensors(training, "training", scaler, placement),
        _to_tensors(validation, "validation", scaler, placement) if validation else None,
        _class_weights(settings, training.labels).to(placement.device),
        settings,
        placement,
        stop,
    )
    fitted = loop.fit()

    classifier = Classifier(scaler, network.cpu()).eval()
    graph = export_graph(classifier, training.series[:CHECKED_ROWS])
    metadata = artifact.Metadata(
        classes=classes,
        length=training.length,
        scaling=scaling,
        hyperparameters=settings.model_dump(by_alias=True),
        metrics=fitted.metrics,
        versions=versions(),
    )
    artifact.save(optml.model, metadata, graph, export_weights(classifier))
    logger.info("model: %s", optml.model)
    logger.info("saved: epoch %d, %s", fitted.epoch, metric_text(fitted.metrics))


def versions() -> dict[str, str]:
    """The versions of what made the model."""
    packages = {name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime")}
    return {"lstm-fcn": __version__, "python": platform.python_version(), **packages}


def _make_network(settings: Hyperparameters, length: int, num_classes: int) -> LSTMFCN:
    return LSTMFCN(
        length,
        num_classes,
        num_layers=settings.num_layers,
        hidden_size=settings.hidden_size,
        dropout=settings.dropout,
        filters=(settings.filters_1, settings.filters_2, settings.filters_3),
        kernel_sizes=(settings.kernel_size_1, settings.kernel_size_2, settings.kernel_size_3),
    )


def _to_tensors(dataset: Dataset, name: str, scaler: Scaler, placement: Placement) -> TensorSet:
    """The data set scaled to float32, on the device."""
    blocks = [
        scaler(torch.from_numpy(dataset.series[start : start + SCALING_BLOCK]))
        for start in range(0, len(dataset), SCALING_BLOCK)
    ]
    series = torch.cat(blocks)
    if not bool(torch.isfinite(series).all()):
        raise UserError(
            f"The {name} data has values too large for float32 after scaling; divide them by a constant first."
        )
    return TensorSet(series.to(placement.device), torch.from_numpy(dataset.labels).to(placement.device))


def _class_weights(settings: Hyperparameters, labels: np.ndarray) -> Tensor:
    classes = np.unique(labels)
    balanced = "balanced" if settings.class_weight == "balanced" else None
    weights = compute_class_weight(balanced, classes=classes, y=labels)
    return torch.from_numpy(weights).float()


def _describe(settings: Hyperparameters) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.model_dump(by_alias=True).items())


def _count_classes(training: Dataset, classes: list[str], limit: int = 20) -> str:
    counts = np.bincount(training.labels, minlength=len(classes))
    text = ", ".join(f"{label!r}: {count}" for label, count in list(zip(classes, counts, strict=True))[:limit])
    return text if len(classes) <= limit else f"{text} and {len(classes) - limit} more"
