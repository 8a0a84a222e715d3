"""What a request holds and what its reply shall hold, by their headers and the endpoint's settings (S16 to S19)."""

from dataclasses import dataclass, replace

from werkzeug.datastructures import Accept
from werkzeug.exceptions import NotAcceptable, UnsupportedMediaType
from werkzeug.http import parse_accept_header, parse_options_header

from lstm_fcn.container.media_types import CSV, OUTPUTS, REQUEST_TYPES, RESPONSE_TYPES, parse_outputs


@dataclass(frozen=True)
class Reply:
    """How predictions are written.

    outputs: some of `OUTPUTS`, in the order in which they are written; empty: those that suit the model.
    header: whether CSV starts with a line of names; None: if the model's training data had one.
    """

    media_type: str
    outputs: tuple[str, ...] = ()
    header: bool | None = None

    @property
    def content_type(self) -> str:
        return f"{CSV}; charset=utf-8" if self.media_type == CSV else self.media_type


def request_type(content_type: str) -> str:
    """The media type of a request, one of `REQUEST_TYPES`; CSV if it names none.

    Raises:
        UnsupportedMediaType: it is none of them.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("", CSV):
        return CSV
    if media_type not in REQUEST_TYPES:
        raise UnsupportedMediaType(f"Content-Type {media_type} is not supported; send {_either(REQUEST_TYPES)}.")
    return media_type


def choose_reply(accept: str, default: Reply) -> Reply:
    """The reply that an `Accept` header likes best among those there are; `default` if it leaves the choice.

    A range of media types may say more: `text/csv; output="predicted_label,probability"; header=present`.

    Raises:
        NotAcceptable: there is none, or a parameter has a value that is not known.
    """
    if not accept.strip():
        return default
    ranges: Accept = parse_accept_header(accept)
    for value, _ in ranges:
        if "/" not in value.partition(";")[0]:
            raise NotAcceptable(
                f"Accept has {value!r}, which is no media type; several outputs are put in quotes: "
                f'{CSV}; output="{OUTPUTS[0]},{OUTPUTS[1]}".'
            )
    for value, quality in ranges:  # best first
        media_range, parameters = parse_options_header(value)
        media_type = _match(media_range.lower(), default.media_type)
        if quality > 0 and media_type:
            return _refine(replace(default, media_type=media_type), parameters)
    raise NotAcceptable(f"Accept {accept} cannot be met; predictions come as {_either(RESPONSE_TYPES)}.")


def _match(media_range: str, preferred: str) -> str | None:
    """The reply type that a range means; where it leaves the choice, the preferred one."""
    if media_range == "*/*":
        return preferred
    if media_range.endswith("/*"):
        group = media_range.removesuffix("*")
        candidates = [name for name in (preferred, *RESPONSE_TYPES) if name.startswith(group)]
        return candidates[0] if candidates else None
    return media_range if media_range in RESPONSE_TYPES else None


def _refine(reply: Reply, parameters: dict[str, str]) -> Reply:
    """Other parameters, such as `charset`, do not matter."""
    if "output" in parameters:
        try:
            reply = replace(reply, outputs=parse_outputs(parameters["output"]))
        except ValueError as error:
            raise NotAcceptable(f"Accept: output={parameters['output']} cannot be met: {error}.") from error
    if "header" in parameters and reply.media_type == CSV:
        header = parameters["header"].lower()
        if header not in ("present", "absent"):
            raise NotAcceptable(f"Accept: header={header} must be present or absent.")
        reply = replace(reply, header=header == "present")
    return reply


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
