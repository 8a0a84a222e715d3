import re
from pathlib import Path

from container.hyperparameters import markdown_table
from container.metrics import METRICS

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_table_of_hyperparameters_is_the_real_one() -> None:
    assert markdown_table() in README


def test_the_metric_regexes_are_the_real_ones() -> None:
    for metric in METRICS:
        assert f"| `{metric.name}` | `{metric.regex}` |" in README


def test_make_targets_exist() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
