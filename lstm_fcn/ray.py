"""Predictions of datasets of Ray Data. The predictions are those of `lstm-fcn transform`, bit for bit.

Needs the extra `ray`: pip install 'lstm-fcn[ray]'.
"""

import io
from pathlib import Path

import pyarrow
import ray.data
from pyarrow import parquet

from lstm_fcn.client.predict_dataset import Model
from lstm_fcn.container.media_types import Precision

BATCH_ROWS = 1024


def predict(
    dataset: ray.data.Dataset,
    model: str | Path,
    *,
    outputs: str = "",
    join: bool = True,
    precision: Precision = "float32",
    workers: int | None = None,
) -> ray.data.Dataset:
    """Predict a dataset with a series in each row, in actors of one core each that keep the model.

    Ray runs the batches of a machine that is lost again on another one.

    Args:
        dataset: rows as in a table for `lstm-fcn transform`: list columns, one for each variable, or a column of
            numbers for each time step.
        model: folder of the model on this machine.
        outputs: names, separated by commas, as for `lstm-fcn transform`.
        join: append the predictions to the columns of the dataset; otherwise the result has the predictions alone.
        precision: of the arithmetic.
        workers: actors; None: as many as there are batches to predict and cores in the cluster.

    Raises:
        UserError: there is no model in the folder, or it does not have the outputs.
    """
    return dataset.map_batches(
        _Predict,
        fn_constructor_args=(Model.read(Path(model), outputs, join, precision),),
        batch_format="pyarrow",
        batch_size=BATCH_ROWS,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers) if workers else ray.data.ActorPoolStrategy(min_size=1),
    )


class _Predict:
    """An actor that holds a session of ONNX Runtime."""

    def __init__(self, model: Model) -> None:
        self._transform = model.open()

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        sink = io.BytesIO()
        self._transform.run_table(_plain(batch), sink, lambda _: None)
        return parquet.read_table(sink)


def _plain(batch: pyarrow.Table) -> pyarrow.Table:
    """A table whose arrays, for which Ray has a type of its own, are lists."""
    for place, field in enumerate(batch.schema):
        if isinstance(field.type, pyarrow.BaseExtensionType):
            chunks = [chunk.storage for chunk in batch.column(place).chunks]
            batch = batch.set_column(place, field.name, pyarrow.chunked_array(chunks, field.type.storage_type))
    return batch
