"""IDX files, the format that MNIST and its descendants come in, read with distrust.

An IDX file is two zero bytes, a type code, the number of dimensions, the size of each as a big-endian 32-bit number,
and then the values (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "file
formats"). Nothing is allocated because a header says so: the payload is read in pieces, and never past its end.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnistlab.errors import DataError

IMAGES = (3, 4)  # dimensions: (N, H, W), or (N, C, H, W) for images with channels
LABELS = (1,)
MAX_BYTES = 2**31  # decompressed: a thousand times Fashion-MNIST's archive, and what a machine can still hold

_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class IdxArray:
    """The uint8 values of an IDX file in the shape that its header gives, and the sha256 of its decompressed bytes."""

    values: npt.NDArray[np.uint8]
    sha256: str


def read_idx(path: Path, dimensions: tuple[int, ...]) -> IdxArray:
    """Read the IDX file at `path`, gzip-compressed or not, which must have one of the numbers of `dimensions`.

    The contents decide whether it is gzip, not the name. The array is read-only.

    Raises:
        DataError: naming the file, what was expected and what was found.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            _check_start(path, start)
            if start.startswith(_GZIP):
                with gzip.GzipFile(fileobj=file) as stream:
                    return _parse(path, stream, None, dimensions)
            return _parse(path, file, path.stat().st_size, dimensions)
    except EOFError:
        raise DataError(f"{path}: truncated: the gzip stream ends early, after {path.stat().st_size:,} bytes") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: corrupt: a gzip stream was expected, but decompressing it fails: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error


def _check_start(path: Path, start: bytes) -> None:
    if not start:
        raise DataError(f"{path}: empty: an IDX file was expected, but found 0 bytes")
    if start.lstrip().startswith(b"<"):
        raise DataError(
            f"{path}: an HTML page: an IDX file or a gzip archive was expected, but it begins with {start[:24]!r}; "
            "a server probably sent an error page, so delete the file and fetch it again"
        )


def _parse(path: Path, stream: BufferedIOBase, size: int | None, dimensions: tuple[int, ...]) -> IdxArray:
    head = stream.read(4)
    count = _check_magic(path, head, dimensions)
    sizes = stream.read(4 * count)
    if len(sizes) < 4 * count:
        raise DataError(
            f"{path}: truncated: a header of {4 + 4 * count} bytes was expected, but found {4 + len(sizes)}"
        )
    shape = tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))
    expected = _check_size(path, shape, size)
    payload, ends_early = _read(stream, expected - 4 - len(sizes) + 1)
    _check_found(path, shape, expected, 4 + len(sizes) + len(payload), ends_early=ends_early)
    digest = hashlib.sha256(head + sizes)
    digest.update(payload)
    return IdxArray(values=np.frombuffer(payload, dtype=np.uint8).reshape(shape), sha256=digest.hexdigest())


def _check_magic(path: Path, head: bytes, dimensions: tuple[int, ...]) -> int:
    """Return the number of dimensions that the magic number announces."""
    rule = " or ".join(f"0x0000080{n}" for n in dimensions)
    words = f"uint8, {' or '.join(map(str, dimensions))} dimension{'s' * (dimensions != (1,))}"
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES:
        raise DataError(f"{path}: not an IDX file: magic {rule} ({words}) was expected, but found 0x{head.hex()}")
    if head[2] != 0x08 or head[3] not in dimensions:
        found = f"0x{head.hex()} ({_TYPES[head[2]]}, {head[3]} dimension{'s' * (head[3] != 1)})"
        raise DataError(f"{path}: the wrong kind of IDX file: magic {rule} ({words}) was expected, but found {found}")
    return head[3]


def _check_size(path: Path, shape: tuple[int, ...], size: int | None) -> int:
    """Return the number of bytes of a whole file of `shape`; a raw file's `size` is held against it at once."""
    expected = 4 + 4 * len(shape) + math.prod(shape)
    if math.prod(shape) == 0:
        raise DataError(f"{path}: holds nothing: at least one value was expected, but its header says {_by(shape)}")
    if size is not None:
        _check_found(path, shape, expected, size)
    if expected > MAX_BYTES:
        rule = f"at most {MAX_BYTES:,} bytes are read"
        raise DataError(f"{path}: too large: {rule}, but its header says {_by(shape)}, which is {expected:,}")
    return expected


def _check_found(path: Path, shape: tuple[int, ...], expected: int, found: int, *, ends_early: bool = False) -> None:
    if found == expected and not ends_early:
        return
    rule = f"{expected:,} bytes ({_by(shape)} and a header) were expected"
    if ends_early:
        raise DataError(f"{path}: truncated: {rule}, but the gzip stream ends early, after {found:,}")
    if found < expected:
        raise DataError(f"{path}: truncated: {rule}, but found {found:,}")
    raise DataError(f"{path}: longer than its header says: {rule}, but found at least {found:,}")


def _read(stream: BufferedIOBase, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` bytes of `stream`, and whether it broke off in the middle of its gzip stream."""
    pieces: list[bytes] = []
    try:
        while limit > 0 and (piece := stream.read1(min(_PIECE, limit))):
            pieces.append(piece)
            limit -= len(piece)
    except EOFError:
        return b"".join(pieces), True
    return b"".join(pieces), False


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)
