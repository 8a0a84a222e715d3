"""Statistics that compare classifiers over many data sets.

Accuracies are a table `[data sets, methods]` of numbers from 0 to 1 without gaps. The tests are those that Demsar
(2006), "Statistical comparisons of classifiers over multiple data sets", recommends, with the correction of Karim et
al. (2018), "LSTM fully convolutional networks for time series classification".
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

DECIMALS = 12  # to which differences are compared: 0.9 - 0.8 and 0.4 - 0.3 differ in floating point


def summarise(accuracies: pd.DataFrame, classes: "pd.Series[int] | None") -> pd.DataFrame:
    """A row for each method, best mean rank first.

    Args:
        accuracies: `[data sets, methods]`.
        classes: classes of each data set, if known.

    Returns:
        mean_accuracy; mean_rank; wins: data sets where the method alone is best; ties: where it is best with others;
        mean_per_class_error: mean of error / classes (MPCE, Wang et al. 2017), where the classes are known.
    """
    best = accuracies.eq(accuracies.max(axis=1), axis=0)
    alone = best.sum(axis=1) == 1
    columns = {
        "mean_accuracy": accuracies.mean(),
        "mean_rank": ranks(accuracies).mean(),
        "wins": best[alone].sum(),
        "ties": best[~alone].sum(),
    }
    if classes is not None:
        columns["mean_per_class_error"] = (1 - accuracies).div(classes.loc[accuracies.index], axis=0).mean()
    return pd.DataFrame(columns).sort_values("mean_rank", kind="stable").rename_axis("method")


def ranks(accuracies: pd.DataFrame) -> pd.DataFrame:
    """`[data sets, methods]`: 1 is the best of a data set; equal accuracies share the mean of their ranks."""
    return accuracies.rank(axis=1, ascending=False, method="average")


def friedman(accuracies: pd.DataFrame) -> tuple[float, float]:
    """Chi-squared, corrected for ties, and p of the hypothesis that all methods (three or more) are alike."""
    if (ranks(accuracies).nunique(axis=1) == 1).all():
        return 0.0, 1.0  # the statistic would be 0 / 0
    found = stats.friedmanchisquare(*accuracies.to_numpy().T)
    return float(found.statistic), float(found.pvalue)


def compare_pairs(accuracies: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of methods, in the order of the columns.

    Returns:
        first, second: the methods; wins, ties, losses: data sets where the first is better, equal, worse;
        p: of the Wilcoxon signed-rank test; adjusted_p: Dunn-Sidak, for that many pairs.
    """
    rows = []
    count = math.comb(accuracies.shape[1], 2)
    for first, second in combinations(accuracies.columns, 2):
        differences = (accuracies[first] - accuracies[second]).to_numpy().round(DECIMALS)
        p = wilcoxon(differences)
        rows.append(
            {
                "first": first,
                "second": second,
                "wins": int((differences > 0).sum()),
                "ties": int((differences == 0).sum()),
                "losses": int((differences < 0).sum()),
                "p": p,
                "adjusted_p": dunn_sidak(p, count),
            }
        )
    return pd.DataFrame(rows)


def wilcoxon(differences: NDArray[np.float64]) -> float:
    """Two-sided p of the signed-rank test; 1 where there are no differences.

    Data sets without a difference are left out before ranking (Wilcoxon 1945), as in Karim et al.; scipy calls this
    `zero_method="wilcox"`. p is exact for up to 50 differences, or 13 if some are equal; for more, it is the normal
    approximation.
    """
    # scipy would count the zeros when it chooses between the exact distribution and the normal approximation.
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox", alternative="two-sided", method="auto").pvalue)


def dunn_sidak(p: float, count: int) -> float:
    """p adjusted for `count` comparisons: 1 - (1 - p)^count, exact for small p too."""
    return -math.expm1(count * math.log1p(-p)) if p < 1 else 1.0


def corrected_level(alpha: float, count: int) -> float:
    """The level of each of `count` comparisons for a level of `alpha` overall: 1 - (1 - alpha)^(1 / count)."""
    return -math.expm1(math.log1p(-alpha) / count)


def cliques(ordered: Sequence[str], pairs: pd.DataFrame, alpha: float) -> list[list[str]]:
    """The longest stretches of methods, in the order of their mean ranks, within which no pair differs significantly.

    Args:
        ordered: the methods, best mean rank first.
        pairs: as returned by `compare_pairs`. A pair differs if its adjusted p is below `alpha`.
    """
    significant = pairs[pairs["adjusted_p"] < alpha]
    different = {frozenset(pair) for pair in zip(significant["first"], significant["second"], strict=True)}
    stretches = [list(ordered[a:b]) for a, b in combinations(range(len(ordered) + 1), 2) if b > a + 1]
    alike = [names for names in stretches if different.isdisjoint(map(frozenset, combinations(names, 2)))]
    return [names for names in alike if not any(set(names) < set(longer) for longer in alike)]
