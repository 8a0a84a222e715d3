"""Holding out a share of the training data for validation."""

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)

SHOWN = 10  # groups that the log names


def draw_validation_rows(
    labels: NDArray[np.generic],
    fraction: float,
    seed: int,
    group: Group,
    groups: NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
) -> NDArray[np.bool_]:
    """Draw a share of this process's series for validation, the same share of each class.

    Classes, or combinations of targets, that have a single series stay in the training set. Groups are not divided, so
    that the shares are right as far as possible only.

    Args:
        labels: integers `[N]`, or 0 and 1 `[N, C]`.
        fraction: share of the series.
        seed: of the draw.
        group: the processes that train together.
        groups: numbers of what must not be divided, int64 `[N]`; None: anything may be.
        names: of the groups.

    Returns:
        bool `[N]`, true for the validation rows.

    Raises:
        UserError: the share is less than one series in every process, or there is a single group.
    """
    if groups is not None:
        folds = min(max(2, round(1 / min(fraction, 1 - fraction))), count_groups(names, group))
        number_of = draw_folds_of_groups(labels, groups, names, folds, seed, group)
        drawn: NDArray[np.bool_] = (number_of == 0) != (fraction > 0.5)
        _report(drawn, groups, names, group)
        return drawn
    from sklearn.model_selection import train_test_split  # takes a second that most jobs need not wait

    _, strata, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    common = np.flatnonzero(counts[strata] > 1)
    wanted = min(round(fraction * len(labels)), len(common) - 1)
    if sum(group.gather("held out", max(wanted, 0))) == 0:
        raise UserError(
            f"validation-fraction={fraction:g} of {len(labels)} series is less than one series of a class that has at "
            "least two. Increase it, or use a validation channel."
        )
    held_out = common[:0]
    if wanted > 0:
        several = len(np.unique(strata[common]))
        stratify = strata[common] if min(wanted, len(common) - wanted) >= several else None
        if stratify is None:
            logger.warning(
                "WARNING: %d validation series cannot represent each of %d classes; they are drawn at random",
                wanted,
                several,
            )
        _, held_out = train_test_split(common, test_size=wanted, random_state=seed, stratify=stratify)
    logger.info("validation: %d of %d series held out", len(held_out), len(labels))
    drawn = np.zeros(len(labels), dtype=np.bool_)
    drawn[held_out] = True
    return drawn


def draw_folds_of_groups(
    labels: NDArray[np.generic],
    groups: NDArray[np.int64],
    names: Sequence[str],
    folds: int,
    seed: int,
    group: Group,
) -> NDArray[np.int64]:
    """Draw the fold of each of this process's series, int64 `[N]`, so that no group is in two folds.

    The shares of the classes are as equal as possible. For the arguments, see `draw_validation_rows`.

    Raises:
        UserError: there are fewer groups than folds, over all processes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    everywhere = sorted({name for found in group.gather("names of groups", list(names)) for name in found})
    if len(everywhere) < max(folds, 2):
        raise UserError(
            f"The training data has {plural(len(everywhere), 'group')} of windows; {max(folds, 2)} are needed, because "
            "windows of one group are never both in training and in validation. Use fewer folds, prepare more "
            "recordings, or divide them in time (lstm-fcn prepare --split-at)."
        )
    places = {name: k for k, name in enumerate(everywhere)}
    codes = np.array([places[name] for name in names], dtype=np.int64)[groups]
    mine = torch.from_numpy(np.column_stack([codes, labels.astype(np.int64).reshape(len(codes), -1)]))
    rows = group.gather_rows(mine).numpy()
    _, strata = np.unique(rows[:, 1:], axis=0, return_inverse=True)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    number_of_group = np.empty(len(everywhere), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have fewer series than there are folds
        for fold, (_, held_out) in enumerate(splitter.split(rows, strata.reshape(-1), rows[:, 0])):
            number_of_group[rows[held_out, 0]] = fold
    return number_of_group[codes]


def count_groups(names: Sequence[str], group: Group) -> int:
    """Number of groups over all processes."""
    return len({name for found in group.gather("number of groups", list(names)) for name in found})


def _report(held_out: NDArray[np.bool_], groups: NDArray[np.int64], names: Sequence[str], group: Group) -> None:
    here = sorted({names[number] for number in np.unique(groups[held_out]).tolist()})
    found = sorted({name for each in group.gather("groups held out", here) for name in each})
    shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    logger.info(
        "validation: %d of %d series held out, those of %d of %d groups: %s",
        held_out.sum(),
        len(held_out),
        len(found),
        len(names),
        shown,
    )
