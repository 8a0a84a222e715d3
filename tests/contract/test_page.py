"""The page on which a person tries the model, in a real browser."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect, sync_playwright

from lstm_fcn.container.preprocess import Preprocessing
from tests.programs import SMALL, Endpoint, TrainingJob, assert_succeeds, endpoint, labelled_csv

GOLDEN = Path(__file__).parents[1] / "golden"
PREDICTIONS = 'text/csv; output="predicted_label,probabilities"; header=present'
HOSTILE = "<img src=x onerror=alert(1)>"
QUOTED = 'a, "b"'
STEPS = 16  # of each of two variables
SETTINGS = {"LSTM_FCN_PAGE": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no browser: the Debian package chromium has one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def servers(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Endpoint]]:
    """Of version 1; of version 2, with a header and missing values; and of two variables, with strange labels."""
    del browser  # without one there is nothing to do
    job = TrainingJob(tmp_path_factory.mktemp("two") / "ml").prepare(labelled(40))
    two = {"num-variables": "2", "length-policy": "pad", "epochs": "30", "lr": "0.02", "lr-schedule": "one-cycle"}
    job.write("input/config/hyperparameters.json", SMALL | two)
    assert_succeeds(job)
    with (
        endpoint(GOLDEN / "v1", **SETTINGS) as first,
        endpoint(GOLDEN / "v2", **SETTINGS) as second,
        endpoint(job.root, **SETTINGS) as two_variables,
    ):
        yield {"v1": first, "v2": second, "two": two_variables}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that has had no failure in the end, and has asked one server only."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
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
    expect(page.locator("#download")).to_be_enabled(timeout=60_000)
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


def test_a_dropped_file(page: Page, servers: dict[str, Endpoint], tmp_path: Path) -> None:
    text = unlabelled(30, seed=1)
    page.goto(servers["two"].url)
    expect(page.locator("#facts")).to_contain_text("series of 2 variables with up to 16 values each")
    expect(page.locator("#results")).to_be_hidden()
    drop(page, text)
    expect(page.locator("#summary")).to_have_text("series.csv: 30 series.")
    expected = servers["two"].invoke(text, Accept=PREDICTIONS)
    lines = list(csv.reader(io.StringIO(expected.text)))[1:]
    assert {line[0] for line in lines} == {HOSTILE, QUOTED}
    highest = [f"{max(map(float, line[1:])):.3f}" for line in lines]
    rows = [[str(k + 1), lines[k][0], highest[k]] for k in range(12)]
    expect(page.locator("#table tr")).to_have_count(12)
    assert table(page) == rows
    expect(page.locator("#title")).to_have_text(f"Series 1: predicted {lines[0][0]}, probability {highest[0]}")
    assert page.locator("#bars li .label").all_text_contents() == [HOSTILE, QUOTED]
    assert page.locator("#plot text").all_text_contents().count("variable 2") == 1
    expect(page.locator("#legend")).to_contain_text(f"speaks for {lines[0][0]}")
    strokes = page.eval_on_selector_all("#plot path", "paths => paths.map(path => getComputedStyle(path).stroke)")
    assert len(set(strokes)) > 5  # many colours
    assert page.locator("img").count() == 0
    assert download(page, tmp_path) == expected.body


def test_colours_are_those_of_the_explanation(page: Page, servers: dict[str, Endpoint]) -> None:
    """Steps that speak against the class are as blue as those that speak for it are orange."""
    page.goto(servers["two"].url)
    choose(page, unlabelled(1))
    expect(page.locator("#plot svg")).to_be_visible()
    reply = servers["two"].invoke(unlabelled(1), Accept="application/json; output=explanation")
    expected = json.loads(reply.text)["predictions"][0]["explanation"]
    assert page.evaluate("drawing.explanation") == expected
    assert page.evaluate("drawing.limit") == pytest.approx(np.sort(np.abs(expected))[int(0.98 * (len(expected) - 1))])
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
        ("", "pasted rows: there are no series in it."),
        ("1e300" + ",1" * 15, "pasted rows: series 1 has values too large for the model."),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_lost(
    page: Page, servers: dict[str, Endpoint], text: str, message: str
) -> None:
    page.goto(servers["v1"].url)
    drop(page, (GOLDEN / "v1" / "series.csv").read_bytes())
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


def test_a_label_in_the_first_column_can_be_left_out(page: Page, servers: dict[str, Endpoint], tmp_path: Path) -> None:
    page.goto(servers["two"].url)
    text = labelled(20, seed=2)
    choose(page, text, "train.csv")
    expect(page.locator("#message")).to_contain_text("train.csv, row 2, column 1 is 'a, \"b\"';")
    expect(page.locator("#offer")).to_contain_text(HOSTILE)
    page.focus("#retry")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("train.csv: 20 series; 20 of them predicted as labelled (100 %).")
    expect(page.locator("#problem")).to_be_hidden()
    assert page.locator("#columns th").all_text_contents() == ["series", "predicted", "label", "probability"]
    assert [row[2] for row in table(page)] == [HOSTILE, QUOTED] * 6
    expect(page.locator("#results-title")).to_be_focused()
    assert download(page, tmp_path) == servers["two"].invoke(unlabelled(20, seed=2), Accept=PREDICTIONS).body


def test_labels_are_compared_and_cells_are_found_where_they_stand_in_the_file(
    page: Page, servers: dict[str, Endpoint]
) -> None:
    rows = list(csv.reader(io.StringIO(labelled(4))))
    rows[0][0] = "other"
    page.goto(servers["two"].url)
    choose(page, csv_text(rows))
    page.click("#retry")
    expect(page.locator("#table tr").first).to_contain_text("\u2260 other")
    expect(page.locator("#title .mistake")).to_have_text("; labelled other")
    rows[2][5] = "x"
    choose(page, csv_text(rows))
    page.click("#retry")
    expect(page.locator("#message")).to_contain_text("series.csv, row 3, column 6 is 'x'")
    expect(page.locator("#offer")).to_be_hidden()


def test_targets_of_a_file_with_a_header_can_be_left_out(page: Page, servers: dict[str, Endpoint]) -> None:
    header, *lines = (GOLDEN / "v2" / "series.csv").read_text().splitlines()
    probabilities = np.loadtxt(GOLDEN / "v2" / "probabilities.csv", delimiter=",")
    right = [",".join(map(str, row)) for row in (probabilities > 0.5).astype(int)]
    text = "\n".join(
        [f"y_high,{header},y_rises,y_falls", *(f"{t[4:]},{v},{t[:3]}" for t, v in zip(right, lines, strict=True))]
    )
    page.goto(servers["v2"].url)
    choose(page, text)
    expect(page.locator("#message")).to_contain_text("series.csv, row 1 has column 'y_high'")
    expect(page.locator("#labels")).to_have_text("These columns seem to be targets: y_high, y_rises, y_falls.")
    page.click("#retry")
    expect(page.locator("#summary")).to_have_text("series.csv: 8 series; 8 of them predicted as labelled (100 %).")
    names = ["y_rises", "y_falls", "y_high"]
    chosen = [" + ".join(np.array(names)[row > 0.5]) or "none" for row in probabilities]
    assert [row[1] for row in table(page)] == [row[2] for row in table(page)] == chosen
    choose(page, text.replace(lines[3], lines[3].replace(lines[3].split(",")[2], "x", 1)))
    page.click("#retry")
    expect(page.locator("#message")).to_contain_text("series.csv, row 5, column 4 is 'x'")


def test_a_large_file_goes_in_pieces(page: Page, servers: dict[str, Endpoint], tmp_path: Path) -> None:
    """With a header that comes again, a byte order mark, CRLF and blank lines; the server takes 1 MiB at once."""
    header, *lines = (GOLDEN / "v2" / "series.csv").read_text().splitlines()
    half = [header, *(lines * 750)]
    text = "\ufeff" + "\r\n".join([*half, "", *half, ""])
    assert len(text) > 1_200_000
    assert servers["v2"].invoke(text).status == 413
    page.goto(servers["v2"].url)
    choose(page, text)
    expect(page.locator("#summary")).to_have_text("series.csv: 12,000 series.", timeout=60_000)
    assert page.evaluate("result.pieces.length") > 2
    expected = servers["v2"].invoke("\n".join(half), Accept=PREDICTIONS).text
    assert download(page, tmp_path).decode() == expected + "\n" + expected.partition("\n")[2]
    page.fill("#number", "11996")
    page.press("#number", "Enter")
    rows = expected.split("\n")[1:]
    assert [row[0] for row in table(page)] == [f"{k:,}" for k in range(11989, 12001)]
    assert [row[2] for row in table(page)] == [f"{max(map(float, row.split(',')[3:])):.3f}" for row in rows[-12:]]
    assert page.evaluate("drawing.values.map(values => [...values].map(value => isNaN(value) ? '' : value))") == [
        [float(cell) if cell else "" for cell in lines[3].split(",")]
    ]
    choose(page, text + header + "\r\n" + lines[0].replace("0", "x", 1))
    expect(page.locator("#message")).to_contain_text("series.csv, row 12005, column 1 is 'x.", timeout=60_000)
    expect(page.locator("#summary")).to_contain_text(", not all of it.")


def test_a_long_work_can_be_stopped_and_waits_for_a_busy_server(page: Page, servers: dict[str, Endpoint]) -> None:
    row = "0.123456789," * 15 + "1\n"
    seen: list[str] = []

    def answer(route: Route) -> None:
        seen.append(route.request.headers["accept"])
        if len(seen) == 1:
            route.fulfill(status=503, headers={"Retry-After": "1"}, body="Too many requests are waiting; try again.")
        elif seen.count(PREDICTIONS) < 3:
            route.continue_()  # the third piece has no answer

    page.route("**/invocations", answer)
    page.goto(servers["v1"].url)
    choose(page, row * (1_500_000 // len(row)))
    expect(page.locator("#summary")).to_contain_text(" series so far.")
    expect(page.locator("#download")).to_be_disabled()
    page.click("#stop")
    expect(page.locator("#running")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text(", not all of it.")
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#download")).to_be_enabled()


def test_a_server_that_is_gone(page: Page, servers: dict[str, Endpoint]) -> None:
    page.goto(servers["v1"].url)
    page.route("**/invocations", lambda route: route.abort())
    page.fill("#rows", "1,2")
    page.click("#paste button")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer; is it still running?")
    assert page.input_value("#rows") == "1,2"


def test_keyboard(page: Page, servers: dict[str, Endpoint]) -> None:
    page.goto(servers["v2"].url)
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    header, *lines = (GOLDEN / "v2" / "series.csv").read_text().splitlines()
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


def test_an_earlier_model_has_no_colours(page: Page, servers: dict[str, Endpoint]) -> None:
    page.goto(servers["v1"].url)
    choose(page, (GOLDEN / "v1" / "series.csv").read_text())
    expect(page.locator("#legend")).to_contain_text("train it anew to have one")
    expect(page.locator("#plot path")).to_have_count(1)
    assert table(page)[0][1] == 'up, not "down"'


def test_missing_values_are_drawn_as_the_model_fills_them_in(page: Page, servers: dict[str, Endpoint]) -> None:
    page.goto(servers["v2"].url)
    choose(page, (GOLDEN / "v2" / "series.csv").read_text())
    expect(page.locator("#drawn")).to_be_empty()
    page.fill("#number", "3")
    page.press("#number", "Enter")
    expect(page.locator("#drawn")).to_contain_text("Thin: where values are missing")
    assert page.locator("#plot path.filled").count() > 0
    rng = np.random.default_rng(0)
    series = np.where(rng.random((20, 1, 9)) < 0.4, np.nan, rng.normal(size=(20, 1, 9)))
    series[:, :, 4] = 1.5
    rules = Preprocessing(missing_values="interpolate", length_policy="pad")
    for values, whole in zip(series[:, 0], rules.apply(series, 12)[:, 0], strict=True):
        cells = ["NaN" if np.isnan(value) else repr(float(value)) for value in values]
        found = page.evaluate(f"[...complete(Float64Array.of({','.join(cells)}), 12)]")
        assert found == pytest.approx(whole.tolist())


def test_shorter_series_of_several_variables(page: Page, servers: dict[str, Endpoint]) -> None:
    page.goto(servers["two"].url)
    page.fill("#rows", ",".join(["1", "2", "3", "", "5", "6", "7", ""]))
    page.click("#paste button")
    expect(page.locator("#plot svg")).to_have_attribute("aria-label", "series of 3 time steps")
    assert page.evaluate("drawing.values.map(values => [...values])") == [[1, 2, 3], [5, 6, 7]]


@pytest.mark.parametrize(
    "line", ["a,b", "", ",", ",,a", '"a"', '"a","b"', '"a,b",c', '"a ""b""",', '"",""', '1,"2",3', 'a"b,c']
)
def test_cells_are_those_of_the_server(page: Page, servers: dict[str, Endpoint], line: str) -> None:
    page.goto(servers["v1"].url)
    expected = next(csv.reader([line])) if line else [""]
    assert page.evaluate("line => cellsOf(line)", line) == expected
    assert page.evaluate("bytes => split(new Uint8Array(bytes))", list(b"a\r\nb\rc\n\nd")) == ["a", "b", "c", "", "d"]


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(page: Page, servers: dict[str, Endpoint], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(servers["two"].url)
    choose(page, labelled(20))
    page.click("#retry")
    expect(page.locator("#plot svg")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def csv_text(rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
