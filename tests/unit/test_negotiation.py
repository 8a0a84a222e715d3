import pytest
from werkzeug.exceptions import NotAcceptable, UnsupportedMediaType

from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, NPY, OUTPUTS, parse_outputs
from lstm_fcn.serving.encode import ResponseFormat
from lstm_fcn.serving.negotiation import choose_format, request_type

DEFAULT = ResponseFormat(CSV, ("probability",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", CSV),
        ("TEXT/CSV; charset=utf-8", CSV),
        ("text/csv;label_size=0", CSV),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        (" application/jsonlines", JSON_LINES),
        ("application/x-npy", NPY),
    ],
)
def test_request_type(text: str, expected: str) -> None:
    assert request_type(text) == expected


@pytest.mark.parametrize("text", ["text/plain", "csv", "application/xml", ";", "a/b/c"])
def test_other_request_types_are_refused_by_name(text: str) -> None:
    if text == ";":  # parameters of nothing
        assert request_type(text) == CSV
        return
    with pytest.raises(UnsupportedMediaType) as caught:
        request_type(text)
    assert caught.value.description == (
        f"Content-Type {text} is not supported; send text/csv, application/json, application/jsonlines or "
        "application/x-npy."
    )


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", CSV),
        (" ", CSV),
        ("*/*", CSV),
        ("text/*", CSV),
        ("application/*", JSON),
        ("Application/JSON", JSON),
        ("application/json, text/csv;q=0.5", JSON),
        ("application/json;q=0.5, text/csv", CSV),
        ("image/png, application/jsonlines; charset=utf-8", JSON_LINES),
        ("application/json;q=0, */*;q=0.1", CSV),
        ("application/x-npy, text/csv;q=0.1", CSV),  # supported for requests only
    ],
)
def test_the_best_of_what_is_accepted(accept: str, expected: str) -> None:
    assert choose_format(accept, DEFAULT) == ResponseFormat(expected, ("probability",))


def test_where_the_choice_is_left_it_is_the_default() -> None:
    default = ResponseFormat(JSON_LINES)
    assert choose_format("*/*", default) == choose_format("application/*", default) == default
    assert choose_format("text/*", default) == ResponseFormat(CSV)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/csv; output=explanation", ResponseFormat(CSV, ("explanation",))),
        (
            'text/csv;output="predicted_label, Probabilities";header=Present',
            ResponseFormat(CSV, OUTPUTS[:1] + OUTPUTS[2:3], True),
        ),
        ("*/*; header=absent", ResponseFormat(CSV, ("probability",), False)),
        ("application/json; header=present", ResponseFormat(JSON, ("probability",))),
        ("application/json; output=probability; q=0.1", ResponseFormat(JSON, ("probability",))),
    ],
)
def test_a_range_may_say_what_is_wanted(accept: str, expected: ResponseFormat) -> None:
    assert choose_format(accept, DEFAULT) == expected


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("image/*", "Accept image/* is not supported; predictions are available as text/csv, application/json or "),
        ("text/csv;q=0", "Accept text/csv;q=0 is not supported"),
        ("nonsense", "Accept contains 'nonsense', which is not a media type"),
        ("text/csv; output=probability,explanation", 'Quote several outputs: text/csv; output="'),
        (
            "text/csv; output=label",
            "output=label is not supported: 'label' is not an output; supported: predicted_la",
        ),
        ("text/csv; header=yes", "header=yes must be present or absent"),
    ],
)
def test_what_cannot_be_met(accept: str, message: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose_format(accept, DEFAULT)
    assert message in (caught.value.description or "")


def test_outputs_keep_their_order() -> None:
    assert parse_outputs("explanation,predicted_label") == ("explanation", "predicted_label")


@pytest.mark.parametrize(
    ("media_type", "expected"), [(CSV, "text/csv; charset=utf-8"), (JSON, JSON), (JSON_LINES, JSON_LINES)]
)
def test_content_type(media_type: str, expected: str) -> None:
    assert ResponseFormat(media_type).content_type == expected
