"""Holding out a share of the training data for validation."""

import logging

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)


def draw_validation_rows(labels: NDArray[np.generic], fraction: float, seed: int, group: Group) -> NDArray[np.bool_]:
    """Draw a share of this process's series for validation, the same share of each class.

    Classes, or combinations of targets, that have a single series stay in the training set.

    Args:
        labels: integers `[N]`, or 0 and 1 `[N, C]`.
        fraction: share of the series.
        seed: of the draw.
        group: the processes that train together.

    Returns:
        bool `[N]`, true for the validation rows.

    Raises:
        UserError: the share is less than one series in every process.
    """
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
