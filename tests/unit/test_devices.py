import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lstm_fcn.training import devices
from lstm_fcn.training.devices import MixedPrecision, Placement, choose_placement, parallel_forward
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import LSTMFCN, Ensemble


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path / "version")
    caplog.set_level(logging.INFO)


def set_cpu_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags} sse2\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("precision", "native", "bfloat16"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("float32", True, False),
        ("bfloat16", True, True),
        ("bfloat16", False, True),
    ],
)
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_precision_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, native: bool, bfloat16: bool, flag: str
) -> None:
    set_cpu_flags(monkeypatch, tmp_path, flag if native else "avx2")
    assert choose_placement(precision, Group()) == Placement(torch.device("cpu"), 0, bfloat16)


def test_emulated_bfloat16_is_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_cpu_flags(monkeypatch, tmp_path, "avx2")
    choose_placement("bfloat16", Group())
    assert "WARNING: this hardware has no bfloat16 arithmetic" in caplog.text


@pytest.mark.parametrize(
    ("cuda", "device", "reason"),
    [
        ("13.0", True, "it needs a driver for CUDA 13.0 or newer."),
        ("13.0", False, "this container was given no GPU (docker run --gpus all)."),
        (None, True, "it is built without CUDA."),
    ],
)
def test_a_driver_that_torch_cannot_use_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    cuda: str | None,
    device: bool,
    reason: str,
) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 2021\n")
    monkeypatch.setattr(devices, "NVIDIA_DEVICE", tmp_path / "version" if device else tmp_path / "nothing")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert choose_placement("float32", Group()).device.type == "cpu"
    assert "WARNING: this machine has an NVIDIA driver (470.57.02), but torch" in caplog.text
    assert f"cannot use it: {reason} Training on the CPU" in caplog.text


@pytest.mark.parametrize(("capability", "bfloat16"), [((7, 5), False), ((9, 0), True)])
def test_gpus(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capability: tuple[int, int],
    bfloat16: bool,
) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert choose_placement("auto", Group()) == Placement(torch.device("cuda"), 2, bfloat16)
    assert "device: 2 GPU(s): NVIDIA X, NVIDIA X; driver 580.65.06, CUDA 13.0" in caplog.text


def test_the_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(devices, "available_cores", lambda: 8)
    choose_placement("float32", Group(2, 6, local_rank=2, local_size=3))
    choose_placement("float32", Group(2, 32, local_rank=2, local_size=16))
    assert threads == [2, 1]


def test_each_process_of_a_group_has_one_gpu_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    placement = choose_placement("auto", Group(3, 4, local_rank=1, local_size=2))
    assert placement == Placement(torch.device("cuda", 1), 1, bfloat16=True)
    assert chosen == [1]


def test_several_gpus_share_a_step_by_data_parallel() -> None:
    network = nn.Linear(2, 2)
    one = parallel_forward(network, Placement(torch.device("cpu"), 1, bfloat16=True), Group())
    assert isinstance(one, MixedPrecision)
    two = parallel_forward(network, Placement(torch.device("cpu"), 2, bfloat16=True), Group())
    assert isinstance(two, nn.DataParallel)
    # Replicas run in threads that inherit no autocast: it has to be inside what is replicated.
    assert isinstance(two.module, MixedPrecision)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_mixed_precision_computes_in_bfloat16_and_returns_float32(bfloat16: bool) -> None:
    network = nn.Linear(64, 8)
    series = torch.randn(16, 64)
    found = MixedPrecision(network, bfloat16)(series)
    assert found.dtype == torch.float32
    assert torch.equal(found, network(series)) is not bfloat16
    torch.testing.assert_close(found, network(series), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("settings", [{}, {"num_variables": 3, "recurrent": "alstm", "squeeze_excite": True}])
def test_the_layers_that_read_the_series_stay_in_float32(settings: dict[str, Any]) -> None:
    network = LSTMFCN(20, 2, **settings)
    dtypes: dict[str, torch.dtype] = {}
    for name in ("recurrent", "fcn.0.conv", "fcn.1.conv", "fcn.2.conv"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, output, name=name: dtypes.update({name: output.dtype}))
    MixedPrecision(network, bfloat16=True)(torch.randn(3, settings.get("num_variables", 1), 20))
    assert dtypes == {
        "recurrent": torch.float32,
        "fcn.0.conv": torch.float32,
        "fcn.1.conv": torch.bfloat16,
        "fcn.2.conv": torch.bfloat16,
    }


def test_an_ensemble_in_mixed_precision_returns_float32() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble([LSTMFCN(20, 2, filters=(4, 4, 4)) for _ in range(2)]).eval()
    series = torch.randn(3, 1, 20)
    found = MixedPrecision(ensemble, bfloat16=True)(series)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ensemble(series), atol=0.02, rtol=0.02)
