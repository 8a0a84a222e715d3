"""The page on which a person tries the model: one HTML document that needs nothing else, and what it may do."""

import base64
import hashlib
import json
import re
from pathlib import Path

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_reader import describe_length

TEMPLATE = Path(__file__).with_name("page.html")
MODEL = "{{ model }}"  # where the template has what the page knows of the model
NO_CONVOLUTIONS = "This network has no convolutions, and so no class activation map."
EARLIER_RELEASE = "The model is of an earlier release and has no class activation map; train it anew to have one."


def render(metadata: Metadata, max_body: int) -> tuple[str, dict[str, str]]:
    """The page for a model, and the headers to send with it.

    The browser runs this style and this script and nothing else, and asks nobody but this server, so that a label
    can do no harm whatever it is.

    Args:
        metadata: of the model.
        max_body: bytes of a request, at most.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    facts = {
        "task": metadata.problem.task,
        "classes": metadata.problem.classes,
        "columns": metadata.problem.columns,
        "variables": metadata.problem.num_variables,
        "length": metadata.problem.length,
        "takes": describe_length(
            metadata.problem.length, metadata.problem.num_variables, metadata.problem.preprocessing
        ),
        "length_policy": metadata.problem.preprocessing.length_policy,
        "missing_values": metadata.problem.preprocessing.missing_values,
        "explains": metadata.explains,
        "no_explanation": EARLIER_RELEASE if metadata.schema_version == 1 else NO_CONVOLUTIONS,
        "version": metadata.versions.get("lstm-fcn", ""),
        "max_body": max_body,
    }
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of("script", template),
        "style-src": _hash_of("style", template),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(map(" ".join, policy.items())),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # the next server on this port may have another model
    }
    return template.replace(MODEL, json.dumps(facts).replace("<", r"\u003c")), headers


def _hash_of(tag: str, template: str) -> str:
    """The one element of this kind that is not data, as a policy names it."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
