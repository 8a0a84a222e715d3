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
        whole, newline, rest = chunk.rpartition(b"\n")
        if not newline:
            carry += chunk
            if len(carry) > LONGEST_LINE:
                raise UserError(f"{source}, row {number} is longer than {LONGEST_LINE >> 20} MiB; is it CSV text?")
            continue
        block, carry = _unify_newlines(carry + whole + newline), rest
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
    # JSON would accept a nested array as numbers.
    if not text or b'"' in text or b"[" in text:
        return None
    text = text.removesuffix(b"\n") + b"\n"
    # The text becomes one JSON array: newlines are replaced by commas, labels by blanks.
    characters = np.frombuffer(bytearray(text), dtype=np.uint8)
    separators = _find_separators(characters)
    if separators is None:
        return None
    labels = _take_labels(text, characters, separators) if labelled else []
    if labels is None:
        return None
    characters[separators[:-1, -1]] = ord(",")
    values = _parse_json(b"[" + characters.tobytes() + b"]")
    width = separators.shape[1] - labelled
    if values is None or len(values) != len(separators) * width:
        return None
    return Plain(labels, values.reshape(-1, width))


def _parse_json(json: bytes) -> NDArray[np.float64] | None:
    if not hasattr(_of_thread, "parser"):
        _of_thread.parser = simdjson.Parser()  # reuses its memory for the next text
    try:
        array = cast(simdjson.Array, _of_thread.parser.parse(json))
        return np.frombuffer(array.as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):
        return None


def _find_separators(characters: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Positions of each line's commas and, last, its newline: `[n, C + 1]`; None if the number of commas varies."""
    newlines = characters == ord("\n")
    count = int(np.count_nonzero(newlines))
    separators = np.flatnonzero(newlines | (characters == ord(",")))
    per_line, rest = divmod(len(separators), count)
    if rest:
        return None
    found = separators.reshape(count, per_line)
    # There are `count` newlines; if each row ends with one, all other separators are commas.
    return found if newlines[found[:, -1]].all() else None


def _take_labels(text: bytes, characters: NDArray[np.uint8], separators: NDArray[np.int64]) -> list[str] | None:
    """Each line's first cell, overwritten with blanks in `characters`; None if one is blank or not UTF-8."""
    if separators.shape[1] < 2:
        return None
    first = separators[:, 0]
    starts = np.concatenate(([0], separators[:-1, -1] + 1))
    places = zip(starts.tolist(), first.tolist(), strict=True)
    try:
        if text.isascii():
            ascii_text = text.decode("ascii")
            labels = [ascii_text[start:end] for start, end in places]
        else:
            labels = [text[start:end].decode() for start, end in places]
    except UnicodeDecodeError:
        return None
    if not all(map(str.strip, labels)):
        return None
    for offset in range(int((first - starts).max()) + 1):
        place = starts + offset
        characters[place[place <= first]] = ord(" ")
    return labels


def _unify_newlines(text: bytes) -> bytes:
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
