"""Compare classifiers over many data sets: tables, statistical tests and pictures from tables of accuracies.

The accuracy of one of our methods on a data set is the mean over its seeds.
"""

import csv
import difflib
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import pandas as pd

from lstm_fcn.benchmarks import diagrams
from lstm_fcn.benchmarks.report import ALPHA, DECIMALS, Comparison, write_report
from lstm_fcn.benchmarks.statistics import cliques, compare_pairs, summarise
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.files import check_writable
from lstm_fcn.training.output.style import save

RUN = ["dataset", "method", "cells", "preset", "seed"]  # the columns that identify a run


def compare(
    results: Sequence[Path],
    output: Path,
    published: Path | None = None,
    methods: Sequence[str] = (),
    exclude: Path | None = None,
    scatter: Sequence[str] = (),
) -> Path:
    """Compare our runs and published accuracies on the data sets that all methods have.

    Args:
        results: tables of runs, as `lstm-fcn benchmark run` writes them.
        output: folder for report.md, the tables as CSV, and the pictures.
        published: table with the columns dataset, method and accuracy.
        methods: published methods to include; by default all of them.
        exclude: table whose column dataset names data sets to leave out.
        scatter: the two methods of the scatter plot; by default our first method and the best published one.

    Returns:
        The path of the report.

    Raises:
        UserError: an input is invalid, and nothing was written; or `output` cannot be written to.
    """
    excluded = read_rows(exclude, ["dataset"])["dataset"].tolist() if exclude else []
    comparison = combine(read_runs(results), read_published(published, methods), excluded)
    pair = choose_pair(comparison, scatter)
    check_writable(output, "output")
    try:
        with tempfile.TemporaryDirectory(dir=output, prefix=".") as folder:
            _write(comparison, pair, Path(folder))
            for path in sorted(Path(folder).iterdir()):
                path.replace(output / path.name)
    except OSError as error:
        raise UserError(f"{error.filename or output} cannot be written: {error.strerror}.") from error
    return output / "report.md"


# Input


def read_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of a CSV file as text, and add the column `place`: the file and the number of the row.

    Raises:
        UserError: the file cannot be read, has no rows or lacks a column; a row has too few or too many cells.
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
                    raise UserError(f"{place}: the number of cells differs from the header's {len(found)}.")
                rows.append({"place": place} | {column: row[column].strip() for column in columns})
                if empty := [column for column in ("dataset", "method") if rows[-1].get(column) == ""]:
                    raise UserError(f"{place}, column {empty[0]}: empty.")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV file: {error}.") from error
    if not rows:
        raise UserError(f"{path} has no rows below its header.")
    return pd.DataFrame(rows)


def read_runs(paths: Iterable[Path]) -> pd.DataFrame:
    """Our runs, a row for each: dataset, name (of the method in the comparison), classes, accuracy, seconds.

    If a method has runs with several numbers of cells or presets, these are part of its name.

    Raises:
        UserError: as `read_rows`; a value is out of range; a run occurs twice; a data set's classes vary.
    """
    tables = [read_rows(path, [*RUN, "classes", "accuracy", "seconds"]) for path in paths]
    if not tables:
        return pd.DataFrame(columns=["dataset", "name", "classes", "accuracy", "seconds"])
    runs = pd.concat(tables, ignore_index=True)
    _refuse_duplicates(runs, RUN)
    runs["accuracy"] = _to_accuracies(runs)
    runs["classes"] = _to_classes(runs)
    runs["seconds"] = pd.to_numeric(runs["seconds"], errors="coerce")
    runs["name"] = runs["method"]
    for column, suffix in (("cells", ", {} cells"), ("preset", ", {}")):
        several = runs.groupby("method")[column].transform("nunique") > 1
        runs.loc[several, "name"] += runs[column].map(suffix.format)
    return runs


def read_published(path: Path | None, methods: Sequence[str] = ()) -> pd.DataFrame:
    """Published accuracies, a row for each: dataset, name, accuracy; of the given methods, or of all.

    Raises:
        UserError: as `read_rows`; an accuracy is out of range or occurs twice; a method is unknown.
    """
    if path is None:
        if methods:
            raise UserError("--method selects published methods: give their file with --published.")
        return pd.DataFrame(columns=["dataset", "name", "accuracy"])
    table = read_rows(path, ["dataset", "method", "accuracy"])
    _refuse_duplicates(table, ["dataset", "method"])
    table["accuracy"] = _to_accuracies(table)
    table["name"] = table["method"]
    known = list(dict.fromkeys(table["name"]))
    chosen = list(dict.fromkeys(methods)) or known
    _refuse_unknown(chosen, known, str(path))
    return pd.concat([table[table["name"] == name] for name in chosen])


def _refuse_duplicates(table: pd.DataFrame, key: list[str]) -> None:
    repeated = table[table.duplicated(key)]
    if not repeated.empty:
        row = repeated.iloc[0]
        first = table[(table[key] == row[key]).all(axis=1)].iloc[0]
        what = ", ".join(f"{column} {row[column]}" for column in key)
        raise UserError(f"{row['place']} has the same {what} as {first['place']}. Remove one of them.")


def _to_accuracies(table: pd.DataFrame) -> "pd.Series[float]":
    values = pd.to_numeric(table["accuracy"], errors="coerce")
    for text, place in table.loc[~values.between(0, 1), ["accuracy", "place"]].to_numpy():
        raise UserError(f"{place}, column accuracy: {text!r} is not a number from 0 to 1.")
    return values


def _to_classes(runs: pd.DataFrame) -> "pd.Series[int]":
    known: dict[str, tuple[int, str]] = {}
    for dataset, text, place in runs[["dataset", "classes", "place"]].to_numpy():
        if not (text.isdecimal() and int(text) > 1):
            raise UserError(f"{place}, column classes: {text!r} is not a whole number above 1.")
        number, first = known.setdefault(dataset, (int(text), place))
        if number != int(text):
            raise UserError(f"{place}, column classes: {dataset} has {text} classes, but {number} in {first}.")
    return runs["classes"].astype(int)


def _refuse_unknown(names: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raise `UserError` for unknown names, with suggestions; a part in parentheses is ignored in looking for them."""
    short = {name: name.split(" (")[0].casefold() for name in [*known, *names]}
    problems = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(short[name], [short[other] for other in known], n=3)
            alike = [other for other in known if short[other] in close or name.casefold() in other.casefold()]
            problems.append(f"no method {name!r}; similar names: {', '.join(map(repr, alike)) or 'none'}.")
    if problems:
        raise UserError(f"{where}: " + " ".join(problems))


# The comparison


def combine(runs: pd.DataFrame, published: pd.DataFrame, excluded: Iterable[str]) -> Comparison:
    """All methods on the data sets that all of them have.

    Raises:
        UserError: there are fewer than two methods; ours and a published one have the same name; no data set is common.
    """
    ours, theirs = (list(dict.fromkeys(rows["name"])) for rows in (runs, published))
    if both := [name for name in ours if name in theirs]:
        raise UserError(f"{both[0]!r} is both a method of ours and a published one. Rename it in one of the files.")
    if len(ours) + len(theirs) < 2:
        raise UserError(
            f"A comparison needs at least two methods; found: {', '.join(ours + theirs) or 'none'}. Give files of "
            "results, or published methods with --published and --method."
        )
    groups = runs.groupby(["name", "dataset"])["accuracy"]
    seconds = runs.groupby(["name", "dataset"])["seconds"].mean().unstack("name")
    rows = pd.concat([groups.mean().reset_index(), published[["name", "dataset", "accuracy"]]])
    table = rows.pivot(index="dataset", columns="name", values="accuracy")[ours + theirs].astype(float)
    left_out = sorted(set(excluded) & set(table.index))
    table = table.drop(index=left_out).round(DECIMALS)
    lacking = table[table.isna().any(axis=1)].isna()
    dropped = {str(dataset): tuple(lacking.columns[row]) for dataset, row in lacking.iterrows()}
    accuracies = table.dropna()
    if accuracies.empty:
        fewest = "; ".join(f"{name}: {number}" for name, number in table.count().nsmallest(8).items())
        raise UserError(
            f"No data set is common to all {table.shape[1]} methods. Those with the fewest: {fewest}. Leave some out."
        )
    return Comparison(
        accuracies=accuracies[summarise(accuracies, None).index],
        seeds=groups.count().unstack("name")[ours].loc[accuracies.index].astype(int) if ours else table[[]],
        deviations=groups.std().unstack("name")[ours].loc[accuracies.index] if ours else table[[]],
        seconds=seconds.loc[accuracies.index].sum(skipna=False).dropna() if ours else pd.Series(dtype=float),
        classes=runs.groupby("dataset")["classes"].first().loc[accuracies.index].astype(int) if ours else None,
        excluded=left_out,
        dropped=dropped,
    )


def choose_pair(comparison: Comparison, asked: Sequence[str]) -> tuple[str, str]:
    """The methods of the scatter plot: those asked for, or our first and the best published one.

    Raises:
        UserError: a method is unknown, or both are the same.
    """
    names = list(comparison.accuracies.columns)
    if asked:
        _refuse_unknown(asked, names, "--scatter")
        first, second = asked
        if first == second:
            raise UserError(f"--scatter: {first!r} is given twice; name two different methods.")
        return first, second
    first = comparison.ours[0] if comparison.ours else names[0]
    others = [name for name in names if name != first]
    return first, next((name for name in others if name not in comparison.ours), others[0])


# Output


def _write(comparison: Comparison, pair: tuple[str, str], folder: Path) -> None:
    """Write all tables, pictures and the report."""
    summary = summarise(comparison.accuracies, comparison.classes)
    pairs = compare_pairs(comparison.accuracies)
    scatter = f"scatter_{_safe(pair[0])}_vs_{_safe(pair[1])}"
    joined = cliques(list(summary.index), pairs, ALPHA)
    bars = "Bars join methods of which no two differ" if joined else "No bars: all neighbours differ"
    note = (
        f"{bars} significantly. Wilcoxon signed-rank tests, Dunn-Sidak correction for {plural(len(pairs), 'pair')}, "
        f"level {ALPHA}; {plural(len(comparison.accuracies), 'data set')}."
    )
    diagram = diagrams.critical_difference(summary["mean_rank"], joined, comparison.ours, note)
    save(diagram, folder, "critical_difference")
    save(diagrams.scatter(comparison.accuracies[list(pair)]), folder, scatter)
    if comparison.has_times:
        columns = (summary["mean_accuracy"], comparison.seconds)
        accuracies, seconds = ({str(name): float(value) for name, value in column.items()} for column in columns)
        save(diagrams.accuracy_over_time(accuracies, seconds), folder, "time")
    tables = {"summary": summary.reset_index(), "accuracies": _accuracy_table(comparison), "p_values": pairs}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "report.md").write_text(write_report(comparison, summary, pairs, scatter), encoding="utf-8")


def _accuracy_table(comparison: Comparison) -> pd.DataFrame:
    """Columns: dataset, classes, each method, and the number and standard deviation of our runs."""
    table = comparison.accuracies.copy()
    if comparison.classes is not None:
        table.insert(0, "classes", comparison.classes)
    for name in comparison.ours:
        table[f"{name}: seeds"] = comparison.seeds[name]
        table[f"{name}: standard deviation"] = comparison.deviations[name]
    return table.rename_axis("dataset").reset_index()


def _safe(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80] or "method"


# The command


@click.command("compare")
@click.argument("results", type=click.Path(path_type=Path), nargs=-1)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder for the report")
@click.option("--published", type=click.Path(path_type=Path), help="CSV file with dataset, method and accuracy")
@click.option("--method", "methods", multiple=True, help="published method to include  [default: all]")
@click.option(
    "--exclude", type=click.Path(path_type=Path), help="CSV file whose column dataset names what to leave out"
)
@click.option(
    "--scatter",
    nargs=2,
    metavar="A B",
    help="methods of the scatter plot  [default: our first and the best published one]",
)
def compare_command(
    results: Sequence[Path],
    output: Path,
    published: Path | None,
    methods: Sequence[str],
    exclude: Path | None,
    scatter: Sequence[str] | None,
) -> None:
    """Compare results with each other and with published accuracies.

    RESULTS are CSV files that `lstm-fcn benchmark run` has written. The output folder receives report.md, all tables as
    CSV and all pictures. To give several published methods, repeat --method.
    """
    report = compare(results, output, published, methods, exclude, scatter or ())
    click.echo(report.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
    click.echo(report)
