"""The page for trying a model, without a browser: when it is served, what it contains and what it may do."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_header import HEADERLESS
from lstm_fcn.container.errors import UserError
from lstm_fcn.serving import page
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.page import SCRIPTS, render
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import MEBIBYTE, Settings

MODEL = Path(__file__).parents[1] / "golden" / "v1" / "model"
FOLDER = Path(page.__file__).parent


def make_client(**environment: str) -> FlaskClient:
    return create_app(
        OneModel(Predictor(*artifact.load(MODEL), threads=1)), Settings.from_environment(environment)
    ).test_client()


def load_metadata(**problem: object) -> Metadata:
    metadata = Metadata.model_validate_json((MODEL / "model.json").read_bytes())
    return metadata.model_copy(update={"problem": metadata.problem.model_copy(update=problem)})


def facts_in(html: str) -> dict[str, Any]:
    """What the page says of the model, as a browser finds it."""
    (text,) = re.findall('<script id="model" type="application/json">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def policy_of(headers: dict[str, str]) -> dict[str, str]:
    parts = (part.partition(" ") for part in headers["Content-Security-Policy"].split("; "))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize("environment", [{}, {"LSTM_FCN_PAGE": "false"}, {"LSTM_FCN_PAGE": ""}])
def test_without_being_asked_for_it_is_not_there(environment: dict[str, str]) -> None:
    reply = make_client(**environment).get("/")
    assert reply.status_code == 404
    assert "; supported: GET /execution-parameters, " in reply.text


def test_it_is_there_when_asked_for() -> None:
    client = make_client(LSTM_FCN_PAGE="True")
    reply = client.get("/")
    assert (reply.status_code, reply.content_type) == (200, "text/html; charset=utf-8")
    assert reply.text.startswith("<!DOCTYPE html>")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/ping").status_code == 200
    assert client.post("/").status_code == 405
    assert "supported: GET /, GET /execution-parameters, " in client.get("/page.html").text


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(UserError, match="LSTM_FCN_PAGE=yes must be true or false"):
        Settings.from_environment({"LSTM_FCN_PAGE": "yes"})


def test_the_browser_runs_this_script_and_style_only() -> None:
    html, headers = render(load_metadata(), MEBIBYTE)
    policy = policy_of(headers)
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_it_needs_nothing_else() -> None:
    html, _ = render(load_metadata(), MEBIBYTE)
    assert re.findall(r"[a-z]+://[^\"']*", html) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", html) == ["data:,"]
    assert not re.findall(r"@import|url\(|\sstyle=|\son[a-z]+=|innerHTML|eval\(", html)


def test_the_scripts_know_the_model() -> None:
    facts = facts_in(render(load_metadata(), MEBIBYTE)[0])
    assert facts == {
        "task": "multiclass",
        "classes": ["y_rises", "y_falls", "y_stays"],
        "columns": [f"x_{variable}_{k}" for variable in ("speed", "height") for k in range(16)],
        "variables": 2,
        "length": 16,
        "takes": "series of 2 variables with up to 16 values each",
        "length_policy": "pad",
        "missing_values": "interpolate",
        "recording": None,
        "explains": True,
        "no_explanation": "This network has no convolutions and therefore no class activation map.",
        "version": facts["version"],
        "max_body": MEBIBYTE,
    }
    headerless = load_metadata(columns=HEADERLESS).model_copy(update={"explains": False})
    facts = facts_in(render(headerless, MEBIBYTE)[0])
    assert (facts["columns"], facts["explains"]) == (None, False)


def test_every_script_is_in_the_page_after_the_scripts_it_imports() -> None:
    assert sorted(SCRIPTS) == sorted(path.name for path in FOLDER.glob("*.js"))
    for place, name in enumerate(SCRIPTS):
        imported = re.findall(r'^(?:import|\}) .*from "\./(.*)";$', (FOLDER / name).read_text(), re.MULTILINE)
        assert set(imported) <= set(SCRIPTS[:place])
    html, _ = render(load_metadata(), MEBIBYTE)
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    assert not re.findall(r"^(?:import|export)\b", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|class) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)) > 50  # modules have separate names, the one script has not


@pytest.mark.parametrize(
    "label",
    ["</script><script>alert(1)</script>", "<!--<script>", "{{ model }}", '"\\"', "\u2028", "a\nb", "<img src=x>"],
)
def test_a_label_stays_a_label(label: str) -> None:
    plain, headers = render(load_metadata(classes=("a", "b", "c")), MEBIBYTE)
    html, same_headers = render(load_metadata(classes=(label, "b", "c")), MEBIBYTE)
    assert facts_in(html)["classes"] == [label, "b", "c"]
    assert html.count("<") == plain.count("<")
    assert headers == same_headers
