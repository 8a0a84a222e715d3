"""The paths of an endpoint with many models (S34)."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest, NotFound

from lstm_fcn.serving.models import ManyModels
from lstm_fcn.serving.registry import Registry

PAGE = 1000  # names in one response


def add_routes(app: Flask, models: ManyModels, invoke: Callable[[str], Response]) -> None:
    """Add the paths; `invoke` answers a request for the predictions of a model."""
    registry = models.registry

    @app.post("/models")
    def load() -> Response:
        """Register a model and read it into memory: 409 if there is one of this name, 507 if it does not fit."""
        name, folder = _read_request()
        registry.add(name, folder)
        try:
            models.get(name)
        except Exception as error:
            registry.remove(name)
            if isinstance(error, NotFound):
                raise BadRequest(f"{folder} holds no model.") from error
            raise
        return jsonify(_describe(registry, name))

    @app.get("/models")
    def list_models() -> Response:
        return jsonify(_list(registry, request.args.get("next_page_token", "")))

    @app.get("/models/<name>")
    def show(name: str) -> Response:
        return jsonify(_describe(registry, name))

    @app.delete("/models/<name>")
    def unload(name: str) -> Response:
        registry.remove(name)
        models.forget(name)
        return Response(status=200)

    app.add_url_rule("/models/<name>/invoke", "invoke", invoke, methods=["POST"])


def _read_request() -> tuple[str, Path]:
    """Name and folder of the model to load."""
    content = request.get_json(force=True, silent=True, cache=False)
    keys = ("model_name", "url")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in keys):
        raise BadRequest('The request must be {"model_name": "NAME", "url": "FOLDER"}.')
    return content["model_name"], Path(content["url"])


def _list(registry: Registry, token: str) -> dict[str, Any]:
    """A page of models, in the order of their names, after the name `token`."""
    names = [name for name in registry.names() if name > token]
    models = []
    for name in names[:PAGE]:
        with contextlib.suppress(NotFound):  # deleted meanwhile
            models.append(_describe(registry, name))
    return {"models": models} | ({"nextPageToken": names[PAGE - 1]} if len(names) > PAGE else {})


def _describe(registry: Registry, name: str) -> dict[str, str]:
    return {"modelName": name, "modelUrl": str(registry.find(name).folder)}
