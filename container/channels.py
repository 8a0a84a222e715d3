"""The input channels of a training job and the files of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.optml import OptML


@dataclass(frozen=True)
class Channel:
    """A supported channel."""

    name: str
    aliases: tuple[str, ...]
    required: bool
    content_types: tuple[str, ...]
    input_modes: tuple[str, ...]


DATA_TYPES = ("text/csv", "csv", "application/x-parquet", "application/vnd.apache.arrow.file")
CHANNELS = (
    Channel("training", ("train",), True, DATA_TYPES, ("File", "FastFile", "Pipe")),
    Channel("validation", (), False, DATA_TYPES, ("File", "FastFile", "Pipe")),
    # The model of an earlier job, to continue training from (T70).
    Channel("model", (), False, ("application/x-sagemaker-model",), ("File", "FastFile")),
)


@dataclass(frozen=True)
class Source:
    """The data of one channel.

    files: sorted by path; empty in Pipe mode, and possibly empty on one machine of a sharded channel.
    pipe: in Pipe mode, the FIFO that delivers the data once; it may not exist yet (T35, T36).
    sharded: each machine of the job gets different files (T32).
    """

    name: str
    folder: Path
    files: tuple[Path, ...] = ()
    pipe: Path | None = None
    sharded: bool = False

    def refuse_empty(self) -> None:
        """Raise a `UserError` because the channel has no data."""
        what = "its files contain only blank lines" if self.files else f"{self.folder} contains no files with content"
        if self.pipe is not None:
            what = f"the pipe {self.pipe} delivered no rows"
        raise UserError(f"Channel {self.name} has no data: {what}.")


def find_channels(optml: OptML) -> dict[str, Source]:
    """The channels of a job, by name.

    `inputdataconfig.json` declares them (T17); without that file, they are the supported channels that have a folder
    below `input/data`.

    Raises:
        UserError: a channel is missing, unknown, declared twice or empty, or its content type or input mode is not
            supported (T27, T30, T39).
    """
    config = optml.input_data_config()
    if config is None:
        names = [name for channel in CHANNELS for name in (channel.name, *channel.aliases)]
        config = {name: {} for name in names if (optml.data / name).is_dir()}
    _refuse_unknown(config)
    found: dict[str, Source] = {}
    for channel in CHANNELS:
        given = [name for name in (channel.name, *channel.aliases) if name in config]
        if len(given) > 1:
            raise UserError(f"Channels {' and '.join(given)} are the same channel; give one of them.")
        if given:
            found[channel.name] = _find(optml, channel, given[0], config[given[0]])
        elif channel.required:
            there = ", ".join(config) or "none"
            raise UserError(
                f"Channel {channel.name} (or {channel.aliases[0]}) is missing; channels found: {there}. "
                f"Put its CSV or Parquet files into {optml.data / channel.name}."
            )
    return found


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    known = [name for channel in CHANNELS for name in (channel.name, *channel.aliases)]
    unknown = [name for name in config if name not in known]
    if unknown:
        raise UserError(f"Channel {', '.join(unknown)} is unknown; a job can have the channels {', '.join(known)}.")


def _find(optml: OptML, channel: Channel, name: str, settings: Mapping[str, Any]) -> Source:
    content_type = settings.get("ContentType") or channel.content_types[0]
    if content_type.split(";")[0].strip().lower() not in channel.content_types:
        raise UserError(
            f"Channel {name}: content type {content_type} is not supported; use {' or '.join(channel.content_types)}."
        )
    mode = settings.get("TrainingInputMode") or channel.input_modes[0]
    if mode not in channel.input_modes:
        raise UserError(f"Channel {name}: input mode {mode} is not supported; use {' or '.join(channel.input_modes)}.")
    if (settings.get("RecordWrapperType") or "None") != "None":
        raise UserError(f"Channel {name}: records wrapped as {settings['RecordWrapperType']} are not supported.")
    sharded = settings.get("S3DistributionType") == "ShardedByS3Key"
    if sharded and channel.name == "model":
        raise UserError("Channel model cannot be ShardedByS3Key: every machine needs the whole model.")
    folder = optml.data / name
    if mode == "Pipe":
        return Source(name, folder, pipe=optml.data / f"{name}_0", sharded=sharded)
    source = Source(name, folder, tuple(data_files(folder)), sharded=sharded)
    if not source.files and not sharded:
        source.refuse_empty()
    return source


def data_files(folder: Path) -> list[Path]:
    """Data files below the folder, without hidden files, markers such as `_SUCCESS` and empty files (T26)."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size > 0 and is_data_file(path.relative_to(folder))
    ]


def is_data_file(path: PurePath) -> bool:
    """Whether a path in a folder is neither hidden nor a marker, and in no such folder."""
    return not any(part.startswith((".", "_")) for part in path.parts)
