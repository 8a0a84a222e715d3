"""The part of a folder that is this machine's, if several machines work on it without talking to each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.optml import OptML, read_json

INDEXES = ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")  # of AWS Batch and Kubernetes
COUNT = "AWS_BATCH_JOB_ARRAY_SIZE"
File = TypeVar("File")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th file, starting at number `index`."""

    index: int = 0
    count: int = 1

    def of(self, files: Sequence[File]) -> list[File]:
        """The files of this shard; `files` must be in the same order on all machines."""
        return list(files[self.index :: self.count])


def find_shard(text: str | None, source: Path, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard of this process.

    Args:
        text: `I/N`, or `/N` with I from the environment; None: both from the environment of an AWS Batch array job, a
            Kubernetes indexed job or a SageMaker Processing job, else everything.
        source: the folder that is divided.
        environment: of the process.

    Raises:
        UserError: the shard does not exist, or it is unknown how many there are.
    """
    given = next((environment[name] for name in INDEXES if environment.get(name)), None)
    if text is None:
        if given is None:
            return _of_processing_job(source, OptML.from_environment(environment).root / "config")
        if COUNT not in environment:
            raise UserError(f"This is number {given} of several jobs; say of how many: --shard /7 if there are seven.")
        text = f"{given}/{environment[COUNT]}"
    elif text.startswith("/"):
        if given is None:
            raise UserError(f"--shard {text} takes the number of the job from {' or '.join(INDEXES)}; neither is set.")
        text = f"{given}{text}"
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    shard = Shard(*map(int, numbers.groups())) if numbers else Shard(0, 0)
    if shard.index >= shard.count:
        raise UserError(f"There is no shard {text}; of seven, the first is 0/7 and the last is 6/7.")
    return shard


def _of_processing_job(source: Path, config: Path) -> Shard:
    """The shard of a SageMaker Processing job's host, unless the platform has divided the files between the hosts."""
    resources = read_json(config / "resourceconfig.json") or {}
    hosts = sorted(resources.get("hosts", []))
    if len(hosts) < 2 or resources.get("current_host") not in hosts:
        return Shard()
    job = read_json(config / "processingjobconfig.json") or {}
    for channel in job.get("ProcessingInputs", []):
        place = channel.get("S3Input", {})
        is_divided = place.get("S3DataDistributionType") == "ShardedByS3Key"
        if is_divided and source.resolve().is_relative_to(Path(place.get("LocalPath", "/")).resolve()):
            return Shard()
    return Shard(hosts.index(resources["current_host"]), len(hosts))
