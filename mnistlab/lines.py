"""Lines of JSON that end with a checksum of their own: a file that is only ever appended to, torn tail or not."""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


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
    except ValueError:
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
