"""Where and in which precision a job trains: CPU, one GPU, or all GPUs of the machine."""

import logging
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lstm_fcn.container.cores import available_cores
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")  # visible in a container even if it was given no GPU
NVIDIA_DEVICE = Path("/dev/nvidiactl")
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Placement:
    """The device that holds data and weights, how many GPUs share a step, and the precision of a step."""

    device: torch.device
    gpus: int
    bfloat16: bool


class MixedPrecision(nn.Module):
    """A network whose forward pass runs in bfloat16 where that is safe; logits are float32.

    `nn.DataParallel` runs replicas in threads of their own, which do not inherit the caller's autocast
    settings, so autocast has to be inside the module.
    """

    def __init__(self, network: nn.Module, bfloat16: bool) -> None:
        super().__init__()
        self.network = network
        self.mixed = bfloat16

    def forward(self, series: Tensor) -> Tensor:
        with torch.autocast(series.device.type, torch.bfloat16, enabled=self.mixed):
            logits: Tensor = self.network(series)
        return logits.float()


def choose_placement(precision: str, group: Group) -> Placement:
    """The best device there is, logged with versions; `precision` is the hyperparameter (auto, float32, bfloat16).

    Each process of a larger group has one GPU of its machine, or its share of the cores.
    """
    placement = _choose_gpus(precision, group) if torch.cuda.is_available() else _choose_cpu(precision, group)
    logger.info("precision: %s", "bfloat16 steps, float32 weights" if placement.bfloat16 else "float32")
    return placement


def parallel_forward(network: nn.Module, placement: Placement, group: Group) -> nn.Module:
    """The network as a training step calls it: in the step's precision, spread over the GPUs if there are several.

    In a group, its backward pass averages the gradients over the processes.
    """
    forward = MixedPrecision(network, placement.bfloat16)
    if group.size > 1:
        # Batch statistics are those of each process in a step, and are joined before they are used.
        return nn.parallel.DistributedDataParallel(forward, forward_sync_buffers=False)
    return nn.DataParallel(forward) if placement.gpus > 1 else forward


def _choose_gpus(precision: str, group: Group) -> Placement:
    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(k) for k in range(count))
    logger.info("device: %d GPU(s): %s; driver %s, CUDA %s", count, names, _driver_version(), torch.version.cuda)
    # Same data, same seed, same model; and float32 that is not rounded to TensorFloat32.
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    native = all(torch.cuda.get_device_capability(k) >= (8, 0) for k in range(count))
    if group.size > 1:
        torch.cuda.set_device(group.local_rank)
        return Placement(torch.device("cuda", group.local_rank), 1, _use_bfloat16(precision, native))
    return Placement(torch.device("cuda"), count, _use_bfloat16(precision, native))


def _choose_cpu(precision: str, group: Group) -> Placement:
    cores = max(1, available_cores() // group.local_size)
    torch.set_num_threads(cores)
    if NVIDIA_DRIVER.exists():
        logger.warning(
            "WARNING: this machine has an NVIDIA driver (%s), but torch %s cannot use it: %s. "
            "Training on the CPU, which is much slower.",
            _driver_version(),
            torch.__version__,
            _why_no_gpu(),
        )
    logger.info("device: CPU (%s), %d thread(s)", platform.machine(), cores)
    return Placement(torch.device("cpu"), 0, _use_bfloat16(precision, _cpu_has_bfloat16()))


def _cpu_has_bfloat16() -> bool:
    # From the kernel, not from torch: torch.cpu.get_capabilities does not exist before torch 2.11.
    try:
        flags = CPU_INFO.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _why_no_gpu() -> str:
    if not torch.version.cuda:
        return "it is built without CUDA"
    if not NVIDIA_DEVICE.exists():
        return "this container was given no GPU (docker run --gpus all)"
    return f"it needs a driver for CUDA {torch.version.cuda} or newer"


def _use_bfloat16(precision: str, native: bool) -> bool:
    if precision == "bfloat16" and not native:
        logger.warning("WARNING: this hardware has no bfloat16 arithmetic; it is emulated, slower than float32.")
    return native if precision == "auto" else precision == "bfloat16"


def _driver_version() -> str:
    """The NVIDIA driver's version, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ...`."""
    try:
        words = NVIDIA_DRIVER.read_text().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and word.count(".") >= 1), "unknown")
