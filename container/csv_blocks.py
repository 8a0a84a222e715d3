"""CSV text in blocks of whole lines, and the fast parser for blocks without anything unusual."""

import contextlib
import gzip
import io
import threading
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import simdjson
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError

# Bytes parsed at once: small enough for the cache, and for other threads, such as those that answer health checks,
# to get their turn soon (S3).
BLOCK_BYTES = 512 * 1024
LONGEST_LABEL = 64  # bytes; blocks with longer ones are read line by line
END_OF_LINE = b"-8e307"
LONGEST_LINE = 256 * 1024 * 1024
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_of_thread = threading.local()


@contextlib.contextmanager
def unpacked(stream: "io.BufferedReader[Any]", name: str) -> Iterator[BinaryIO]:
    """The content of a stream, decompressed if it is gzip (T31).

    Args:
        stream: opened for reading.
        name: what messages call it.

    Raises:
        UserError: the gzip data is truncated or damaged; raised here or while the content is read.
    """
    try:
        if stream.peek(2)[:2] != GZIP:
            yield stream
            return
        with gzip.GzipFile(fileobj=stream) as packed:
            yield cast(BinaryIO, packed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name} is not a complete gzip file: {error}.") from error


def read_blocks(stream: BinaryIO, source: str, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line; every line ending becomes `\\n`.

    Raises:
        UserError: a line is longer than `LONGEST_LINE`.
    """
    number, carry = 1, b""
    while chunk := stream.read(block_bytes):
        if number == 1 and not carry:
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)
        end = chunk.rfind(b"\n") + 1
        if not end:
            carry += chunk
            if len(carry) > LONGEST_LINE:
                raise UserError(f"{source}, row {number} is longer than {LONGEST_LINE >> 20} MiB; is it CSV text?")
            continue
        block, carry = _unify_newlines(carry + chunk[:end]), chunk[end:]
        yield number, block
        number += int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")))
    if carry:
        yield number, _unify_newlines(carry)


class Plain(NamedTuple):
    """A block that `parse_plain` understood: its labels, if rows have any, and its values, float64 `[n, W]`."""

    labels: list[str]
    values: NDArray[np.float64]


def parse_plain(text: bytes, labelled: bool) -> Plain | None:
    """Parse lines that have the same number of cells and numbers in JSON notation, after a label if `labelled`.

    Returns:
        None for all other text, whether it is invalid or only unusual; `SeriesReader` then parses it line by line.
    """
    # JSON would accept a nested array as numbers; a NUL at the end of a label would be lost.
    if not text or any(odd in text for odd in (b'"', b"[", b"\0")):
        return None
    lines = bytearray(text.removesuffix(b"\n"))
    newlines = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == ord("\n"))
    count = len(newlines) + 1
    labels = _take_labels(lines, np.concatenate(([0], newlines + 1)), text.isascii()) if labelled else []
    if labels is None:
        return None
    # The text becomes one JSON array, with a number of its own after each line: if these are where they should be, all
    # lines have the same number of cells.
    values = _parse_json(b"[" + lines.replace(b"\n", b",%s," % END_OF_LINE) + b",%s]" % END_OF_LINE)
    if values is None or len(values) % count or len(values) == count:
        return None
    table = values.reshape(count, -1)
    ends = table == float(END_OF_LINE)
    if not ends[:, -1].all() or np.count_nonzero(ends) != count:
        return None
    return Plain(labels, np.ascontiguousarray(table[:, :-1]))


def _parse_json(json: bytes) -> NDArray[np.float64] | None:
    if not hasattr(_of_thread, "parser"):
        _of_thread.parser = simdjson.Parser()  # reuses its memory for the next text
    try:
        array = cast(simdjson.Array, _of_thread.parser.parse(json))
        return np.frombuffer(array.as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):
        return None


def _take_labels(lines: bytearray, starts: NDArray[np.int64], is_ascii: bool) -> list[str] | None:
    """Each line's first cell, overwritten with blanks; None if one is blank, very long or not UTF-8."""
    characters = np.frombuffer(lines, dtype=np.uint8)
    columns: list[NDArray[np.uint8]] = []
    waiting = np.ones(len(starts), dtype=np.bool_)  # lines whose comma has not come yet
    places = starts.copy()
    while waiting.any():
        if len(columns) > LONGEST_LABEL or places[-1] >= len(characters):
            return None
        found = np.where(waiting, characters[places], 0)
        if (found == ord("\n")).any():  # a line without a comma
            return None
        characters[places[waiting]] = ord(" ")
        waiting &= found != ord(",")
        columns.append(np.where(waiting, found, 0))
        places += waiting
    cells = np.stack(columns, axis=1).astype(np.uint8).view(f"S{len(columns)}")[:, 0]
    try:
        labels: list[str] = (cells.astype(np.str_) if is_ascii else np.char.decode(cells, "utf-8")).tolist()
    except UnicodeDecodeError:
        return None
    return labels if all(map(str.strip, set(labels))) else None


def _unify_newlines(text: bytes) -> bytes:
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
