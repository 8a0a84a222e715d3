import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lstm_fcn.container import cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.training import devices
from lstm_fcn.training.devices import MixedPrecision, Placement, choose_placement, parallel_forward
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import LSTMFCN, Ensemble


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(devices, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
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


@pytest.fixture
def _has_gpu(tmp_path: Path) -> None:
    """The device files of a machine with a GPU."""
    for name in ("nvidia0", "nvidiactl"):
        (tmp_path / name).touch()


@pytest.mark.usefixtures("_has_gpu")
class TestUnusableGpu:
    """The machine has a GPU, but torch cannot use it."""

    @pytest.mark.parametrize("device", ["auto", "gpu"])
    def test_a_driver_that_is_too_old_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
    ) -> None:
        driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 2021\n"
        (tmp_path / "version").write_text(driver)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        with pytest.raises(UserError) as error:
            choose_placement("float32", Group(), device)
        text = str(error.value)
        assert text.startswith(f"This machine has an NVIDIA GPU, but torch {torch.__version__} cannot use it: ")
        assert "CUDA 13.0 needs NVIDIA driver 580 or newer; the driver is 470.57.02." in text
        assert "--build-arg TORCH=" in text
        assert text.endswith("To train on the CPU, set device=cpu.")

    @pytest.mark.parametrize(
        ("cuda", "reason"),
        [("12.8", "CUDA 12.8 needs NVIDIA driver 525 or newer; no driver was found."), (None, "built without CUDA.")],
    )
    def test_other_reasons(self, monkeypatch: pytest.MonkeyPatch, cuda: str | None, reason: str) -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        with pytest.raises(UserError, match=reason):
            choose_placement("float32", Group())

    def test_the_cpu_can_be_chosen(self) -> None:
        assert choose_placement("float32", Group(), "cpu").device.type == "cpu"

    def test_a_gpu_may_be_hidden_on_purpose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert choose_placement("float32", Group()).device.type == "cpu"


def test_a_driver_without_a_gpu_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 2021\n")
    assert choose_placement("float32", Group()).device.type == "cpu"
    assert "WARNING: this machine has an NVIDIA driver (470.57.02), but this process has no GPU." in caplog.text


def test_a_gpu_that_is_asked_for_must_be_there() -> None:
    with pytest.raises(UserError, match=r"device=gpu, but no GPU was found\."):
        choose_placement("float32", Group(), "gpu")


def test_the_cpu_is_used_beside_a_gpu_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_placement("float32", Group(), "cpu") == Placement(torch.device("cpu"), 0, bfloat16=False)


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
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
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
    for name in ("recurrent", "fcn.0.convs.0", "fcn.1.convs.0", "fcn.2.convs.0"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, output, name=name: dtypes.update({name: output.dtype}))
    MixedPrecision(network, bfloat16=True)(torch.randn(3, settings.get("num_variables", 1), 20))
    assert dtypes == {
        "recurrent": torch.float32,
        "fcn.0.convs.0": torch.float32,
        "fcn.1.convs.0": torch.bfloat16,
        "fcn.2.convs.0": torch.bfloat16,
    }


def test_an_ensemble_in_mixed_precision_returns_float32() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble([LSTMFCN(20, 2, filters=(4, 4, 4)) for _ in range(2)]).eval()
    series = torch.randn(3, 1, 20)
    found = MixedPrecision(ensemble, bfloat16=True)(series)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ensemble(series), atol=0.02, rtol=0.02)
