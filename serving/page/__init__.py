"""The web page for trying a model: one self-contained HTML document, and the headers that restrict what it may do.

The style sheet and the scripts are separate files, so that they can be linted; they are inserted into the page once,
when the server starts.
"""

import base64
import hashlib
import json
import re
from importlib.resources import files

import jinja2
from markupsafe import Markup

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_reader import describe_length
from lstm_fcn.container.moments import has_timestamps

# In the order in which they depend on each other.
SCRIPTS = (
    *("model.js", "text.js", "csv.js", "requests.js", "plot.js", "results.js", "predict.js", "recordings.js"),
    "main.js",
)
IMPORT_OR_EXPORT = re.compile(r"^import .*?;\n|^export ", re.MULTILINE | re.DOTALL)
NO_EXPLANATION = "This network has no convolutions and therefore no class activation map."


def render(metadata: Metadata, max_body: int) -> tuple[str, dict[str, str]]:
    """Render the page for a model.

    The browser runs only this style sheet and this script, and connects to this server only, so that labels can do no
    harm.

    Args:
        metadata: of the model.
        max_body: maximum size of a request in bytes.

    Returns:
        the HTML document, and the headers to send with it.
    """
    style = f"\n{_read('page.css')}"
    script = f'\n"use strict";\n{"".join(map(_read_script, SCRIPTS))}'
    # Within a script element, `<` could end the element; in JSON it may be written as an escape.
    facts = json.dumps(_facts(metadata, max_body)).replace("<", r"\u003c")
    template = jinja2.Template(_read("page.html"), autoescape=True, undefined=jinja2.StrictUndefined)
    html = template.render(style=Markup(style), script=Markup(script), model=Markup(facts))  # noqa: S704
    return html, _headers(style, script)


def _facts(metadata: Metadata, max_body: int) -> dict[str, object]:
    """What the scripts know about the model."""
    problem = metadata.problem
    return {
        "task": problem.task,
        "classes": problem.classes,
        "columns": problem.columns.series if problem.has_header else None,
        "variables": problem.num_variables,
        "length": problem.length,
        "takes": describe_length(problem.length, problem.num_variables, problem.preprocessing),
        "length_policy": problem.preprocessing.length_policy,
        "missing_values": problem.preprocessing.missing_values,
        "recording": _recording(metadata),
        "explains": metadata.explains,
        "no_explanation": NO_EXPLANATION,
        "version": metadata.versions.get("lstm-fcn", ""),
        "max_body": max_body,
    }


def _recording(metadata: Metadata) -> dict[str, object] | None:
    """The columns of recordings; None if the model was not trained with any."""
    preparation = metadata.problem.preparation
    if preparation is None:
        return None
    names = preparation.model_dump(include={"id", "time", "values"})
    return names | {"timestamps": has_timestamps(preparation)}


def _headers(style: str, script: str) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(map(" ".join, policy.items())),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",  # another server on this port may have another model
    }


def _hash(content: str) -> str:
    """The source expression by which a policy allows exactly this inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _read_script(name: str) -> str:
    """A module as a part of the one script of the page, without its imports and exports."""
    return IMPORT_OR_EXPORT.sub("", _read(name))
