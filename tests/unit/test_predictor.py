import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.predictor import BLOCK, Predictor, TooLargeError
from tests.models import GOLDEN, save_model_of_variables


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(*artifact.load(GOLDEN / "model"), threads=2)


@pytest.fixture(scope="module")
def series(predictor: Predictor) -> np.ndarray:
    return decode((GOLDEN / "series.csv").read_bytes(), CSV, predictor.metadata)


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_rows_do_not_depend_on_their_neighbours(predictor: Predictor, series: np.ndarray, count: int) -> None:
    many = np.tile(series, (count, 1, 1))[:count]
    found, alone = predictor.predict(many), predictor.predict(series)
    for values, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(values, np.tile(expected, (count, 1))[:count], atol=1e-5)


def test_threads_are_not_mixed_up(predictor: Predictor, series: np.ndarray) -> None:
    expected = predictor.predict(series).probabilities

    def ask(row: int) -> bool:
        many = np.tile(series[row % 8], (1 + row * 7 % 60, 1, 1))
        found = predictor.predict(many).probabilities
        return bool(np.abs(found - expected[row % 8]).max() < 1e-5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


class Exclusive:
    """A session that refuses a second thread."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session, self._free = session, threading.Lock()

    def run(self, *arguments: object) -> object:
        assert self._free.acquire(blocking=False), "two threads at a time"
        try:
            return self._session.run(*arguments)
        finally:
            self._free.release()


def test_openvino_runs_a_session_in_one_thread_at_a_time(tmp_path: Path) -> None:
    predictor = Predictor(*artifact.load(save_model_of_variables(tmp_path)), threads=3)
    if predictor.engine != "OpenVINO":
        pytest.skip("OpenVINO is not installed here")
    assert len(set(map(id, predictor._idle))) == 3
    predictor._idle = [Exclusive(session) for session in predictor._idle]
    many = np.random.default_rng(0).random((40 * BLOCK, 3, 2))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: predictor.predict(many), range(8)))
    assert len(predictor._idle) == 3


def test_the_first_series_that_is_too_large_is_named(predictor: Predictor, series: np.ndarray) -> None:
    many = np.tile(series, (10, 1, 1))
    many[[41, 77]] = 1e300
    with pytest.raises(TooLargeError) as caught:
        predictor.predict(many)
    assert caught.value.index == 41


def test_bfloat16_needs_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert Predictor(*artifact.load(GOLDEN / "model"), threads=1).engine == "CPU"
    with pytest.raises(UserError, match="LSTM_FCN_PRECISION=bfloat16 needs OpenVINO, which is not installed"):
        Predictor(*artifact.load(GOLDEN / "model"), threads=1, precision="bfloat16")


def test_engines_agree(series: np.ndarray, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    plain = Predictor(*artifact.load(GOLDEN / "model"), threads=1)
    for values, expected in zip(predictor.predict(series), plain.predict(series), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, BLOCK + 1])
def test_series_of_several_variables(tmp_path: Path, count: int) -> None:
    predictor = Predictor(*artifact.load(save_model_of_variables(tmp_path)), threads=2)
    series: NDArray[np.float64] = np.random.default_rng(0).normal(size=(count, 3, 2))
    found = predictor.predict(series)
    assert found.probabilities.shape == (count, 3)
    assert found.explanation.shape == (count, 2)
    assert found.most_probable.tolist() == series.mean(axis=2).argmax(axis=1).tolist()
    np.testing.assert_allclose(found.explanation, series.sum(axis=1), atol=1e-5)
