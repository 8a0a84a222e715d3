import re
from pathlib import Path

from container.hyperparameters import markdown_table
from container.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)


def test_the_table_of_hyperparameters_is_the_real_one() -> None:
    assert markdown_table() in TEXT


def test_the_metric_regexes_are_the_real_ones() -> None:
    for metric in METRICS:
        assert f"| `{metric.name}` | `{metric.regex}` |" in TEXT


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)
