"""An endpoint as in tutorials on custom containers, for comparison in `benchmarks.serving`.

Flask, pandas and torch with gunicorn's sync workers. The network is this project's, which is faster than the layers of
a tutorial, so that only the ways of serving it are compared.

    SAGEMAKER_BASE_DIR=... python -m gunicorn --workers 2 "lstm_fcn.benchmarks.plain_server:application()"
"""

import io

import pandas as pd
import torch
from flask import Flask, Response, request
from torch import nn

from lstm_fcn.container.optml import OptML
from lstm_fcn.training.explain import load_classifier


def application() -> Flask:
    """The WSGI application for the model in SAGEMAKER_BASE_DIR."""
    metadata, classifier = load_classifier(OptML.from_environment().model)
    network = nn.Sequential(classifier.scaler, classifier.network).eval()
    app = Flask(__name__)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200)

    @app.post("/invocations")
    def invocations() -> Response:
        series = pd.read_csv(io.StringIO(request.get_data().decode("utf-8")), header=None)
        with torch.no_grad():
            logits = network(torch.from_numpy(series.to_numpy()).unsqueeze(1))
        labels = [metadata.problem.classes[k] for k in logits.argmax(dim=1).tolist()]
        text = io.StringIO()
        pd.DataFrame({"label": labels}).to_csv(text, header=False, index=False)
        return Response(text.getvalue(), status=200, mimetype="text/csv")

    return app
