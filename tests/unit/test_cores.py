import os
from pathlib import Path

import pytest

from lstm_fcn.container import cores
from lstm_fcn.container.cores import allowed_threads, available_cores, wait_passively


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("max 100000", 8), ("5 100", 1)]
)
def test_limit_of_cgroup_2(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 8), ("1600000", 8)])
def test_limit_of_cgroup_1(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == cores


def test_no_limit(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("limit", "processes", "threads"), [(None, 1, 8), (None, 3, 2), (None, 9, 1), ("2", 1, 2), ("6", 2, 4), ("0", 1, 1)]
)
def test_joblib_limits_the_threads(
    limit: str | None, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {} if limit is None else {"OMP_NUM_THREADS": limit})
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    assert allowed_threads(processes) == threads


def test_threads_wait_passively_unless_the_user_wants_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    wait_passively()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE"})
    wait_passively()
    assert os.environ == {"OMP_WAIT_POLICY": "ACTIVE"}
