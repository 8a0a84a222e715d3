"""The data channels of a training job: what is declared, and where each one's files are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.errors import UserError
from container.optml import OptML


@dataclass(frozen=True)
class Channel:
    """A channel that a job can have."""

    name: str
    aliases: tuple[str, ...]
    required: bool


CHANNELS = (Channel("training", ("train",), required=True), Channel("validation", (), required=False))
CONTENT_TYPES = ("text/csv", "csv")
INPUT_MODES = ("File", "FastFile")


def find_channels(optml: OptML) -> dict[str, list[Path]]:
    """The files of each channel that the job has, by the channel's declared name, sorted by path.

    Channels are those of `inputdataconfig.json` (T17); without that file, those of the declared names
    that have a folder below `input/data`.

    Raises:
        UserError: a channel is missing, unknown, given twice or empty, or of a content type or input
            mode that is not supported (T27, T30, T39).
    """
    config = optml.input_data_config()
    if config is None:
        names = [name for channel in CHANNELS for name in (channel.name, *channel.aliases)]
        config = {name: {} for name in names if (optml.data / name).is_dir()}
    _refuse_unknown(config)
    found: dict[str, list[Path]] = {}
    for channel in CHANNELS:
        given = [name for name in (channel.name, *channel.aliases) if name in config]
        if len(given) > 1:
            raise UserError(f"Channels {' and '.join(given)} are the same channel; give one of them.")
        if given:
            _check_settings(given[0], config[given[0]])
            found[channel.name] = _files(given[0], optml.data / given[0])
        elif channel.required:
            there = ", ".join(config) or "none"
            raise UserError(
                f"Channel {channel.name} (or {channel.aliases[0]}) is missing; channels found: {there}. "
                f"Put its CSV files into {optml.data / channel.name}."
            )
    return found


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    known = [name for channel in CHANNELS for name in (channel.name, *channel.aliases)]
    unknown = [name for name in config if name not in known]
    if unknown:
        raise UserError(f"Channel {', '.join(unknown)} is unknown; a job can have the channels {', '.join(known)}.")


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    content_type = settings.get("ContentType") or CONTENT_TYPES[0]
    if content_type.split(";")[0].strip().lower() not in CONTENT_TYPES:
        raise UserError(
            f"Channel {name}: content type {content_type} is not supported; use {' or '.join(CONTENT_TYPES)}."
        )
    mode = settings.get("TrainingInputMode") or INPUT_MODES[0]
    if mode not in INPUT_MODES:
        raise UserError(f"Channel {name}: input mode {mode} is not supported; use {' or '.join(INPUT_MODES)}.")


def _files(name: str, folder: Path) -> list[Path]:
    """Data files below the folder; hidden ones, markers such as `_SUCCESS` and empty files are none (T26)."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.stat().st_size > 0
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise UserError(f"Channel {name} has no data: {folder} holds no file with content.")
    return files
