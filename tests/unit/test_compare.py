import math
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats  # type: ignore[import-untyped]

from lstm_fcn.benchmarks import compare, report, statistics
from lstm_fcn.client.__main__ import main

pytestmark = pytest.mark.slow

# Demsar (2006), table 6. The paper's ranks tell the last two of row 13 apart, which it prints as 0.975 both.
DEMSAR = pd.DataFrame(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.97501, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)


def test_mean_ranks_of_demsar() -> None:
    assert statistics.ranks(DEMSAR).mean().tolist() == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)


def test_friedman_of_demsar() -> None:
    # The paper's 9.28 is not corrected for ties: three pairs and a row of four, of 14 rows of four.
    correction = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    statistic, p = statistics.friedman(DEMSAR)
    assert statistic == pytest.approx(9.28 / correction, abs=0.01)
    assert p == pytest.approx(stats.chi2.sf(statistic, 3))
    assert (statistic, p) == pytest.approx(tuple(stats.friedmanchisquare(*DEMSAR.to_numpy().T)))


def test_methods_that_are_alike() -> None:
    alike = pd.DataFrame({"A": [0.5, 0.9], "B": [0.5, 0.9], "C": [0.5, 0.9]})
    assert statistics.friedman(alike) == (0, 1)
    pairs = statistics.compare_pairs(alike)
    assert pairs[["p", "adjusted_p"]].to_numpy().tolist() == [[1, 1]] * 3
    assert statistics.cliques(["A", "B", "C"], pairs, 0.05) == [["A", "B", "C"]]


def test_summary_worked_by_hand() -> None:
    accuracies = pd.DataFrame({"A": [0.9, 0.8, 0.5], "B": [0.7, 0.8, 0.6], "C": [0.6, 0.8, 0.6]}, index=list("xyz"))
    summary = statistics.summarise(accuracies, pd.Series({"z": 5, "y": 4, "x": 2}))
    assert summary.index.tolist() == ["B", "A", "C"]
    assert summary["mean_rank"].tolist() == pytest.approx([5.5 / 3, 6 / 3, 6.5 / 3])
    assert summary["mean_accuracy"].tolist() == pytest.approx([2.1 / 3, 2.2 / 3, 2 / 3])
    assert summary["wins"].tolist() == [0, 1, 0]
    assert summary["ties"].tolist() == [2, 1, 2]
    b, a = (0.3 / 2 + 0.2 / 4 + 0.4 / 5) / 3, (0.1 / 2 + 0.2 / 4 + 0.5 / 5) / 3
    assert summary["mean_per_class_error"].tolist()[:2] == pytest.approx([b, a])


def p_of_all_signs(differences: list[float]) -> float:
    """Two-sided p of the signed-rank test: each difference could as well have had the other sign."""
    present = [value for value in differences if value]
    ranks = stats.rankdata(np.abs(present))
    signs = np.array(list(product([-1, 1], repeat=len(present))))
    sums = np.abs((signs * ranks).sum(axis=1))
    return float((sums >= abs((np.sign(present) * ranks).sum()) - 1e-9).mean())


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, 2, 3, 4, 5], 4 / 32),  # as far out: no sign or the smallest one turned, on either side
        ([0, -1, 0, 2, 3, 4, 5], 4 / 32),
        ([0, 0, 3], 1),
        ([0, 0, 0], 1),
        ([-1, 2, 2, 2, 5, 5, -7, 8], None),
        ([5, -8, 17, 33, 6, -5, 7, 0, 63, 0, 22, 47, 9, 21], None),  # Demsar (2006), table 2
    ],
)
def test_wilcoxon_of_few_data_sets(differences: list[float], expected: float | None) -> None:
    found = statistics.wilcoxon(np.array(differences, dtype=np.float64))
    assert found == pytest.approx(p_of_all_signs(differences) if expected is None else expected)


def test_wilcoxon_of_many_data_sets_is_normal() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, size=80).round(1)
    present = differences[differences != 0]
    ranks, count = stats.rankdata(np.abs(present)), len(present)
    _, ties = np.unique(np.abs(present), return_counts=True)
    variance = count * (count + 1) * (2 * count + 1) / 24 - (ties**3 - ties).sum() / 48
    z = (ranks[present > 0].sum() - count * (count + 1) / 4) / math.sqrt(variance)
    assert statistics.wilcoxon(differences) == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_differences_that_are_equal_but_for_rounding_share_a_rank() -> None:
    accuracies = pd.DataFrame({"A": [0.4, 0.8, 0.2, 0.8], "B": [0.3, 0.7, 0.1, 0.9]})
    assert statistics.compare_pairs(accuracies)["p"].tolist() == [10 / 16]  # three of four, or all, on either side


def test_dunn_sidak() -> None:
    assert statistics.corrected_level(0.05, 11) == pytest.approx(0.00465, abs=5e-6)  # Karim et al. (2018)
    level = statistics.corrected_level(0.05, 55)
    assert statistics.dunn_sidak(level, 55) == pytest.approx(0.05)
    assert statistics.dunn_sidak(0.01, 3) == pytest.approx(1 - 0.99**3)
    assert statistics.dunn_sidak(1e-20, 10) == pytest.approx(1e-19)
    assert statistics.dunn_sidak(1, 10) == 1
    assert statistics.dunn_sidak(0, 10) == 0


def test_pairs_are_adjusted_for_all_pairs() -> None:
    accuracies = pd.DataFrame({"A": [0.9, 0.8, 0.7, 0.6, 0.5], "B": [0.8, 0.6, 0.4, 0.2, 0.5], "C": [0.1] * 5})
    pairs = statistics.compare_pairs(accuracies)
    assert pairs[["first", "second"]].to_numpy().tolist() == [["A", "B"], ["A", "C"], ["B", "C"]]
    assert pairs[["wins", "ties", "losses"]].to_numpy().tolist() == [[4, 1, 0], [5, 0, 0], [5, 0, 0]]
    assert pairs["p"].tolist() == pytest.approx([2 / 16, 2 / 32, 2 / 32])
    assert pairs["adjusted_p"].tolist() == pytest.approx([1 - (1 - 2 / 16) ** 3, *[1 - (1 - 2 / 32) ** 3] * 2])


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        ([], ["ABCD"]),
        (["AD"], ["ABC", "BCD"]),
        (["AC", "AD", "BD"], ["AB", "BC", "CD"]),
        (["AB", "AC", "AD"], ["BCD"]),
        (["BC"], ["AB", "CD"]),
        (["AB", "BC", "CD"], []),
    ],
)
def test_cliques_have_no_pair_that_differs(different: list[str], expected: list[str]) -> None:
    pairs = pd.DataFrame(
        [(a, b, 0.01 if a + b in different else 0.9) for a, b in combinations("ABCD", 2)],
        columns=["first", "second", "adjusted_p"],
    )
    assert ["".join(clique) for clique in statistics.cliques("ABCD", pairs, 0.05)] == expected


HEADER = "dataset,method,cells,seed,preset,classes,accuracy,seconds\n"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a folder of its own, mostly without pictures; return its standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, pictures: bool = False) -> str:
        with monkeypatch.context() as patch:
            if not pictures:
                patch.setattr(compare, "save", lambda *_: None)
            code = main(["benchmark", "compare", *arguments, "--output", "out"])
        error = capsys.readouterr().err
        assert code == (2 if error else 0)
        assert Path("out").exists() == (not error)
        return error

    return run


def write_results(path: str = "results.csv") -> None:
    """Two methods on twelve data sets, two seeds each but for the ensemble."""
    rows = [
        f"set{k:02},{method},8,{seed},final,{2 + k % 3},{0.5 + (0.03 + shift) * k + shift + 0.02 * seed},{seconds}\n"
        for k in range(12)
        for method, shift, seeds, seconds in (("LSTM-FCN", 0.0, 2, 1.5), ("LSTM-FCN ensemble of 5", 0.01, 1, 7.5))
        for seed in range(seeds)
    ]
    Path(path).write_text(HEADER + "".join(rows))


def write_published(path: str = "published.csv") -> None:
    rows = [
        f'set{k:02},"{method}",{accuracy},"paper, table 1"\n'
        for k in range(1, 14)
        for method, accuracy in (("FCN (mean, of 5)", 0.49 + 0.028 * k), ("MLP", 0.3 + 0.02 * k))
    ]
    Path(path).write_text("dataset,method,accuracy,source\n" + "".join(rows))


def test_one_command_makes_everything(run: Run) -> None:
    write_results()
    write_published()
    Path("swapped.csv").write_text("dataset,note\nset05,swapped\nset99,nobody has it\n")
    arguments = ["results.csv", "--published", "published.csv", "--exclude", "swapped.csv"]
    assert run(*arguments, pictures=True) == ""
    pictures = ["critical_difference", "scatter_LSTM-FCN_vs_FCN-mean-of-5", "time"]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        ["report.md", "summary.csv", "accuracies.csv", "p_values.csv", *(f"{name}.png" for name in pictures)]
    )
    summary = pd.read_csv("out/summary.csv", index_col="method")
    assert summary.index.tolist() == ["LSTM-FCN ensemble of 5", "LSTM-FCN", "FCN (mean, of 5)", "MLP"]
    assert summary["mean_rank"].tolist() == [1, 2, 3, 4]
    assert summary["wins"].tolist() == [10, 0, 0, 0]
    kept = [k for k in range(1, 12) if k != 5]
    error = np.mean([(1 - (0.51 + 0.03 * k)) / (2 + k % 3) for k in kept])
    assert summary.loc["LSTM-FCN", "mean_per_class_error"] == pytest.approx(error, abs=1e-6)
    accuracies = pd.read_csv("out/accuracies.csv", index_col="dataset")
    assert accuracies.index.tolist() == [f"set{k:02}" for k in kept]
    first = accuracies[["classes", "LSTM-FCN", "LSTM-FCN: seeds", "MLP"]].to_numpy().tolist()[0]
    assert first == [3, 0.54, 2, 0.32]
    assert accuracies["LSTM-FCN: standard deviation"].tolist() == pytest.approx([0.02 / math.sqrt(2)] * 10, abs=1e-6)
    p_values = pd.read_csv("out/p_values.csv")
    assert len(p_values) == 6
    assert p_values["p"].tolist() == pytest.approx([2 / 2**10] * 6, abs=1e-8)  # always the same one is better
    assert p_values["adjusted_p"].tolist() == pytest.approx([1 - (1 - 2 / 2**10) ** 6] * 6, abs=1e-6)

    report = Path("out/report.md").read_text()
    assert report.startswith("# 4 methods on 10 data sets\n")
    assert "| 2 | LSTM-FCN | 0.6930 | 2.00 | 0 | 0 | " in report
    assert "| set01 | 3 | **0.5500** (1) | 0.5400 ± 0.0141 (2) | 0.5180 | 0.3200 |" in report
    assert "| excluded | set05 | 1 |" in report
    assert "| not in FCN (mean, of 5); MLP | set00 | 1 |" in report
    assert "| not in LSTM-FCN; LSTM-FCN ensemble of 5 | set12, set13 | 2 |" in report
    assert "| 2 | LSTM-FCN | 0.0020 |  | **0.0117** | **0.0117** |" in report
    assert "6 of 6 pairs differ significantly" in report
    assert "| LSTM-FCN ensemble of 5 | 75 | 5.0 |" in report
    for name in pictures:
        assert f"]({name}.png)" in report


def test_published_methods_alone(run: Run) -> None:
    write_published()
    arguments = ["--published", "published.csv", "--method", "MLP", "--method", "FCN (mean, of 5)"]
    assert run(*arguments, "--scatter", "MLP", "FCN (mean, of 5)") == ""
    assert "mean_per_class_error" not in pd.read_csv("out/summary.csv")
    report = Path("out/report.md").read_text()
    assert "(scatter_MLP_vs_FCN-mean-of-5.png)" in report
    assert "Friedman" not in report
    assert "per-class" not in report
    assert "left out" not in report.split("## Pairs")[0]


def test_cells_and_presets_are_methods_where_there_are_several(run: Run) -> None:
    rows = ["A,8,0,final", "A,64,0,final", "B,8,0,final", "B,8,0,best", "C,8,0,final"]
    for number, part in enumerate((rows[:3], rows[3:])):
        lines = [
            f"x,{method},{cells},{seed},{how},2,0.5,1\n" for method, cells, seed, how in (r.split(",") for r in part)
        ]
        Path(f"{number}.csv").write_text(HEADER + "".join(lines))
    assert run("0.csv", "1.csv") == ""
    found = pd.read_csv("out/summary.csv")["method"].tolist()
    assert found == ["A, 8 cells", "A, 64 cells", "B, final", "B, best", "C"]


def test_accuracies_are_compared_as_rounded(run: Run) -> None:
    Path("results.csv").write_text(HEADER + "x,A,8,0,final,3,0.98666667,1\n")
    Path("published.csv").write_text("dataset,method,accuracy\nx,B,0.9867\n")
    assert run("results.csv", "--published", "published.csv") == ""
    assert pd.read_csv("out/summary.csv")["ties"].tolist() == [1, 1]


ROW = "x,A,8,0,final,2,0.5,1\n"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (
            "dataset,method\nx,A\n",
            "results.csv: no column cells, preset, seed, classes, accuracy, seconds (found: dataset, method)",
        ),
        ("", "results.csv: no column dataset"),
        (HEADER, "results.csv has no rows"),
        (HEADER + ROW, "needs at least two methods; found: A."),
        (
            HEADER + ROW + "x,B,8,0,final,2,1.5,1\n",
            "results.csv, row 3, column accuracy: '1.5' is not a number from 0 to 1",
        ),
        (HEADER + ROW + "x,B,8,0,final,2,nan,1\n", "results.csv, row 3, column accuracy: 'nan'"),
        (HEADER + ROW + "x,B,8,0,final,2,,1\n", "results.csv, row 3, column accuracy: ''"),
        (
            HEADER + ROW + "x,B,8,0,final,many,0.5,1\n",
            "results.csv, row 3, column classes: 'many' is not a whole number",
        ),
        (
            HEADER + ROW + "x,B,8,0,final,3,0.5,1\n",
            "row 3, column classes: x has 3 classes, but 2 in results.csv, row 2",
        ),
        (
            HEADER + ROW + "x,A,8,1,final,2,0.5,1\n" + ROW,
            "row 4 has the same dataset x, method A, cells 8, preset final, seed 0 as results.csv, row 2",
        ),
        (
            HEADER + ROW + "y,B,8,0,final,2,0.5,1\n",
            "No data set is common to all 2 methods. Those with the fewest: A: 1; B: 1",
        ),
        (HEADER + ROW + "x,B,8\n", "results.csv, row 3: the number of cells differs from the header's 8"),
        (HEADER + ROW + ",B,8,0,final,2,0.5,1\n", "results.csv, row 3, column dataset: empty"),
        (HEADER + ROW + 'x,"B', "results.csv is not a CSV file"),
        ("\xff", "results.csv is not a CSV file"),
    ],
)
def test_unusable_results(run: Run, results: str, message: str) -> None:
    Path("results.csv").write_bytes(results.encode("latin-1"))
    assert message in run("results.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv cannot be read: No such file or directory"),
        ([], "needs at least two methods; found: none"),
        (["--method", "MLP"], "give their file with --published"),
        (["--published", "published.csv", "--method", "MLP"], "found: MLP."),
        (
            ["--published", "published.csv", "--method", "FNC", "--method", "MLP"],
            "no method 'FNC'; similar names: 'FCN (mean, of 5)'.",
        ),
        (
            ["--published", "published.csv", "--scatter", "MLP", "mlp"],
            "--scatter: no method 'mlp'; similar names: 'MLP'",
        ),
        (["--published", "published.csv", "--scatter", "MLP", "MLP"], "'MLP' is given twice"),
        (["--published", "published.csv", "--exclude", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--published", "twice.csv"], "twice.csv, row 3 has the same dataset x, method A as twice.csv, row 2"),
        (["results.csv", "--published", "ours.csv"], "'LSTM-FCN' is both a method of ours and a published one"),
    ],
)
def test_unusable_arguments(run: Run, arguments: list[str], message: str) -> None:
    write_results()
    write_published()
    Path("twice.csv").write_text("dataset,method,accuracy\nx,A,0.5\nx,A,0.6\n")
    Path("ours.csv").write_text("dataset,method,accuracy\nset00,LSTM-FCN,0.5\n")
    assert message in run(*arguments)


def test_results_of_several_files_may_not_repeat_a_run(run: Run) -> None:
    write_results("1.csv")
    write_results("2.csv")
    assert "2.csv, row 2 has the same" in run("1.csv", "2.csv")


def test_names_are_shown_as_they_are() -> None:
    assert report.escape("a|b *c* [d](e) <f>") == r"a\|b \*c\* \[d\](e) \<f>"
    assert compare._safe("F-t LSTM-FCN (w=0.1, ../x)") == "F-t-LSTM-FCN-w-0.1-..-x"
    assert compare._safe("方法") == "method"
