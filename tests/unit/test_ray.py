"""Models and predictions on a Ray cluster, which is simulated: each node is a few processes of this machine."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from lstm_fcn.client.__main__ import main
from lstm_fcn.client.predict_dataset import Folder, Model, predict_file
from lstm_fcn.container.spread import spread
from tests.models import LENGTH, NAMES, SERIES, save_plain_model
from tests.unit.test_predict_dataset import contents, transformed
from tests.unit.test_train_many import OPTIONS, make_table, models

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'lstm-fcn[ray]'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

NODES, FILES = 4, 12
OUTPUTS = "predicted_label,probability,probabilities"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of four nodes, beside the one of the programs, which has no tasks."""
    from ray.cluster_utils import Cluster

    found: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(NODES):
        found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_plain_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for k in range(FILES):
        values = pyarrow.array(list(rng.normal(size=(20 + k, LENGTH))))
        parquet.write_table(pyarrow.table({"series": values}), tmp_path / "in" / f"{k}.parquet")
    return tmp_path / "in"


def test_files(cluster: Any, model: Path, series: Path, tmp_path: Path) -> None:
    command = ["predict-dataset", str(model), str(series), str(tmp_path / "out"), "--ray", cluster.address]
    assert main(command) == 0
    assert contents(tmp_path / "out") == transformed(model, series, tmp_path / "expected")


def test_models(cluster: Any, tmp_path: Path) -> None:
    make_table(tmp_path / "t.parquet")
    command = ["train-many", str(tmp_path / "t.parquet"), "--by", "machine", *OPTIONS]
    assert main([*command, str(tmp_path / "local"), "--workers", "1"]) == 0
    assert main([*command, str(tmp_path / "ray"), "--ray", cluster.address]) == 0
    assert models(tmp_path / "ray") == models(tmp_path / "local")
    assert len(models(tmp_path / "ray")) == 3


def predict_and_wait(model: Model, inputs: Folder, outputs: Folder, marks: str, name: str) -> int | str:
    """Predict a file; one task on each node does not end before a node is lost, and that on the lost node never."""
    found = predict_file(model, inputs, outputs, name)
    node = ray.get_runtime_context().get_node_id()
    Path(marks, f"{name} {node}").touch()
    if int(name.removesuffix(".parquet")) < NODES + 1:
        while not any(path.suffix != f".{node}" for path in Path(marks).glob("lost.*")):
            time.sleep(0.05)
    return found


def test_a_lost_node(cluster: Any, model: Path, series: Path, tmp_path: Path) -> None:
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    marks, output = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()

    def lose() -> None:
        while not list(marks.glob(f"* {lost.node_id}")):
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        (marks / f"lost.{lost.node_id}").touch()

    thread = threading.Thread(target=lose)
    thread.start()
    function = partial(predict_and_wait, Model.read(model), Folder.at(str(series)), Folder.at(str(output)), str(marks))
    names = [f"{k}.parquet" for k in range(FILES)]
    found = list(spread(function, names, cluster=cluster.address))
    thread.join()
    assert sorted(found) == sorted((name, 20 + k) for k, name in enumerate(names))
    assert contents(output) == transformed(model, series, tmp_path / "expected")
    nodes = Counter(path.name.split()[0] for path in marks.glob("* *"))
    assert sorted(nodes.values()) == [1] * (FILES - 1) + [2]  # the task of the lost node ran on another one


def slowly(batch: pyarrow.Table) -> pyarrow.Table:
    time.sleep(0.2)
    return batch


@pytest.mark.parametrize("join", [True, False])
def test_a_dataset_while_a_node_is_lost(join: bool, cluster: Any, model: Path, tmp_path: Path) -> None:
    from lstm_fcn.ray import predict

    values = np.random.default_rng(0).normal(size=(1000, LENGTH))
    table = pyarrow.table({"series": pyarrow.array(list(values))})
    (tmp_path / "in").mkdir()
    parquet.write_table(table, tmp_path / "in" / "all.parquet")
    options = ["--outputs", OUTPUTS, *(["--join"] if join else [])]
    folders = [str(model), str(tmp_path / "in"), str(tmp_path / "expected")]
    assert main(["transform", *options, *folders]) == 0
    expected = parquet.read_table(tmp_path / "expected" / "all.parquet.out.parquet")
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        lost = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        dataset = ray.data.from_arrow([table.slice(k, 40) for k in range(0, 1000, 40)])
        dataset = dataset.map_batches(slowly, batch_format="pyarrow")
        batches = predict(dataset, model, outputs=OUTPUTS, join=join).iter_batches(
            batch_size=40, batch_format="pyarrow"
        )
        iterator = iter(batches)
        found = [next(iterator)]
        cluster.remove_node(lost, allow_graceful=False)
        found += list(iterator)
    finally:
        ray.shutdown()
    whole = pyarrow.concat_tables(found)
    assert whole.schema.names == expected.schema.names
    assert sorted(map(repr, whole.to_pylist())) == sorted(map(repr, expected.to_pylist()))


def test_arrays_of_numpy(cluster: Any, model: Path) -> None:
    from lstm_fcn.ray import predict

    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        predicted = predict(ray.data.from_numpy(SERIES), model, join=False, workers=1)
        assert [row["predicted_label"] for row in predicted.take_all()] == NAMES
    finally:
        ray.shutdown()
