"""Requests for predictions in SageMaker's form: formats by header, series or recordings in, predictions out."""

from flask import Response, request

from lstm_fcn.container.media_types import CSV, RESPONSE_TYPES
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.encode import ResponseFormat
from lstm_fcn.serving.models import LoadedModel
from lstm_fcn.serving.negotiation import choose_format, request_type
from lstm_fcn.serving.predictor import Predictions
from lstm_fcn.serving.recordings import decode_recordings
from lstm_fcn.serving.settings import Settings


class Invocation:
    """A request to `/invocations`, or to `/models/NAME/invoke`."""

    def __init__(self, settings: Settings, body: bytes, model: LoadedModel) -> None:
        """Decode the body of the current request.

        Raises:
            UserError: it is invalid, or the model has not what it wants.
            UnsupportedMediaType, NotAcceptable: for other formats.
        """
        media_type = request_type(request.headers.get("Content-Type", ""))
        same = media_type if media_type in RESPONSE_TYPES else CSV
        usual = ResponseFormat(settings.response_type or same, settings.outputs)
        self._format = choose_format(request.headers.get("Accept", ""), usual)
        self._model, self._joins = model, settings.batch
        model.encoder.outputs(self._format)
        metadata = model.predictor.metadata
        self._recordings = decode_recordings(body, media_type, metadata)
        self.series = self._recordings.series if self._recordings else [decode(body, media_type, metadata)]

    def respond(self, predictions: Predictions) -> Response:
        """The predictions in the format that the request wants."""
        places = self._recordings.places(self._model.predictor.metadata) if self._recordings else None
        text = self._model.encoder.encode(predictions, self._format, places)
        # A batch transform job concatenates the responses; otherwise a last newline is noise (S31).
        text = text if self._joins else text.removesuffix("\n")
        return Response(text, content_type=self._format.content_type)
