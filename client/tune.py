"""`lstm-fcn tune`: the search for good hyperparameters as a command, and what it writes."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lstm_fcn.client import study
from lstm_fcn.client.study import PRESETS, TrialResult, TuningResult, describe_range
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable, write_atomically
from lstm_fcn.container.metrics import METRICS
from lstm_fcn.training.output.style import BLUE, DARK, GREY, VERMILION, house_style, save

EXISTING = click.Path(exists=True, path_type=Path)
STUDY_FILE = "study.db"
BEST = 10  # trials in the table
INTERRUPTED = 130  # what a shell reports of a process that Ctrl-C ended


@click.command()
@click.option("--training", type=EXISTING, required=True, multiple=True, help="CSV file, or folder of them")
@click.option("--validation", type=EXISTING, multiple=True, help="likewise")
@click.option("--validation-fraction", metavar="SHARE", help="of the training data, held out for validation")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder for the results"
)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="of the study, in the end")
@click.option(
    "--objective",
    default="valid_accuracy",
    show_default=True,
    metavar="METRIC",
    help=", ".join(metric.name for metric in METRICS),
)
@click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=RANGE",
    help="tune this hyperparameter, and only those that are given: lr=0.0001:0.1:log, dropout=0.2:0.9, "
    "hidden-size=8,64,128",
)
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="a hyperparameter of all trials: epochs=200")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="what is tuned without --range: "
    + "; ".join(f"{name}: {' '.join(f'{n}={r}' for n, r in ranges.items())}" for name, ranges in PRESETS.items()),
)
@click.option("--workers", type=click.IntRange(1), help="trials at a time [one for each core]")
@click.option(
    "--storage",
    help="file of the study on a disk of this machine [study.db in the output folder], or a database that several "
    "machines share: postgresql://USER:PASSWORD@HOST/DATABASE",
)
@click.option("--study", "study_name", default="lstm-fcn", show_default=True, help="name within the storage")
@click.option("--no-pruning", is_flag=True, help="train every trial to its end, however bad it is")
@click.option("--timeout", type=click.FloatRange(0), metavar="MINUTES", help="after which no trial is started")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="of the search; that of training is --set seed=1")
def tune(
    training: Sequence[Path],
    validation: Sequence[Path],
    validation_fraction: str | None,
    output: Path,
    trials: int,
    objective: str,
    ranges: Sequence[str],
    values: Sequence[str],
    preset: str | None,
    workers: int | None,
    storage: str | None,
    study_name: str,
    no_pruning: bool,
    timeout: float | None,
    seed: int | None,
) -> int:
    """Search for good hyperparameters with many trainings, several at a time.

    Interrupted, or called again with more trials, the same command goes on.
    """
    if validation_fraction is not None:
        values = [*values, f"validation-fraction={validation_fraction}"]
    if ranges and preset:
        raise UserError("Give --range or --preset, not both.")
    check_writable(output, "output")
    result = study.tune(
        training,
        storage or output / STUDY_FILE,
        trials,
        validation=validation,
        objective=objective,
        ranges=_pairs("--range", ranges) if ranges else None,
        preset=preset or "default",
        hyperparameters=_pairs("--set", values),
        workers=workers,
        study_name=study_name,
        pruning=not no_pruning,
        minutes=timeout,
        seed=seed,
    )
    write_results(result, output)
    if result.ranking:
        click.echo(best_table(result))
        click.echo(f"report: {output / 'report.md'}\nbest: {output / 'hyperparameters.json'}")
    if result.stopped:
        click.echo("Stopped; the same command goes on.", err=True)
        return INTERRUPTED
    if not result.ranking:
        errors = [f" The last one: {trial.error}" for trial in result.trials if trial.error]
        raise UserError(f"No trial came to its end.{errors[-1] if errors else ''}")
    return 0


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{option} {text} must be NAME=VALUE.")
        if name in pairs:
            raise UserError(f"{option} gives {name} twice.")
        pairs[name] = value
    return pairs


# What is written


def write_results(result: TuningResult, folder: Path) -> None:
    """Write `trials.csv`; and if a trial came to its end, `hyperparameters.json` for `train`, a report and pictures.

    Raises:
        UserError: the folder cannot be written to.
    """
    write_atomically((folder / "trials.csv", trials_csv(result).encode()))
    if not result.ranking:
        return
    save(history(result), folder, "history")
    save(slices(result), folder, "hyperparameters")
    write_atomically((folder / "hyperparameters.json", (json.dumps(result.hyperparameters, indent=2) + "\n").encode()))
    write_atomically((folder / "report.md", report(result).encode()))


def trials_csv(result: TuningResult) -> str:
    """All trials."""
    names = list(result.search.space)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "state", result.search.objective.name, *names, "epochs", "seconds", "error"])
    for trial in result.trials:
        value = "" if trial.value is None else f"{trial.value:.6g}"
        tuned = [trial.hyperparameters.get(name, "") for name in names]
        writer.writerow([trial.number, trial.state, value, *tuned, trial.epochs, trial.seconds, trial.error])
    return buffer.getvalue()


def best_table(result: TuningResult) -> str:
    """The best trials, in Markdown that is aligned."""
    names = list(result.search.space)
    rows = [["trial", result.search.objective.name, *names, "epochs", "seconds"]]
    for trial in result.ranking[:BEST]:
        tuned = [trial.hyperparameters[name] for name in names]
        rows.append([str(trial.number), f"{trial.value:.4f}", *tuned, str(trial.epochs), f"{trial.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def report(result: TuningResult) -> str:
    """What was searched and what came out, in Markdown."""
    search, best = result.search, result.ranking[0]
    states = [trial.state for trial in result.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in best.metrics.items())
    ranges = "\n".join(f"| `{name}` | {describe_range(values)} |" for name, values in search.space.items())
    failures = "\n".join(f"- trial {trial.number}: {trial.error}" for trial in result.trials if trial.error)
    return f"""# Tuning: {search.objective.name} {best.value:.4f}

{search.objective.name} is the {search.objective.meaning} ({search.objective.objective.lower()}).
Trials: {counts}. The best is trial {best.number}: {metrics}.

```json
{json.dumps(result.hyperparameters, indent=2)}
```

The best trials; of equal values, those of the lowest loss first:

{best_table(result)}

![{search.objective.name} of each trial](history.png)

![{search.objective.name} by each hyperparameter](hyperparameters.png)

| searched | values |
|---|---|
{ranges}

Set for all trials: {", ".join(f"{name}={value}" for name, value in search.fixed.items()) or "nothing"}.
""" + (f"\nFailed:\n\n{failures}\n" if failures else "")


# Pictures


@house_style()
def history(result: TuningResult) -> Figure:
    """The objective of each trial, and the best so far."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    complete = sorted(result.ranking, key=lambda trial: trial.number)
    so_far = np.maximum if result.search.maximize else np.minimum
    numbers = [trial.number for trial in complete]
    best = so_far.accumulate([_value(trial) for trial in complete])
    last = max(trial.number for trial in result.trials)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=VERMILION, label="best so far", zorder=1)
    _draw_trials(axes, result, {trial.number: float(trial.number) for trial in result.trials})
    axes.set_xlabel("trial")
    axes.set_ylabel(result.search.objective.name)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    figure.legend(loc="outside upper left", ncols=4)
    return figure


@house_style()
def slices(result: TuningResult) -> Figure:
    """The objective by each tuned hyperparameter, the most important first."""
    importances = result.importances
    names = sorted(result.search.space, key=lambda name: -importances.get(name, 0.0))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(0.6 + 2.6 * columns, 0.6 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for name, axes in zip(names, panels.ravel(), strict=False):
        places = _places(result.trials, name, result.search.space[name])
        _draw_trials(axes, result, places)
        _set_scale(axes, result.search.space[name])
        axes.set_title(name + (f": importance {importances[name]:.2f}" if importances else ""))
    for axes in panels.ravel()[len(names) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(result.search.objective.name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _draw_trials(axes: Axes, result: TuningResult, places: Mapping[int, float]) -> None:
    """A point for each trial at its place, in the colour of how it ended."""
    best = result.ranking[0]
    groups = {
        "pruned": ([trial for trial in result.trials if trial.state == "pruned"], GREY, "white", 14),
        "complete": ([trial for trial in result.ranking if trial is not best], BLUE, BLUE, 14),
        "best": ([best], DARK, VERMILION, 40),
    }
    for label, (trials, edge, colour, size) in groups.items():
        shown = [trial for trial in trials if trial.value is not None]
        if shown:
            axes.scatter(
                [places[trial.number] for trial in shown],
                [_value(trial) for trial in shown],
                s=size,
                c=colour,
                edgecolors=edge,
                linewidths=0.8,
                label=label,
                zorder=2,
            )


def _value(trial: TrialResult) -> float:
    return float("nan") if trial.value is None else trial.value


def _places(trials: Sequence[TrialResult], name: str, values: BaseDistribution) -> dict[int, float]:
    """Where each trial lies along a hyperparameter; of a list of values side by side, so that equal ones are seen."""
    if not isinstance(values, CategoricalDistribution):
        return {t.number: float(t.hyperparameters[name]) for t in trials if name in t.hyperparameters}
    texts = [str(choice) for choice in values.choices]
    side = np.random.default_rng(0).uniform(-0.2, 0.2, len(trials))
    return {
        trial.number: texts.index(trial.hyperparameters[name]) + float(aside)
        for trial, aside in zip(trials, side, strict=True)
        if name in trial.hyperparameters
    }


def _set_scale(axes: Axes, values: BaseDistribution) -> None:
    if isinstance(values, CategoricalDistribution):
        axes.set_xticks(range(len(values.choices)), [str(choice) for choice in values.choices])
        axes.set_xlim(-0.5, len(values.choices) - 0.5)
        axes.grid(visible=False, axis="x")
    elif isinstance(values, IntDistribution | FloatDistribution) and values.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.high < 100 * values.low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
