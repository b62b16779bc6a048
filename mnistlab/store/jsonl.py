"""JSON that ends with a checksum of its own: lines of a file that is only ever appended to, and whole files."""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_FILE_TAIL = b',\n "crc": "'  # only the outermost object is indented by one space, and JSON writes no raw line break


def encode_line(record: Mapping[str, Any]) -> bytes:
    """Return one JSON line with a checksum of its other keys under `crc`."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False)
    return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line that `encode_line` wrote, or None if the line is torn or changed."""
    head, found, tail = line.rstrip(b"\n").rpartition(b',"crc":"')
    body = head + b"}"
    if not found or tail != f'{zlib.crc32(body):08x}"}}'.encode():
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):  # the second where brackets are nested a thousand deep
        return None
    return record if isinstance(record, dict) else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of checksummed lines; lines that are torn or changed are skipped."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            record = decode_line(line)
            if record is not None:
                yield record


def last_line(path: Path) -> dict[str, Any] | None:
    """Return the last whole object of such a file, or None if there is none."""
    return next(iter(deque(read_lines(path), maxlen=1)), None)


def encode_file(body: Mapping[str, Any]) -> bytes:
    """Return a JSON file of one object, with a checksum of its other keys under `crc`, the last one.

    Raises:
        ValueError: if it holds a number that JSON has not.
    """
    text = json.dumps(body, indent=1, allow_nan=False).encode()
    if not body:
        return text + b"\n"
    return text.removesuffix(b"\n}") + _FILE_TAIL + f'{zlib.crc32(text):08x}"\n}}\n'.encode()


def is_as_written(content: bytes) -> bool | None:
    """Return whether a file that `encode_file` made is unchanged; None if it has no checksum, as those of before."""
    place = content.rfind(_FILE_TAIL, -len(_FILE_TAIL) - 16)
    if place < 0:
        return None
    checksum = zlib.crc32(b"\n}", zlib.crc32(memoryview(content)[:place]))
    return content[place + len(_FILE_TAIL) :].rstrip(b"\n") == f'{checksum:08x}"\n}}'.encode()
