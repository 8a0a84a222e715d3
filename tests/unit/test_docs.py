"""The README and the pages in `docs/` against the program that they describe."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lstm_fcn.client.__main__ import COMMANDS, lstm_fcn
from lstm_fcn.client.sagemaker.commands import sagemaker
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.metrics import METRICS

PROJECT = Path(__file__).parents[2]
FILES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md"))]
PAGES = {path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
ROOMS = ("container", "training", "serving", "client")
SOURCES = [path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py"))]

SEPARATORS = "();<>|&\n"  # between the commands of a shell
NOTHING = ("{", "do", "then")  # what may stand before one


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Each code block of a language, with its page."""
    for page, text in PAGES.items():
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield page, block


def commands() -> list[tuple[str, list[str]]]:
    """The words of each command that a page shows, with the page."""
    found = []
    for page, block in blocks("sh"):
        lexer = shlex.shlex(re.sub(r"\s# .*", "", block.replace("\\\n", " ")), posix=True, punctuation_chars=SEPARATORS)
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
        words: list[str] = []
        for word in [*lexer, "\n"]:
            if not set(word) <= set(SEPARATORS):
                words.append(word)
                continue
            while words and (words[0] in NOTHING or re.match(r"[A-Z_]+=", words[0])):
                words.pop(0)
            if words:
                found.append((page, words))
            words = []
    return found


def test_the_page_of_hyperparameters_is_the_real_one() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "lstm_fcn.container.hyperparameters"], capture_output=True, check=True
    )
    assert PAGES["docs/hyperparameters.md"] == printed.stdout.decode()


def test_the_metrics_are_the_real_ones() -> None:
    for metric in METRICS:
        assert f"| `{metric.name}` | `{metric.regex}` | {metric.meaning} |" in PAGES["docs/sagemaker.md"]
    in_code = re.findall(r'"Regex": r"(.*?)"', "".join(PAGES.values()))
    assert set(in_code) <= {metric.regex for metric in METRICS}


def test_the_environment_variables_are_those_that_are_read() -> None:
    read = re.findall(r'"((?:SAGEMAKER|LSTM_FCN)_[A-Z_]+)"', "".join(map(Path.read_text, SOURCES)))
    pages = PAGES["docs/serving.md"] + PAGES["docs/distributed.md"]
    documented = re.findall(r"^\| `([A-Z_]+)` \|", pages, re.MULTILINE)
    assert set(documented) == set(read)


def test_every_channel_is_documented() -> None:
    for channel in CHANNELS:
        assert f"| `{channel.name}`" in PAGES["docs/data.md"]


def test_every_command_is_documented() -> None:
    everything = "".join(PAGES.values())
    for name in COMMANDS:
        assert f"lstm-fcn {name}" in everything, name
    for name in sagemaker.commands:
        assert f"`{name}" in PAGES["docs/sagemaker.md"], name


def test_every_page_is_listed_in_the_readme() -> None:
    for path in PAGES:
        assert path == "README.md" or f"]({path})" in PAGES["README.md"], path
    assert len(PAGES["README.md"].splitlines()) <= 120


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_lists_every_page(tmp_path: Path) -> None:
    result = subprocess.run(
        ["make", "docs", f"SITE={tmp_path}"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    home = (tmp_path / "html" / "README.html").read_text()
    for path in PAGES:
        assert path == "README.md" or f'href="{path.removesuffix(".md")}.html"' in home, path
    assert "LSTMFCNClassifier.explain" in (tmp_path / "html" / "docs" / "api.html").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (PROJECT / page).parent / path if path else PROJECT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], link


def test_commands_have_the_options_that_are_shown() -> None:
    shown = commands()
    assert len([words for _, words in shown if words[0] == "lstm-fcn"]) > 20
    for page, words in shown:
        try:
            check_command(words)
        except (click.UsageError, SystemExit) as error:
            pytest.fail(f"{page}: {' '.join(words)}: {error}")


def check_command(words: list[str]) -> None:
    match words:
        case ["lstm-fcn", *rest]:
            check_options(rest)
        case ["python", "-m", "lstm_fcn.serving.transform", *rest]:
            check_options(["transform", *rest])
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), re.MULTILINE), target


def check_options(words: list[str]) -> None:
    """The command exists, and its options with their values; whether files exist is not looked at."""
    command: click.Command | None = lstm_fcn
    context = click.Context(lstm_fcn)
    while isinstance(command, click.Group):
        command, words = command.get_command(context, words[0]), words[1:]
    assert command is not None
    values, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        if parameter.name in values and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, values[parameter.name])
    pairs = [text for name in ("hyperparameters", "values") for text in values.get(name, []) if text]
    parse_hyperparameters(dict(text.split("=") for text in pairs))


def test_make_targets_exist() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", "".join(PAGES.values())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_hyperparameters_of_jobs_are_real() -> None:
    jobs = re.findall(r"echo '(\{.*\})' > \S*hyperparameters\.json", "".join(PAGES.values()))
    assert jobs
    for job in jobs:
        parse_hyperparameters(json.loads(job))


def test_python_on_the_pages_imports_what_there_is() -> None:
    for page, block in blocks("python"):
        for node in ast.walk(ast.parse(block, page)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), page


def test_messages_that_are_explained_are_real() -> None:
    """Every piece of a message, between the dots for what differs, is in a string of the program."""
    texts = "\n".join(strings_of_the_program())
    rows = re.findall(r"^\| (.*?) \| ", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    messages = [message for cell in rows for message in re.findall(r"`([^`]+)`", cell) if "..." in message]
    assert len(messages) > 50
    for message in messages:
        for piece in message.split("..."):
            assert piece.strip(" .,:;()?") in texts, message


def strings_of_the_program() -> Iterator[str]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "\0".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.\d]*[a-z]", "\0", node.value)
