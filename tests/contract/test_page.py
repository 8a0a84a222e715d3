"""The page for trying a model, in a real browser."""

import csv
import io
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import numpy as np
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect, sync_playwright
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from lstm_fcn.container import artifact
from lstm_fcn.container.csv_header import Columns
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.recording import SECOND, Preparation
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.page import NO_EXPLANATION
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import CLASSES, save_model_of_ramps, save_model_of_recordings
from tests.programs import labelled_csv, without_labels

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("page")]

PREDICTIONS = 'text/csv; output="predicted_label,probabilities"; header=present'
HOSTILE = "<img src=x onerror=alert(1)>"
QUOTED = 'a, "b"'
STEPS = 16
PLAIN = without_labels(labelled_csv(8, STEPS))
TARGETS = ("y_rises", "y_falls", "y_high")
RECORDINGS = Preparation(id="machine", time="second", unit="s", values=("v",), every=SECOND, window=STEPS, stride=4)
TIMEOUT = 60_000  # milliseconds: the machine may be busy with other tests
SETTINGS = {"LSTM_FCN_PAGE": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}


@dataclass(frozen=True)
class Site:
    """The application behind a server, and without one."""

    url: str
    client: FlaskClient

    def invoke(self, text: str, accept: str = PREDICTIONS) -> TestResponse:
        return self.client.post("/invocations", data=text, headers={"Content-Type": "text/csv", "Accept": accept})


expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sites(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """`plain`: no explanation. `header`: independent classes, missing values. `two`: two variables, strange labels."""
    del browser  # nothing is started if there is none
    root = tmp_path_factory.mktemp("models")
    lenient = Preprocessing(missing_values="interpolate", length_policy="pad")
    filling = Preprocessing(missing_values="interpolate", length_policy="error")
    columns = Columns(TARGETS, tuple(f"x{k}" for k in range(STEPS)))
    models = [
        save_model_of_ramps(root / "plain", ("up", 'not "down"'), explains=False),
        save_model_of_ramps(root / "header", TARGETS, task="multilabel", columns=columns, preprocessing=filling),
        save_model_of_ramps(root / "two", (HOSTILE, QUOTED), variables=2, preprocessing=lenient),
        save_model_of_recordings(root / "recordings", RECORDINGS),
    ]
    servers, sites = [], {}
    for model in models:
        app = create_app(OneModel(Predictor(*artifact.load(model), threads=1)), Settings.from_environment(SETTINGS))
        server = make_server("127.0.0.1", 0, with_bounded_input(app.wsgi_app), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        sites[model.name] = Site(f"http://127.0.0.1:{server.port}/", app.test_client())
    yield sites
    for server in servers:
        server.shutdown()
        server.server_close()


def with_bounded_input(app: WSGIApplication) -> WSGIApplication:
    """The application reads its input to the end, which gunicorn bounds by the length of the body."""

    def bounded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        return app(environ, start_response)

    return bounded


def series_csv(count: int, missing: bool = False) -> str:
    """A header and `count` series that rise, fall and do neither in turn."""
    rng = np.random.default_rng(0)
    directions = np.array([1.0, -1.0, 0.0])[np.arange(count) % 3, np.newaxis]
    values = np.char.mod("%.4f", directions * np.linspace(-1, 1, STEPS) + rng.normal(scale=0.05, size=(count, STEPS)))
    if missing:
        values[2, [3, 4, 9]] = ""
    return "\n".join([",".join(f"x{k}" for k in range(STEPS)), *map(",".join, values.tolist())]) + "\n"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that has had no failure in the end, and has asked one server only."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    failures: list[str] = []
    hosts: set[str] = set()

    def note(request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            hosts.add(request.url.split("/")[2])

    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.append(message.text))
    page.on("request", note)
    yield page
    context.close()
    # A browser notes by itself that the server has refused something.
    assert [text for text in failures if not text.startswith("Failed to load resource")] == []
    assert len(hosts) == 1


def labelled(rows: int, seed: int = 0) -> str:
    return labelled_csv(rows, 2 * STEPS, (HOSTILE, '"a, ""b"""'), seed)


def unlabelled(rows: int, seed: int = 0) -> str:
    lines = csv.reader(io.StringIO(labelled(rows, seed)))
    return "".join(",".join(cells[1:]) + "\n" for cells in lines)


def drop(page: Page, text: str | bytes, name: str = "series.csv") -> None:
    """Drop a file on the page."""
    data = text.encode() if isinstance(text, str) else text
    script = """([bytes, name]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], name));
        return transfer;
    }"""
    transfer = page.evaluate_handle(script, [list(data), name])
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def choose(page: Page, text: str, name: str = "series.csv") -> None:
    payload: FilePayload = {"name": name, "mimeType": "text/csv", "buffer": text.encode()}
    page.set_input_files("#file", payload)


def download(page: Page, folder: Path) -> bytes:
    expect(page.locator("#download")).to_be_enabled()
    with page.expect_download() as found:
        page.click("#download")
    assert found.value.suggested_filename == "predictions.csv"
    path = folder / "predictions.csv"
    found.value.save_as(path)
    return path.read_bytes()


def table(page: Page) -> list[list[str]]:
    rows: list[list[str]] = page.eval_on_selector_all(
        "#table tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def test_a_dropped_file(page: Page, sites: dict[str, Site], tmp_path: Path) -> None:
    text = unlabelled(30, seed=1)
    page.goto(sites["two"].url)
    expect(page.locator("#facts")).to_contain_text("series of 2 variables with up to 16 values each")
    expect(page.locator("#results")).to_be_hidden()
    drop(page, text)
    expect(page.locator("#summary")).to_have_text("series.csv: 30 series.")
    expected = sites["two"].invoke(text)
    lines = list(csv.reader(io.StringIO(expected.text)))[1:]
    assert {line[0] for line in lines} == {HOSTILE, QUOTED}
    highest = [f"{max(map(float, line[1:])):.3f}" for line in lines]
    rows = [[str(k + 1), lines[k][0], highest[k]] for k in range(12)]
    expect(page.locator("#table tr")).to_have_count(12)
    assert table(page) == rows
    expect(page.locator("#title")).to_have_text(f"Series 1: predicted {lines[0][0]}, probability {highest[0]}")
    assert page.locator("#bars li .label").all_text_contents() == [HOSTILE, QUOTED]
    assert page.locator("#plot text").all_text_contents().count("variable 2") == 1
    expect(page.locator("#legend")).to_contain_text(f"evidence for {lines[0][0]}")
    strokes = page.eval_on_selector_all("#plot path", "paths => paths.map(path => getComputedStyle(path).stroke)")
    assert len(set(strokes)) > 5  # many colours
    assert page.locator("img").count() == 0
    assert download(page, tmp_path) == expected.data


def test_colours_are_those_of_the_explanation(page: Page, sites: dict[str, Site]) -> None:
    """Steps that speak against the class are as blue as those that speak for it are orange."""
    page.goto(sites["two"].url)
    choose(page, unlabelled(1))
    expect(page.locator("#plot svg")).to_be_visible()
    reply = sites["two"].invoke(unlabelled(1), "application/json; output=explanation")
    expected = json.loads(reply.text)["predictions"][0]["explanation"]
    assert page.evaluate("state.drawing.explanation") == expected
    assert page.evaluate("state.drawing.limit") == pytest.approx(
        np.sort(np.abs(expected))[int(0.98 * (len(expected) - 1))]
    )
    assert page.evaluate("[1, -1, 0].map(value => colour(shadeOf(value, 1)))") == [
        "color-mix(in srgb, var(--for) 100%, var(--for-some))",
        "color-mix(in srgb, var(--against) 100%, var(--against-some))",
        "color-mix(in srgb, var(--for-some) 0%, var(--neutral))",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n", "pasted rows, row 1 has 2 values, but the model takes series of 16 values."),
        (f"\n{'1,' * 15}1\n{'1,' * 6}x{',1' * 9}\n", "pasted rows, row 3, column 7 is 'x'; every value must be"),
        ("1;2;3", "its cells seem to be separated by semicolons instead of commas."),
        ("", "pasted rows contains no series."),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_lost(page: Page, sites: dict[str, Site], text: str, message: str) -> None:
    page.goto(sites["plain"].url)
    drop(page, PLAIN)
    expect(page.locator("#summary")).to_have_text("series.csv: 8 series.")
    page.fill("#rows", text)
    page.click("#paste button")
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.locator("#offer")).to_be_hidden()
    assert page.input_value("#rows") == text
    expect(page.locator("#table tr")).to_have_count(8)
    page.fill("#rows", "0.5," * 15 + "1")
    page.press("#rows", "Control+Enter")
    expect(page.locator("#summary")).to_have_text("pasted rows: 1 series.")
    expect(page.locator("#problem")).to_be_hidden()


def test_a_label_in_the_first_column_can_be_left_out(page: Page, sites: dict[str, Site], tmp_path: Path) -> None:
    page.goto(sites["two"].url)
    text = labelled(20, seed=2)
    choose(page, text, "train.csv")
    expect(page.locator("#message")).to_contain_text("train.csv, row 2, column 1 is 'a, \"b\"';")
    expect(page.locator("#offer")).to_contain_text(HOSTILE)
    page.focus("#retry")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("train.csv: 20 series; 20 predictions match the label (100 %).")
    expect(page.locator("#problem")).to_be_hidden()
    assert page.locator("#columns th").all_text_contents() == ["series", "predicted", "label", "probability"]
    assert [row[2] for row in table(page)] == [HOSTILE, QUOTED] * 6
    expect(page.locator("#results-title")).to_be_focused()
    assert download(page, tmp_path) == sites["two"].invoke(unlabelled(20, seed=2)).data


def test_labels_are_compared_and_cells_are_found_where_they_stand_in_the_file(
    page: Page, sites: dict[str, Site]
) -> None:
    rows = list(csv.reader(io.StringIO(labelled(4))))
    rows[0][0] = "other"
    page.goto(sites["two"].url)
    choose(page, csv_text(rows))
    page.click("#retry")
    expect(page.locator("#table tr").first).to_contain_text("\u2260 other")
    expect(page.locator("#title .mistake")).to_have_text("; labelled other")
    rows[2][5] = "x"
    choose(page, csv_text(rows))
    page.click("#retry")
    expect(page.locator("#message")).to_contain_text("series.csv, row 3, column 6 is 'x'")
    expect(page.locator("#offer")).to_be_hidden()


def test_targets_of_a_file_with_a_header_can_be_left_out(page: Page, sites: dict[str, Site]) -> None:
    text = series_csv(9)
    header, *lines = text.splitlines()
    reply = sites["header"].invoke(text, "text/csv; output=probabilities; header=absent").text
    probabilities = np.loadtxt(io.StringIO(reply), delimiter=",")
    right = [",".join(map(str, row)) for row in (probabilities > 0.5).astype(int)]
    text = "\n".join(
        [f"y_high,{header},y_rises,y_falls", *(f"{t[4:]},{v},{t[:3]}" for t, v in zip(right, lines, strict=True))]
    )
    page.goto(sites["header"].url)
    choose(page, text)
    expect(page.locator("#message")).to_contain_text("series.csv, row 1 has column 'y_high'")
    expect(page.locator("#labels")).to_have_text("These columns look like targets: y_high, y_rises, y_falls.")
    page.click("#retry")
    expect(page.locator("#summary")).to_have_text("series.csv: 9 series; 9 predictions match the label (100 %).")
    chosen = [" + ".join(np.array(TARGETS)[row > 0.5]) or "none" for row in probabilities]
    assert set(chosen) == {"y_rises", "y_falls", "none"}
    assert [row[1] for row in table(page)] == [row[2] for row in table(page)] == chosen
    choose(page, text.replace(lines[3], lines[3].replace(lines[3].split(",")[2], "x", 1)))
    page.click("#retry")
    expect(page.locator("#message")).to_contain_text("series.csv, row 5, column 4 is 'x'")


def test_a_large_file_goes_in_pieces(page: Page, sites: dict[str, Site], tmp_path: Path) -> None:
    """With a header that comes again, a byte order mark, CRLF and blank lines; the server takes 1 MiB at once."""
    header, *lines = series_csv(8, missing=True).splitlines()
    half = [header, *(lines * 1000)]
    text = "\ufeff" + "\r\n".join([*half, "", *half, ""])
    assert len(text) > 1_200_000
    assert sites["header"].invoke(text).status_code == 413
    page.goto(sites["header"].url)
    choose(page, text)
    expect(page.locator("#summary")).to_have_text("series.csv: 16,000 series.")
    assert page.evaluate("state.result.pieces.length") > 2
    expected = sites["header"].invoke("\n".join(half)).text
    assert download(page, tmp_path).decode() == expected + "\n" + expected.partition("\n")[2]
    page.fill("#number", "15995")
    page.press("#number", "Enter")
    rows = expected.split("\n")[1:]
    assert [row[0] for row in table(page)] == [f"{k:,}" for k in range(15985, 15997)]
    assert [row[2] for row in table(page)] == [f"{max(map(float, row.split(',')[3:])):.3f}" for row in rows[-16:-4]]
    assert page.evaluate("state.drawing.values.map(values => [...values].map(value => isNaN(value) ? '' : value))") == [
        [float(cell) if cell else "" for cell in lines[2].split(",")]
    ]
    choose(page, text + header + "\r\n" + lines[0].replace("0", "x", 1))
    expect(page.locator("#message")).to_contain_text("series.csv, row 16005, column 1 is '-x.")
    expect(page.locator("#summary")).to_contain_text(", incomplete.")


def test_a_long_work_can_be_stopped_and_waits_for_a_busy_server(page: Page, sites: dict[str, Site]) -> None:
    row = "0.123456789," * 15 + "1\n"
    seen: list[str] = []

    def answer(route: Route) -> None:
        seen.append(route.request.headers["accept"])
        if len(seen) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="Too many requests are waiting; try again.")
        elif seen.count(PREDICTIONS) < 3:
            route.continue_()  # the third piece has no answer

    page.route("**/invocations", answer)
    page.goto(sites["plain"].url)
    choose(page, row * (1_500_000 // len(row)))
    expect(page.locator("#summary")).to_contain_text(" series so far.")
    expect(page.locator("#download")).to_be_disabled()
    page.click("#stop")
    expect(page.locator("#running")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text(", incomplete.")
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#download")).to_be_enabled()


def test_a_server_that_is_gone(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["plain"].url)
    page.route("**/invocations", lambda route: route.abort())
    page.fill("#rows", "1,2")
    page.click("#paste button")
    expect(page.get_by_role("alert")).to_contain_text("The server does not respond. Is it still running?")
    assert page.input_value("#rows") == "1,2"


def test_keyboard(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["header"].url)
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    header, *lines = series_csv(8).splitlines()
    page.keyboard.press("Tab")
    page.keyboard.insert_text("\n".join([header, *lines * 3]))
    page.keyboard.press("ArrowLeft")  # moves in the text, not from series to series
    page.keyboard.press("Control+Enter")
    expect(page.locator("#count")).to_have_text("of 24")
    page.keyboard.press("Tab")
    for key, number in (("ArrowRight", "2"), ("ArrowRight", "3"), ("ArrowLeft", "2")):
        page.keyboard.press(key)
        expect(page.locator("#number")).to_have_value(number)
    expect(page.locator("#title")).to_contain_text("Series 2: predicted")
    page.focus("#table [aria-current] button")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    expect(page.locator("#number")).to_have_value("14")
    expect(page.locator("#caption")).to_have_text("series 13 to 24")
    expect(page.locator("#table [aria-current] button")).to_be_focused()
    expect(page.locator("#table [aria-current] button")).to_have_text("14")


def test_without_an_explanation_the_line_has_one_colour(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["plain"].url)
    choose(page, PLAIN)
    expect(page.locator("#legend")).to_have_text(NO_EXPLANATION)
    expect(page.locator("#plot path")).to_have_count(1)
    assert [row[1] for row in table(page)] == ["up", 'not "down"'] * 4


def test_missing_values_are_drawn_as_the_model_fills_them_in(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["header"].url)
    choose(page, series_csv(8, missing=True))
    expect(page.locator("#drawn")).to_be_empty()
    page.fill("#number", "3")
    page.press("#number", "Enter")
    expect(page.locator("#drawn")).to_contain_text("Thin lines: missing values")
    assert page.locator("#plot path.filled").count() > 0
    rng = np.random.default_rng(0)
    series = np.where(rng.random((20, 1, 9)) < 0.4, np.nan, rng.normal(size=(20, 1, 9)))
    series[:, :, 4] = 1.5
    rules = Preprocessing(missing_values="interpolate", length_policy="pad")
    for values, whole in zip(series[:, 0], rules.apply(series, 12)[:, 0], strict=True):
        cells = ["NaN" if np.isnan(value) else repr(float(value)) for value in values]
        found = page.evaluate(f"[...fillMissing(Float64Array.of({','.join(cells)}), 12)]")
        assert found == pytest.approx(whole.tolist())


def test_shorter_series_of_several_variables(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["two"].url)
    page.fill("#rows", ",".join(["1", "2", "3", "", "5", "6", "7", ""]))
    page.click("#paste button")
    expect(page.locator("#plot svg")).to_have_attribute("aria-label", "series of 3 time steps")
    assert page.evaluate("state.drawing.values.map(values => [...values])") == [[1, 2, 3], [5, 6, 7]]


def test_cells_are_those_of_the_server(page: Page, sites: dict[str, Site]) -> None:
    page.goto(sites["plain"].url)
    lines = ["a,b", "", ",", ",,a", '"a"', '"a","b"', '"a,b",c', '"a ""b""",', '"",""', '1,"2",3', 'a"b,c']
    expected = [next(csv.reader([line])) if line else [""] for line in lines]
    assert page.evaluate("lines => lines.map(cellsOf)", lines) == expected
    assert page.evaluate("bytes => split(new Uint8Array(bytes))", list(b"a\r\nb\rc\n\nd")) == ["a", "b", "c", "", "d"]


def test_it_fits_a_phone(page: Page, sites: dict[str, Site]) -> None:
    width = 320
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(sites["two"].url)
    choose(page, labelled(20))
    page.click("#retry")
    expect(page.locator("#plot svg")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def csv_text(rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


class TestRecordings:
    @staticmethod
    def rows(names: str = "ab") -> str:
        """Recordings that rise for 40 seconds, then fall."""
        lines = [f"{name},{k},{min(k, 80 - k) / 10}" for name in names for k in range(80)]
        return "\n".join(["machine,second,v", *lines])

    def test_each_is_drawn_with_what_was_predicted_when(self, page: Page, sites: dict[str, Site]) -> None:
        page.goto(sites["recordings"].url)
        expect(page.locator("#wanted")).to_contain_text("Or whole recordings: CSV with the columns machine, second, v.")
        page.fill("#rows", self.rows())
        page.click("text=Predict")
        expect(page.locator("#pictures figure")).to_have_count(2)
        reply = sites["recordings"].invoke(self.rows()).text
        labels = [row["predicted_label"] for row in csv.DictReader(io.StringIO(reply))]
        for label in CLASSES:
            expect(page.locator("#windows")).to_contain_text(f"{label} {labels.count(label)}")
        expect(page.locator("#pictures figure").first.locator("rect")).to_have_count(len(labels))
        expect(page.locator("#results")).to_be_hidden()

    def test_errors_and_single_series(self, page: Page, sites: dict[str, Site]) -> None:
        page.goto(sites["recordings"].url)
        page.fill("#rows", "machine,second,v\na,soon,1")
        page.click("text=Predict")
        expect(page.locator("#message")).to_contain_text("pasted rows, row 2, column second: 'soon' is no time")
        page.fill("#rows", PLAIN)
        page.click("text=Predict")
        expect(page.locator("#results")).to_be_visible()
        expect(page.locator("#recordings")).to_be_hidden()
