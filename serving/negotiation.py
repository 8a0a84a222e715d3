"""Content negotiation: the media type of a request and the format of its response (S16 to S19)."""

from dataclasses import replace
from functools import lru_cache

from werkzeug.datastructures import Accept
from werkzeug.exceptions import NotAcceptable, UnsupportedMediaType
from werkzeug.http import parse_accept_header, parse_options_header

from lstm_fcn.container.media_types import CSV, OUTPUTS, REQUEST_TYPES, RESPONSE_TYPES, parse_outputs
from lstm_fcn.serving.encode import ResponseFormat


def request_type(content_type: str) -> str:
    """The media type of a request, one of `REQUEST_TYPES`; CSV if the header is empty.

    Raises:
        UnsupportedMediaType: for every other type.
    """
    media_type = content_type.partition(";")[0].strip().lower() or CSV
    if media_type not in REQUEST_TYPES:
        raise UnsupportedMediaType(f"Content-Type {media_type} is not supported; send {_either(REQUEST_TYPES)}.")
    return media_type


@lru_cache(maxsize=256)
def choose_format(accept: str, default: ResponseFormat) -> ResponseFormat:
    """The supported format that an `Accept` header ranks highest; `default` for `*/*` or an empty header.

    A media range can have parameters: `text/csv; output="predicted_label,probability"; header=present`.

    Raises:
        NotAcceptable: no format matches, or a parameter has an unknown value.
    """
    if not accept.strip():
        return default
    ranges: Accept = parse_accept_header(accept)
    for value, _ in ranges:
        if "/" not in value.partition(";")[0]:
            raise NotAcceptable(
                f"Accept contains {value!r}, which is not a media type. Quote several outputs: "
                f'{CSV}; output="{OUTPUTS[0]},{OUTPUTS[1]}".'
            )
    for value, quality in ranges:  # best first
        media_range, parameters = parse_options_header(value)
        media_type = _match(media_range.lower(), default.media_type)
        if quality > 0 and media_type:
            return _apply_parameters(replace(default, media_type=media_type), parameters)
    raise NotAcceptable(f"Accept {accept} is not supported; predictions are available as {_either(RESPONSE_TYPES)}.")


def _match(media_range: str, preferred: str) -> str | None:
    """The response type that a media range selects; the preferred one if it allows several."""
    if media_range == "*/*":
        return preferred
    if media_range.endswith("/*"):
        group = media_range.removesuffix("*")
        candidates = [name for name in (preferred, *RESPONSE_TYPES) if name.startswith(group)]
        return candidates[0] if candidates else None
    return media_range if media_range in RESPONSE_TYPES else None


def _apply_parameters(chosen: ResponseFormat, parameters: dict[str, str]) -> ResponseFormat:
    """Apply `output` and `header`; other parameters, such as `charset`, are ignored."""
    if "output" in parameters:
        try:
            chosen = replace(chosen, outputs=parse_outputs(parameters["output"]))
        except ValueError as error:
            raise NotAcceptable(f"Accept: output={parameters['output']} is not supported: {error}.") from error
    if "header" in parameters and chosen.media_type == CSV:
        header = parameters["header"].lower()
        if header not in ("present", "absent"):
            raise NotAcceptable(f"Accept: header={header} must be present or absent.")
        chosen = replace(chosen, header=header == "present")
    return chosen


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
