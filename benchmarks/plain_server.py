"""An endpoint as tutorials for one's own container write it: the peer of `benchmarks.serving`.

Flask, pandas and torch below gunicorn's sync workers. The network is the artifact's, as `training.model` has it, which
is faster than the layers of a tutorial: what is compared is the way of serving it.

    SAGEMAKER_BASE_DIR=... python -m gunicorn --workers 2 "benchmarks.plain_server:application()"
"""

import io
from pathlib import Path

import pandas as pd
import torch
from flask import Flask, Response, request
from safetensors.torch import load_file
from torch import nn

from container import artifact
from container.hyperparameters import parse_hyperparameters
from container.optml import OptML
from training.model import LSTMFCN, Scaler


def application() -> Flask:
    """The application of the model below SAGEMAKER_BASE_DIR."""
    folder = OptML.from_environment().model
    metadata, _ = artifact.load(folder)
    network = load_network(folder, metadata)
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200)

    @app.post("/invocations")
    def invocations() -> Response:
        series = pd.read_csv(io.StringIO(request.get_data().decode("utf-8")), header=None)
        with torch.no_grad():
            logits = network(torch.from_numpy(series.to_numpy()).unsqueeze(1))
        labels = [metadata.classes[k] for k in logits.argmax(dim=1).tolist()]
        text = io.StringIO()
        pd.DataFrame({"label": labels}).to_csv(text, header=False, index=False)
        return Response(text.getvalue(), status=200, mimetype="text/csv")

    return app


def load_network(folder: Path, metadata: artifact.Metadata) -> nn.Module:
    """From raw series, float64 `[B, 1, T]`, to logits; float32, in evaluation mode."""
    settings = parse_hyperparameters(metadata.hyperparameters)
    network = LSTMFCN(
        metadata.length,
        len(metadata.classes),
        num_layers=settings.num_layers,
        hidden_size=settings.hidden_size,
        dropout=settings.dropout,
        filters=(settings.filters_1, settings.filters_2, settings.filters_3),
        kernel_sizes=(settings.kernel_size_1, settings.kernel_size_2, settings.kernel_size_3),
    )
    weights = load_file(folder / artifact.WEIGHTS)
    network.load_state_dict({name.removeprefix("network."): weights[name] for name in weights if "network." in name})
    return nn.Sequential(Scaler(metadata.scaling), network).eval()
