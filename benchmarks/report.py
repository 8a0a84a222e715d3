"""The Markdown report of a comparison."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lstm_fcn.benchmarks.statistics import corrected_level, friedman
from lstm_fcn.container.errors import plural

ALPHA = 0.05
DECIMALS = 4  # published accuracies are rounded, so smaller differences mean nothing


@dataclass(frozen=True)
class Comparison:
    """Accuracies of methods on the data sets that all of them have.

    accuracies: `[data sets, methods]`, from 0 to 1, rounded, best mean rank first.
    seeds, deviations: number of runs and standard deviation over them, `[data sets, our methods]`; the deviation of a
        single run is NaN.
    seconds: of our methods whose time is known, for all data sets together.
    classes: number of classes of each data set; None if there are no runs of ours.
    excluded: data sets that the user left out.
    dropped: data sets that some methods lack, with the names of these methods.
    """

    accuracies: pd.DataFrame
    seeds: pd.DataFrame
    deviations: pd.DataFrame
    seconds: "pd.Series[float]"
    classes: "pd.Series[int] | None"
    excluded: list[str]
    dropped: dict[str, tuple[str, ...]]

    @property
    def ours(self) -> list[str]:
        return list(self.seeds.columns)

    @property
    def has_times(self) -> bool:
        """Whether there are times to compare."""
        return len(self.seconds) > 1


def write_report(comparison: Comparison, summary: pd.DataFrame, pairs: pd.DataFrame, scatter: str) -> str:
    """The report, with links to the pictures beside it.

    Args:
        comparison: what is compared.
        summary: as `summarise` returns it.
        pairs: as `compare_pairs` returns it.
        scatter: name of the scatter plot, without `.png`.
    """
    methods, datasets = plural(len(summary), "method"), plural(len(comparison.accuracies), "data set")
    missing = len(comparison.excluded) + len(comparison.dropped)
    left_out = f" {plural(missing, 'other')} left out; the reasons are at the end." if missing else ""
    ours = f" Run here, blue in the diagram: {'; '.join(map(escape, comparison.ours))}." if comparison.ours else ""
    paragraphs = [
        f"# {methods} on {datasets}",
        f"Compared on the {datasets} that all {methods} have.{left_out}{ours}",
        *_summary_section(summary, comparison.accuracies),
        "## Critical difference",
        "![Critical difference diagram](critical_difference.png)",
        "Methods at their mean ranks. A bar joins neighbours of which no two differ significantly, according to the "
        "tests of the next table.",
        *_pairs_section(list(summary.index), pairs),
        "## Two methods",
        f"![Scatter plot of accuracies]({scatter}.png)",
        "Each point is a data set; those with the largest differences are named.",
        *(_time_section(comparison) if comparison.has_times else []),
        *_datasets_section(comparison),
        *_left_out_section(comparison),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _summary_section(summary: pd.DataFrame, accuracies: pd.DataFrame) -> list[str]:
    with_classes = "mean_per_class_error" in summary
    header = ["#", "method", "mean accuracy", "mean rank", "wins", "ties"] + ["mean per-class error"] * with_classes
    rows = [
        [number, escape(str(name)), f"{row.mean_accuracy:.4f}", f"{row.mean_rank:.2f}", int(row.wins), int(row.ties)]
        + [f"{row.mean_per_class_error:.4f}" for _ in range(with_classes)]
        for number, (name, row) in enumerate(summary.iterrows(), 1)
    ]
    text = (
        f"Accuracies are compared to {DECIMALS} decimals. Rank 1 is the best accuracy on a data set; equal accuracies "
        "share the mean of their ranks. Wins: data sets where the method alone is best; ties: where it is best "
        "together with others."
    )
    if with_classes:
        text += " Mean per-class error: mean over data sets of error / number of classes (Wang et al. 2017)."
    paragraphs = [_markdown(header, rows), text]
    if len(summary) > 2:
        statistic, p = friedman(accuracies)
        verdict = "they differ" if p < ALPHA else "no difference is shown, and single pairs below say little"
        test = f"chi-squared {statistic:.2f}, p {_p(p)}: {verdict}."
        paragraphs.append(f"Friedman test that all methods are alike: {test}")
    return paragraphs


def _pairs_section(names: list[str], pairs: pd.DataFrame) -> list[str]:
    """A square of p-values; methods are numbered as in the summary."""
    cells = {}
    for first, second, p, adjusted in pairs[["first", "second", "p", "adjusted_p"]].to_numpy().tolist():
        cells[first, second] = f"**{_p(adjusted)}**" if adjusted < ALPHA else _p(adjusted)
        cells[second, first] = _p(p)
    rows = [
        [number, escape(name), *(cells.get((name, other), "") for other in names)]
        for number, name in enumerate(names, 1)
    ]
    different = int((pairs["adjusted_p"] < ALPHA).sum())
    level = corrected_level(ALPHA, len(pairs))
    return [
        "## Pairs",
        _markdown(["#", "method", *range(1, len(names) + 1)], rows),
        "Wilcoxon signed-rank tests, two-sided; data sets without a difference are left out of a pair's test. Below "
        f"the diagonal: p. Above it: p adjusted by Dunn-Sidak, 1 - (1 - p)^{len(pairs)}, **bold** below {ALPHA}, "
        f"that is, where p is below 1 - (1 - {ALPHA})^(1/{len(pairs)}) = {level:.3g}. {different} of "
        f"{plural(len(pairs), 'pair')} differ significantly. Wins, ties and losses of each pair are in p_values.csv.",
    ]


def _time_section(comparison: Comparison) -> list[str]:
    fastest = comparison.seconds.min()
    rows = [
        [escape(str(name)), f"{seconds:.0f}", f"{seconds / fastest:.1f}"]
        for name, seconds in comparison.seconds.sort_values().items()
    ]
    return [
        "## Training time",
        "![Accuracy and training time](time.png)",
        "Seconds to train on all data sets and to predict their test sets, each run on one core. Dashed lines: "
        "published accuracies.",
        _markdown(["method", "seconds", "ratio"], rows),
    ]


def _datasets_section(comparison: Comparison) -> list[str]:
    seeds, deviations = comparison.seeds.to_dict("index"), comparison.deviations.to_dict("index")
    classes = {} if comparison.classes is None else comparison.classes.to_dict()
    rows = []
    for dataset, accuracies in comparison.accuracies.to_dict("index").items():
        row: list[object] = [escape(str(dataset)), *([classes[dataset]] if classes else [])]
        for name, accuracy in accuracies.items():
            cell = f"**{accuracy:.4f}**" if accuracy == max(accuracies.values()) else f"{accuracy:.4f}"
            if name in comparison.ours:
                number = seeds[dataset][name]
                cell += f" ± {deviations[dataset][name]:.4f} ({number})" if number > 1 else " (1)"
            row.append(cell)
        rows.append(row)
    header = ["data set", *(["classes"] if classes else []), *map(escape, comparison.accuracies.columns)]
    text = "Accuracies; the best of a data set are **bold**."
    if comparison.ours:
        text += " Run here: mean ± standard deviation over seeds (number of seeds)."
    return ["## Data sets", text, _markdown(header, rows)]


def _left_out_section(comparison: Comparison) -> list[str]:
    if not comparison.excluded and not comparison.dropped:
        return []
    reasons = {"excluded": comparison.excluded} if comparison.excluded else {}
    for dataset, lacking in comparison.dropped.items():
        reasons.setdefault("not in " + "; ".join(map(escape, lacking)), []).append(dataset)
    rows = [[reason, ", ".join(map(escape, datasets)), len(datasets)] for reason, datasets in reasons.items()]
    return ["## Data sets left out", _markdown(["reason", "data sets", "number"], rows)]


def _markdown(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns of numbers are aligned to the right."""
    number = re.compile(r"[-\d.±()<* ]*")
    columns = zip(*rows, strict=True)
    rule = ["---:" if all(number.fullmatch(str(cell)) for cell in column) else "---" for column in columns]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in [header, rule, *rows])


def escape(text: str) -> str:
    """A name that Markdown shows unchanged."""
    return re.sub(r"([\\`*_|<\[\]~])", r"\\\1", text)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
