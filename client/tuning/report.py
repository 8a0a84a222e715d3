"""The files that a search writes: table of trials, best hyperparameters, report and picture."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lstm_fcn.client.tuning.search import TrialResult, TuningResult
from lstm_fcn.container.files import write_atomically
from lstm_fcn.container.ranges import Range
from lstm_fcn.training.output.style import BLUE, DARK, GREY, VERMILION, house_style, png, ticks

TABLE_ROWS = 10


def write_results(result: TuningResult, folder: Path) -> None:
    """Write `trials.csv` and, if a trial is complete, `hyperparameters.json`, `report.md` and its picture.

    Raises:
        UserError: the folder cannot be written to.
    """
    files = {"trials.csv": trials_csv(result).encode()}
    if result.ranking:
        files["hyperparameters.json"] = (json.dumps(result.hyperparameters, indent=2) + "\n").encode()
        files["report.md"] = report(result).encode()
        files["trials.png"] = png(draw(result))
    write_atomically(*((folder / name, content) for name, content in files.items()))


def trials_csv(result: TuningResult) -> str:
    """All trials, as CSV with a header."""
    names = list(result.search.ranges)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["number", "state", result.search.objective.name, *names, "epochs", "seconds", "error"])
    for trial in result.trials:
        value = "" if trial.value is None else f"{trial.value:.6g}"
        tuned = [trial.hyperparameters.get(name, "") for name in names]
        writer.writerow([trial.number, trial.state, value, *tuned, trial.epochs, trial.seconds, trial.error])
    return buffer.getvalue()


def best_table(result: TuningResult) -> str:
    """The best trials as a Markdown table with aligned columns."""
    names = list(result.search.ranges)
    rows = [["trial", result.search.objective.name, *names, "epochs", "seconds"]]
    for trial in result.ranking[:TABLE_ROWS]:
        tuned = [trial.hyperparameters[name] for name in names]
        rows.append([str(trial.number), f"{trial.value:.4f}", *tuned, str(trial.epochs), f"{trial.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(lines)


def report(result: TuningResult) -> str:
    """What was searched and the results, as Markdown."""
    search, best = result.search, result.ranking[0]
    states = [trial.state for trial in result.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in best.metrics.items())
    ranges = "\n".join(f"| `{name}` | {values} |" for name, values in search.ranges.items())
    failures = "\n".join(f"- trial {trial.number}: {trial.error}" for trial in result.trials if trial.error)
    return f"""# Tuning: {search.objective.name} {best.value:.4f}

{search.objective.name} is the {search.objective.meaning} ({search.objective.objective.lower()}).
Trials: {counts}. The best is trial {best.number}: {metrics}.

```json
{json.dumps(result.hyperparameters, indent=2)}
```

The best trials; among equal values, the lowest loss first:

{best_table(result)}

![{search.objective.name} of each trial, and by each hyperparameter](trials.png)

| tuned | range |
|---|---|
{ranges}

Set for all trials: {", ".join(f"{name}={value}" for name, value in search.fixed.items()) or "nothing"}.
""" + (f"\nFailed trials:\n\n{failures}\n" if failures else "")


@house_style()
def draw(result: TuningResult) -> Figure:
    """Draw the objective of each trial: over time, and by each tuned hyperparameter, the most important one first."""
    ranges, importances, objective = result.search.ranges, result.importances, result.search.objective.name
    names = sorted(ranges, key=lambda name: -importances.get(name, 0.0))
    columns = min(3, 1 + len(names))
    rows = -(-(1 + len(names)) // columns)
    figure = Figure(figsize=(0.6 + 2.6 * columns, 0.6 + 2.1 * rows), layout="constrained")
    first, *panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    _draw_best_so_far(first, result)
    _draw_trials(first, result, {trial.number: float(trial.number) for trial in result.trials})
    first.set_title("trial")
    first.xaxis.set_major_locator(ticks(5, integer=True))
    for name, axes in zip(names, panels, strict=False):
        _draw_trials(axes, result, _positions(result.trials, ranges[name]))
        _set_scale(axes, ranges[name])
        axes.set_title(name + (f": importance {importances[name]:.2f}" if importances else ""))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.supylabel(objective)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return figure


def _draw_best_so_far(axes: Axes, result: TuningResult) -> None:
    complete = {trial.number: float(trial.value or 0.0) for trial in result.ranking}
    numbers = sorted(complete)
    so_far = np.maximum if result.search.maximize else np.minimum
    best = so_far.accumulate([complete[number] for number in numbers])
    last = max(trial.number for trial in result.trials)
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=VERMILION, label="best so far", zorder=1)


def _draw_trials(axes: Axes, result: TuningResult, positions: Mapping[int, float]) -> None:
    """Draw a point for each trial at its horizontal position (by trial number), coloured by its state."""
    best, *others = result.ranking
    pruned = [trial for trial in result.trials if trial.state == "pruned" and trial.value is not None]
    for label, trials, edge, colour, size in (
        ("pruned", pruned, GREY, "white", 14),
        ("complete", others, BLUE, BLUE, 14),
        ("best", [best], DARK, VERMILION, 40),
    ):
        if trials:
            x, y = zip(*((positions[trial.number], trial.value) for trial in trials), strict=True)
            axes.scatter(x, y, s=size, c=colour, edgecolors=edge, linewidths=0.8, label=label, zorder=2)


def _positions(trials: Sequence[TrialResult], values: Range) -> dict[int, float]:
    """Horizontal position of each trial along a hyperparameter; in a list of values, spread so that equals are seen."""
    tuned = {trial.number: trial.hyperparameters[values.name] for trial in trials if trial.hyperparameters}
    if values.low is not None:
        return {number: float(text) for number, text in tuned.items()}
    spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(tuned))
    return {n: values.values.index(text) + float(s) for (n, text), s in zip(tuned.items(), spread, strict=True)}


def _set_scale(axes: Axes, values: Range) -> None:
    if values.low is None or values.high is None:
        axes.set_xticks(range(len(values.values)), values.values)
        axes.set_xlim(-0.5, len(values.values) - 0.5)
        axes.grid(visible=False, axis="x")
    elif values.scale == "log":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if values.high < 100 * values.low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticks(5))
