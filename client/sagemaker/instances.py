"""Instance types: on which the images run, which disks take an encryption key, which GPU driver they need."""

import re

from lstm_fcn.client.sagemaker.checks import values_of

# The images are built for x86-64, so neither Graviton nor Grace, and torch for CUDA, so neither Trainium nor Gaudi.
# The GPUs of p2 are too old for every build, and the GPUs of p3 for the builds with CUDA 13.
_CPU = re.compile(r"ml\.[cmrt]\d([a-fh-z][a-z]*)?(-flex)?\.")
_GPU = re.compile(r"ml\.(g4dn|g5|g6|g6e|g7|g7e|p4d|p4de|p5|p5e|p5en|p6-b\d+)\.")
# Local NVMe disks are encrypted by the hardware; SageMaker refuses `VolumeKmsKeyId` for them.
_LOCAL_DISKS = re.compile(r"ml\.(g\d\w*|p3dn|p[4-9]\w*(-\w+)?|trn\d\w*|[cmr]\d\w*d)\.")

# Machine image with NVIDIA driver 580, the newest there is. Without one, g4dn, g5 and p4d get driver 470, which is too
# old for CUDA 12 and 13, and predictions would be computed on the CPU. Driver 580 runs ONNX Runtime for either; 550, in
# `al2-ami-sagemaker-inference-gpu-3-1`, runs CUDA 12 only.
GPU_MACHINE_IMAGE = "al2023-ami-sagemaker-inference-gpu-4-1"


def supported_types(shape: str, *, gpu: bool) -> list[str]:
    """The types on which the images run, from one of SageMaker's enumerations such as `TrainingInstanceType`."""
    return [name for name in values_of(shape) if _CPU.match(name) or (gpu and _GPU.match(name))]


def disk_key(key: str, instance_type: str) -> str | None:
    """The KMS key for an instance's volume; None where the volume takes none."""
    return None if _LOCAL_DISKS.match(instance_type) else key or None


def machine_image(instance_type: str) -> str | None:
    """`InferenceAmiVersion` of an endpoint's instances; None: SageMaker's default."""
    return GPU_MACHINE_IMAGE if _GPU.match(instance_type) else None
