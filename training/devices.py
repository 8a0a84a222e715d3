"""Where and in which precision a job trains: CPU, one GPU, or all GPUs of the machine."""

import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lstm_fcn.container.cores import allowed_threads
from lstm_fcn.container.errors import UserError
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # also visible in a container that was given no GPU
DEVICES = Path("/dev")
CPU_INFO = Path("/proc/cpuinfo")
LOWEST_DRIVERS = {"11": "450", "12": "525", "13": "580"}  # by major version of CUDA


@dataclass(frozen=True)
class Placement:
    """The device that holds data and weights, how many GPUs share a step, and the precision of a step."""

    device: torch.device
    gpus: int
    bfloat16: bool


class MixedPrecision(nn.Module):
    """A network whose forward pass runs in bfloat16 where that is safe; logits are float32.

    `nn.DataParallel` runs replicas in other threads, which do not inherit the caller's autocast settings, so autocast
    has to be inside the module.
    """

    def __init__(self, network: nn.Module, bfloat16: bool) -> None:
        super().__init__()
        self.network = network
        self.mixed = bfloat16

    def forward(self, series: Tensor) -> Tensor:
        with torch.autocast(series.device.type, torch.bfloat16, enabled=self.mixed):
            logits: Tensor = self.network(series)
        return logits.float()


def choose_placement(precision: str, group: Group, device: str = "auto") -> Placement:
    """Choose where to train, and log it with the versions of driver and CUDA.

    Each process of a larger group gets one GPU of its machine, or its share of the cores.

    Args:
        precision: the hyperparameter (auto, float32, bfloat16).
        group: the processes that train together.
        device: the hyperparameter (auto, cpu, gpu).

    Raises:
        UserError: the machine has a GPU that torch cannot use, or no GPU although `device` is gpu.
    """
    if device == "cpu":
        placement = _choose_cpu(precision, group)
    elif torch.cuda.is_available():
        placement = _choose_gpus(precision, group)
    else:
        _check_no_gpu(device)
        placement = _choose_cpu(precision, group)
    logger.info("precision: %s", "bfloat16 steps, float32 weights" if placement.bfloat16 else "float32")
    return placement


def parallel_forward(network: nn.Module, placement: Placement, group: Group) -> nn.Module:
    """Wrap the network for training steps: in the precision of the placement, on all of its GPUs.

    In a group, the backward pass averages the gradients over the processes.
    """
    forward = MixedPrecision(network, placement.bfloat16)
    if group.size > 1:
        # Each process has its own batch statistics during a step; they are averaged before they are used.
        return nn.parallel.DistributedDataParallel(forward, forward_sync_buffers=False)
    return nn.DataParallel(forward) if placement.gpus > 1 else forward


def _choose_gpus(precision: str, group: Group) -> Placement:
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(k) for k in range(count))
    logger.info("device: %d GPU(s): %s; driver %s, CUDA %s", count, names, _driver_version(), torch.version.cuda)
    # The same data and seed must give the same model; and float32 must not be rounded to TensorFloat32.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    native = all(torch.cuda.get_device_capability(k) >= (8, 0) for k in range(count))
    if group.size > 1:
        torch.cuda.set_device(group.local_rank)
        return Placement(torch.device("cuda", group.local_rank), 1, _use_bfloat16(precision, native))
    return Placement(torch.device("cuda"), count, _use_bfloat16(precision, native))


def _choose_cpu(precision: str, group: Group) -> Placement:
    threads = allowed_threads(group.local_size)
    torch.set_num_threads(threads)
    logger.info("device: CPU (%s), %d thread(s)", platform.machine(), threads)
    return Placement(torch.device("cpu"), 0, _use_bfloat16(precision, _cpu_has_bfloat16()))


def _cpu_has_bfloat16() -> bool:
    # From the kernel, not from torch: torch.cpu.get_capabilities does not exist before torch 2.11.
    try:
        flags = CPU_INFO.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _check_no_gpu(device: str) -> None:
    """Raise `UserError` unless torch is right to find no GPU.

    Training on the CPU of a GPU machine would be slow and expensive, and easy to overlook.
    """
    # A container has these files only if it was given a GPU.
    has_gpu = any(DEVICES.glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
    if has_gpu:
        raise UserError(
            f"This machine has an NVIDIA GPU, but torch {torch.__version__} cannot use it: {_why_unusable()} "
            "To train on the CPU, set device=cpu."
        )
    if device == "gpu":
        raise UserError(
            "device=gpu, but no GPU was found. Use a machine with an NVIDIA GPU and start the container with "
            "docker run --gpus all, or set device=auto or cpu."
        )
    if NVIDIA_DRIVER.exists():
        logger.warning(
            "WARNING: this machine has an NVIDIA driver (%s), but this process has no GPU. Training on the CPU, which "
            "is much slower; to use the GPU in a container, start it with docker run --gpus all.",
            _driver_version(),
        )


def _why_unusable() -> str:
    """Why torch cannot use a GPU that is there, and what to do."""
    cuda = torch.version.cuda
    if not cuda:
        return "it is built without CUDA. Install a build of torch with CUDA."
    lowest = LOWEST_DRIVERS.get(cuda.split(".")[0], "newer than the one installed")
    found = f"the driver is {_driver_version()}" if NVIDIA_DRIVER.exists() else "no driver was found"
    return (
        f"CUDA {cuda} needs NVIDIA driver {lowest} or newer; {found}. Use a newer driver, or an image built with torch "
        "for an older CUDA (docker build --build-arg TORCH=...; see docs/gpu.md)."
    )


def _use_bfloat16(precision: str, native: bool) -> bool:
    if precision == "bfloat16" and not native:
        logger.warning(
            "WARNING: this hardware has no bfloat16 arithmetic; it is emulated, which is slower than float32."
        )
    return native if precision == "auto" else precision == "bfloat16"


def _driver_version() -> str:
    """The NVIDIA driver's version, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ...`."""
    try:
        words = NVIDIA_DRIVER.read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and word.count(".") >= 1), "unknown")
