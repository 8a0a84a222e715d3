"""Series and labels in memory, in a mapped file or on a GPU."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.container.problem import Problem
from lstm_fcn.training.data.store import MappedArray

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Dataset:
    """Scaled series and their labels.

    series: float32 `[N, M, T]`, on `device`, or in memory or a mapped file if they do not fit on the device. With
        `starts`, a view of all steps of recordings that has a series for each step, `[S - T + 1, M, T]`; they overlap.
    labels: indices of the classes, int32 or int64 `[N]`; or 0 and 1, float32 `[N, C]`; on `device`.
    rows: the series that this set consists of, int64 `[n]`; None: all.
    starts: the windows among `series`, int32 or int64 `[N]`; None: all of `series`.
    groups: numbers of what must not be divided between training and validation, int64 `[N]`; None: anything may be.
    scaler: scales each window alone; None: `series` are scaled.
    storage: the array that holds `series`, unless they are on a GPU.
    """

    series: Tensor
    labels: Tensor
    device: torch.device = CPU
    rows: Tensor | None = None
    starts: Tensor | None = None
    groups: Tensor | None = None
    scaler: Callable[[Tensor], Tensor] | None = None
    storage: MappedArray | None = None

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    @property
    def length(self) -> int:
        return int(self.series.shape[-1])

    def batch(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Series `[B, M, T]` and labels at the positions `picked`, int64 `[B]`, on the device."""
        rows = picked if self.rows is None else self.rows[picked]
        places = rows if self.starts is None else self.starts[rows.to(self.starts.device)].long()
        series = self.series[places.to(self.series.device)].to(self.device)
        if self.storage is not None and self.storage.in_file:
            # Reading a row maps its neighbours, too; soon the whole file would count as memory of this process.
            self.storage.release()
        if self.scaler is not None:
            series = self.scaler(series)
        labels = self.labels[rows.to(self.labels.device)]
        return series, labels if labels.is_floating_point() else labels.long()

    def to(self, device: torch.device) -> "Dataset":
        """The set for training on `device`; its series are copied there if they take up to half of the free memory."""
        if device.type == "cpu":
            return self
        rows = None if self.rows is None else self.rows.to(device)
        moved = replace(self, labels=self.labels.to(device), device=device, rows=rows)
        steps = torch.empty(0, dtype=self.series.dtype).set_(self.series.untyped_storage())  # windows share them
        if steps.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            logger.info("the data does not fit on the device; batches are copied one by one")
            return moved
        series = steps.to(device).as_strided(self.series.shape, self.series.stride(), self.series.storage_offset())
        return replace(moved, series=series, storage=None)


@dataclass(frozen=True)
class Data:
    """The data of a job.

    sample: some series of the training channel before scaling, float64 `[K, M, T]`.
    fingerprint: changes with every value, label and the order of the rows.
    group_names: of the groups in the training and validation sets; empty if the series belong to none.
    """

    problem: Problem
    training: Dataset
    validation: Dataset | None
    sample: NDArray[np.float64]
    fingerprint: str
    group_names: Sequence[str] = ()
