"""Compare classifiers over many data sets: tables, statistical tests and pictures, from files of accuracies.

    python -m lstm_fcn.benchmarks.compare RESULTS.csv [MORE.csv ...] --output FOLDER
        [--published FILE] [--methods "NAME" ...] [--exclude FILE] [--scatter "A" "B"]

RESULTS.csv holds our runs, one a row; the accuracy of a method on a data set is the mean over its seeds. FOLDER
receives report.md with everything in it, the tables as CSV, and the pictures as PNG.
"""

import argparse
import csv
import difflib
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lstm_fcn.benchmarks import diagrams
from lstm_fcn.benchmarks.statistics import cliques, compare_pairs, corrected_level, friedman, summarise
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.training.output.style import save

ALPHA = 0.05
DECIMALS = 4  # published accuracies are rounded; a difference beyond that says nothing
RUN = ["dataset", "method", "cells", "protocol", "seed"]  # columns that tell runs apart


@dataclass(frozen=True)
class Comparison:
    """Accuracies of methods on the data sets that all of them have.

    accuracies: `[data sets, methods]`, from 0 to 1, rounded, best mean rank first.
    seeds, deviations: number of runs and standard deviation over them, `[data sets, our methods]`; the deviation of a
        single run is NaN.
    classes: of each data set; None without runs of ours.
    excluded: data sets left out on demand.
    dropped: data sets that some methods lack, with the names of these.
    """

    accuracies: pd.DataFrame
    seeds: pd.DataFrame
    deviations: pd.DataFrame
    classes: "pd.Series[int] | None"
    excluded: list[str]
    dropped: dict[str, tuple[str, ...]]

    @property
    def ours(self) -> list[str]:
        return list(self.seeds.columns)


def compare(arguments: argparse.Namespace) -> None:
    """Read, test, draw and write. Raises `UserError` before anything is written."""
    runs = read_runs(arguments.results)
    published = read_published(arguments.published, arguments.methods)
    excluded = read_rows(arguments.exclude, ["dataset"])["dataset"].tolist() if arguments.exclude else []
    comparison = combine(runs, published, excluded)
    pair = choose_pair(comparison, arguments.scatter)
    check_writable(arguments.output, "output")
    with tempfile.TemporaryDirectory(dir=arguments.output, prefix=".") as folder:
        write(comparison, pair, Path(folder))
        for path in sorted(Path(folder).iterdir()):
            path.replace(arguments.output / path.name)
    print(f"{comparison.accuracies.shape[1]} methods on {len(comparison.accuracies)} data sets")
    print(arguments.output / "report.md")


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a CSV file as text, and `place`: file and row, as an editor counts lines.

    Raises:
        UserError: the file cannot be read, lacks a column or has none but its header; a row is too short or too long.
    """
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            found = reader.fieldnames or []
            if missing := [column for column in columns if column not in found]:
                raise UserError(f"{path}: no column {', '.join(missing)} (found: {', '.join(found) or 'nothing'}).")
            for row in reader:
                place = f"{path}, row {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{place}: not as many cells as the header's {len(found)}.")
                rows.append({"place": place} | {column: row[column].strip() for column in columns})
                if empty := [column for column in ("dataset", "method") if rows[-1].get(column) == ""]:
                    raise UserError(f"{place}, column {empty[0]}: empty.")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file: {error}.") from error
    if not rows:
        raise UserError(f"{path} has no rows below its header.")
    return pd.DataFrame(rows)


def read_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Our runs, one a row: dataset, name (of the method, as it is compared), classes, accuracy.

    Cells are part of the name where a method has several, and so is the protocol.

    Raises:
        UserError: as `read_rows`; a value is out of range; a run is there twice; a data set's classes vary.
    """
    tables = [read_rows(path, [*RUN, "classes", "accuracy"]) for path in paths]
    if not tables:
        return pd.DataFrame(columns=["dataset", "name", "classes", "accuracy"])
    runs = pd.concat(tables, ignore_index=True)
    _refuse_duplicates(runs, RUN)
    runs["accuracy"] = _to_accuracies(runs)
    runs["classes"] = _to_classes(runs)
    several = runs.groupby("method")[["cells", "protocol"]].nunique() > 1
    runs["name"] = [
        method
        + (f", {cells} cells" if several.loc[method, "cells"] else "")
        + (f", {protocol}" if several.loc[method, "protocol"] else "")
        for method, cells, protocol in zip(runs["method"], runs["cells"], runs["protocol"], strict=True)
    ]
    return runs


def read_published(path: Path | None, methods: Sequence[str] | None) -> pd.DataFrame:
    """Published accuracies, one a row: dataset, name, accuracy; of the methods asked for, or of all.

    Raises:
        UserError: as `read_rows`; an accuracy is out of range or there twice; a method is unknown.
    """
    if path is None:
        if methods:
            raise UserError("--methods chooses published methods: name their file with --published.")
        return pd.DataFrame(columns=["dataset", "name", "accuracy"])
    table = read_rows(path, ["dataset", "method", "accuracy"])
    _refuse_duplicates(table, ["dataset", "method"])
    table["accuracy"] = _to_accuracies(table)
    table["name"] = table["method"]
    known = list(dict.fromkeys(table["name"]))
    chosen = known if methods is None else list(dict.fromkeys(methods))
    _refuse_unknown(chosen, known, str(path))
    return table[table["name"].isin(chosen)].sort_values(
        "name", key=lambda names: names.map(chosen.index), kind="stable"
    )


def _refuse_duplicates(table: pd.DataFrame, key: list[str]) -> None:
    repeated = table[table.duplicated(key)]
    if not repeated.empty:
        row = repeated.iloc[0]
        first = table[(table[key] == row[key]).all(axis=1)].iloc[0]
        what = ", ".join(f"{column} {row[column]}" for column in key)
        raise UserError(f"{row['place']} is of the same {what} as {first['place']}. Remove one of them.")


def _to_accuracies(table: pd.DataFrame) -> list[float]:
    values = []
    for text, place in zip(table["accuracy"], table["place"], strict=True):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise UserError(f"{place}, column accuracy: {text!r} is not a number from 0 to 1.")
        values.append(value)
    return values


def _to_classes(runs: pd.DataFrame) -> list[int]:
    known: dict[str, tuple[int, str]] = {}
    for dataset, text, place in zip(runs["dataset"], runs["classes"], runs["place"], strict=True):
        if not (text.isdecimal() and int(text) > 1):
            raise UserError(f"{place}, column classes: {text!r} is not a whole number above 1.")
        number, first = known.setdefault(dataset, (int(text), place))
        if number != int(text):
            raise UserError(f"{place}, column classes: {dataset} has {text} classes, but {number} in {first}.")
    return [known[dataset][0] for dataset in runs["dataset"]]


def _refuse_unknown(names: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raises `UserError` for names that are not known, with those that are written alike up to the bracket."""
    short = {name: name.split(" (")[0].casefold() for name in [*known, *names]}
    problems = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(short[name], [short[other] for other in known], n=3)
            alike = [other for other in known if short[other] in close or name.casefold() in other.casefold()]
            problems.append(f"no method {name!r}; close are: {', '.join(map(repr, alike)) or 'none'}.")
    if problems:
        raise UserError(f"{where}: " + " ".join(problems))


def combine(runs: pd.DataFrame, published: pd.DataFrame, excluded: Iterable[str]) -> Comparison:
    """All methods on the data sets that all of them have.

    Raises:
        UserError: there are fewer than two methods; ours and a published one share a name; no data set is common.
    """
    ours, theirs = (list(dict.fromkeys(rows["name"])) for rows in (runs, published))
    if both := [name for name in ours if name in theirs]:
        raise UserError(f"{both[0]!r} is both a method of ours and a published one. Rename it in one of the files.")
    if len(ours) + len(theirs) < 2:
        raise UserError(
            f"A comparison needs two methods or more, and there is {', '.join(ours + theirs) or 'none'}. Give files of "
            "results, or published methods with --published and --methods."
        )
    groups = runs.groupby(["name", "dataset"])["accuracy"]
    rows = pd.concat([groups.mean().reset_index(), published[["name", "dataset", "accuracy"]]])
    table = rows.pivot(index="dataset", columns="name", values="accuracy")[ours + theirs].astype(float)
    left_out = sorted(set(excluded) & set(table.index))
    table = table.drop(index=left_out).round(DECIMALS)
    lacking = table[table.isna().any(axis=1)].isna()
    dropped = {str(dataset): tuple(lacking.columns[row]) for dataset, row in lacking.iterrows()}
    accuracies = table.dropna()
    if accuracies.empty:
        fewest = "; ".join(f"{name}: {count}" for name, count in table.count().nsmallest(8).items())
        raise UserError(
            f"No data set is common to all {table.shape[1]} methods. Those with the fewest: {fewest}. Leave some out."
        )
    return Comparison(
        accuracies=accuracies[summarise(accuracies, None).index],
        seeds=groups.count().unstack("name")[ours].loc[accuracies.index].astype(int) if ours else table[[]],
        deviations=groups.std().unstack("name")[ours].loc[accuracies.index] if ours else table[[]],
        classes=runs.groupby("dataset")["classes"].first().loc[accuracies.index].astype(int) if ours else None,
        excluded=left_out,
        dropped=dropped,
    )


def choose_pair(comparison: Comparison, asked: Sequence[str] | None) -> tuple[str, str]:
    """The methods of the scatter plot: those asked for, or our first and the best of the published.

    Raises:
        UserError: a method is unknown, or both are the same.
    """
    names = list(comparison.accuracies.columns)
    if asked:
        _refuse_unknown(asked, names, "--scatter")
        first, second = asked
        if first == second:
            raise UserError(f"--scatter: {first!r} against itself; name two methods.")
        return first, second
    first = comparison.ours[0] if comparison.ours else names[0]
    others = [name for name in names if name != first]
    return first, next((name for name in others if name not in comparison.ours), others[0])


def write(comparison: Comparison, pair: tuple[str, str], folder: Path) -> None:
    """All tables, pictures and the report."""
    summary = summarise(comparison.accuracies, comparison.classes)
    pairs = compare_pairs(comparison.accuracies)
    scatter = f"scatter_{_safe(pair[0])}_vs_{_safe(pair[1])}"
    joined = cliques(list(summary.index), pairs, ALPHA)
    bars = "A bar joins methods of which no two differ" if joined else "No bars: neighbours all differ"
    note = (
        f"{bars} significantly. Wilcoxon signed-rank tests, Dunn-Sidak correction for {_count(len(pairs), 'pair')}, "
        f"level {ALPHA}; {_count(len(comparison.accuracies), 'data set')}."
    )
    diagram = diagrams.critical_difference(summary["mean_rank"], joined, comparison.ours, note)
    save(diagram, folder, "critical_difference")
    save(diagrams.scatter(comparison.accuracies[list(pair)]), folder, scatter)
    for name, table in (
        ("summary", summary.reset_index()),
        ("accuracies", _accuracy_table(comparison)),
        ("p_values", pairs),
    ):
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "report.md").write_text(report(comparison, summary, pairs, scatter), encoding="utf-8")


def _accuracy_table(comparison: Comparison) -> pd.DataFrame:
    """dataset, classes, each method, and number and standard deviation of our runs."""
    table = comparison.accuracies.copy()
    if comparison.classes is not None:
        table.insert(0, "classes", comparison.classes)
    for name in comparison.ours:
        table[f"{name}: seeds"] = comparison.seeds[name]
        table[f"{name}: standard deviation"] = comparison.deviations[name]
    return table.rename_axis("dataset").reset_index()


def _safe(name: str) -> str:
    """A part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80] or "method"


def report(comparison: Comparison, summary: pd.DataFrame, pairs: pd.DataFrame, scatter: str) -> str:
    """The report in Markdown; it links to the pictures beside it."""
    methods, datasets = _count(len(summary), "method"), _count(len(comparison.accuracies), "data set")
    missing = len(comparison.excluded) + len(comparison.dropped)
    left_out = f" {_count(missing, 'other')} left out, for the reasons at the end." if missing else ""
    whose = f" Ours, blue in the diagram: {'; '.join(map(_escape, comparison.ours))}." if comparison.ours else ""
    return "\n".join(
        [
            f"# {methods} on {datasets}",
            "",
            f"Compared on the {datasets} that all {methods} have.{left_out}{whose}",
            "",
            *_summary_section(summary, comparison.accuracies),
            "",
            "## Critical difference",
            "",
            "![Critical difference diagram](critical_difference.png)",
            "",
            "Methods at their mean ranks. A bar joins neighbours of which no two differ significantly, by the tests of "
            "the next table.",
            "",
            *_pairs_section(list(summary.index), pairs),
            "",
            "## Two methods",
            "",
            f"![Scatter plot of accuracies]({scatter}.png)",
            "",
            "A point is a data set; those with the largest differences are named.",
            "",
            *_datasets_section(comparison),
            *_left_out_section(comparison),
            "",
        ]
    )


def _summary_section(summary: pd.DataFrame, accuracies: pd.DataFrame) -> list[str]:
    with_classes = "mean_per_class_error" in summary
    header = ["#", "method", "mean accuracy", "mean rank", "wins", "ties"] + ["mean per-class error"] * with_classes
    rows = [
        [number, _escape(str(name)), f"{row.mean_accuracy:.4f}", f"{row.mean_rank:.2f}", int(row.wins), int(row.ties)]
        + [f"{row.mean_per_class_error:.4f}" for _ in range(with_classes)]
        for number, (name, row) in enumerate(summary.iterrows(), 1)
    ]
    text = (
        f"Accuracies are compared to {DECIMALS} decimals. Rank 1 is the best accuracy on a data set, equal ones share "
        "the mean of their ranks. Wins: data sets where the method alone is best; ties: where it is best together with "
        "others."
    )
    if with_classes:
        text += " Mean per-class error: mean over data sets of error / number of classes (Wang et al. 2017)."
    lines = [*_markdown(header, rows), "", text]
    if len(summary) > 2:
        statistic, p = friedman(accuracies)
        verdict = "they differ" if p < ALPHA else "no difference is shown, and single pairs below say little"
        lines += ["", f"Friedman test that all methods are alike: chi-squared {statistic:.2f}, p {_p(p)}: {verdict}."]
    return lines


def _pairs_section(names: list[str], pairs: pd.DataFrame) -> list[str]:
    """A square of p-values; methods are numbered as in the summary."""
    cells = {}
    for first, second, p, adjusted in pairs[["first", "second", "p", "adjusted_p"]].to_numpy().tolist():
        cells[first, second] = f"**{_p(adjusted)}**" if adjusted < ALPHA else _p(adjusted)
        cells[second, first] = _p(p)
    rows = [
        [number, _escape(name), *(cells.get((name, other), "") for other in names)]
        for number, name in enumerate(names, 1)
    ]
    different = int((pairs["adjusted_p"] < ALPHA).sum())
    level = corrected_level(ALPHA, len(pairs))
    return [
        "## Pairs",
        "",
        *_markdown(["#", "method", *map(str, range(1, len(names) + 1))], rows),
        "",
        "Wilcoxon signed-rank tests, two-sided; data sets without a difference are left out of a pair's test. Below "
        f"the diagonal: p. Above it: p adjusted by Dunn-Sidak, 1 - (1 - p)^{len(pairs)}, **bold** below {ALPHA}, "
        f"which is where p is below 1 - (1 - {ALPHA})^(1/{len(pairs)}) = {level:.3g}. {different} of "
        f"{_count(len(pairs), 'pair')} differ significantly. Wins, ties and losses of each pair are in p_values.csv.",
    ]


def _datasets_section(comparison: Comparison) -> list[str]:
    seeds, deviations = comparison.seeds.to_dict("index"), comparison.deviations.to_dict("index")
    classes = {} if comparison.classes is None else comparison.classes.to_dict()
    rows = []
    for dataset, accuracies in comparison.accuracies.to_dict("index").items():
        row: list[object] = [_escape(str(dataset)), *([classes[dataset]] if classes else [])]
        for name, accuracy in accuracies.items():
            cell = f"**{accuracy:.4f}**" if accuracy == max(accuracies.values()) else f"{accuracy:.4f}"
            if name in comparison.ours:
                number = seeds[dataset][name]
                cell += f" ± {deviations[dataset][name]:.4f} ({number})" if number > 1 else " (1)"
            row.append(cell)
        rows.append(row)
    header = ["data set", *(["classes"] if classes else []), *map(_escape, comparison.accuracies.columns)]
    text = "Accuracies; the best of a data set are **bold**."
    if comparison.ours:
        text += " Ours: mean ± standard deviation over seeds (number of seeds)."
    return ["## Data sets", "", text, "", *_markdown(header, rows)]


def _left_out_section(comparison: Comparison) -> list[str]:
    if not comparison.excluded and not comparison.dropped:
        return []
    reasons = {"excluded": comparison.excluded} if comparison.excluded else {}
    for dataset, lacking in comparison.dropped.items():
        reasons.setdefault("not in " + "; ".join(map(_escape, lacking)), []).append(dataset)
    rows = [[reason, ", ".join(map(_escape, datasets)), len(datasets)] for reason, datasets in reasons.items()]
    return ["", "## Data sets left out", "", *_markdown(["reason", "data sets", "number"], rows)]


def _markdown(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table whose columns of numbers are aligned to the right."""
    rows = list(rows)
    number = re.compile(r"[-\d.±()<* ]*")
    rule = [
        "---:" if all(number.fullmatch(str(row[column])) for row in rows) else "---" for column in range(len(header))
    ]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in [header, rule, *rows]]


def _escape(text: str) -> str:
    """A name that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<\[\]~])", r"\\\1", text)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=os.environ.get("_LSTM_FCN_COMMAND", "python -m lstm_fcn.benchmarks.compare"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="*", metavar="RESULTS.csv", help="our runs")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="receives the report")
    parser.add_argument(
        "--published", type=Path, metavar="FILE", help="published accuracies: dataset, method, accuracy"
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="which published methods; all by default")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="data sets to leave out: column dataset")
    parser.add_argument(
        "--scatter",
        nargs=2,
        metavar=("A", "B"),
        help="methods of the scatter plot; by default our first and the published one with the best mean rank",
    )
    return parser.parse_intermixed_args()


def main() -> int:
    """Returns 0 if everything was written, 2 if the input must be mended."""
    try:
        compare(_parse_arguments())
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    except OSError as error:
        print(f"UserError: {error.filename or 'The output'} cannot be written: {error.strerror}.", file=sys.stderr)
        return UserError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
