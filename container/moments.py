"""Times as users write them: numbers, or timestamps in ISO 8601."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError, shorten
from lstm_fcn.container.recording import NANOSECONDS, Preparation

FAR = 2**62  # nanoseconds
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def has_timestamps(preparation: Preparation) -> bool:
    """Whether the times of recordings are timestamps; otherwise they are numbers, or rows are counted."""
    return preparation.time is not None and preparation.unit is None


def parse_time(text: str, preparation: Preparation) -> int:
    """A time in nanoseconds since 1970, or since whatever numbers count from.

    Raises:
        UserError: the text is no time, or a time that exists twice, or not at all, in the timezone.
    """
    if preparation.unit:
        try:
            time = round(float(text) * NANOSECONDS[preparation.unit])
        except (ValueError, OverflowError):
            time = FAR
        if abs(time) >= FAR:
            raise UserError(f"{shorten(text)} is no time; times are numbers of {preparation.unit}.")
        return time
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UserError(f"{shorten(text)} is no time in ISO 8601, such as 2025-03-01T12:00:00Z.") from error
    if not 1700 < moment.year < 2250:
        raise UserError(f"{shorten(text)} is too far away; times are from 1701 to 2249.")
    if moment.tzinfo is None:
        moment = _localize(moment, preparation.timezone)
    since = moment - EPOCH
    # Text has microseconds, also where DuckDB reads it.
    return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000


def _localize(moment: datetime, timezone: str | None) -> datetime:
    if timezone is None:
        return moment.replace(tzinfo=UTC)
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UserError(f"The timezone {timezone} is not known here; give times with an offset.") from error
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        is_gap = first.astimezone(UTC) > second.astimezone(UTC)
        how = "does not exist" if is_gap else "exists twice"
        raise UserError(f"{moment.isoformat()} {how} in {timezone}; give times with an offset.")
    return first


def format_times(times: NDArray[np.int64], preparation: Preparation) -> Sequence[str]:
    """Times as text, in the form in which recordings have them; timestamps in UTC."""
    if has_timestamps(preparation):
        texts = np.datetime_as_string(times.astype("datetime64[ns]")).tolist()
        return [f"{text.rstrip('0').removesuffix('.')}Z" for text in texts]
    if preparation.time is None:
        return [str(row) for row in times.tolist()]
    return [f"{time / NANOSECONDS[preparation.unit or 's']:.15g}" for time in times.tolist()]
