"""Writing files of a run directory so that they are whole or not there, with what the disk refuses put into words."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mnistlab.errors import RunDirectoryError, RunWriteError, short
from mnistlab.store import durable
from mnistlab.store.jsonl import decode_line, encode_file
from mnistlab.util.filenames import RULE, is_plain


@contextmanager
def refusals_told(path: Path) -> Generator[None]:
    """Put into words that the operating system refuses to write `path`: OSError becomes RunWriteError."""
    try:
        yield
    except OSError as error:
        raise RunWriteError(f"can't write {path}: {error.strerror or error}") from error


def open_to_write(path: Path, flags: int) -> int:
    """Open a file of the run directory, made if it is missing. A link in its place is refused: it leads elsewhere.

    Raises:
        RunDirectoryError: if it is a symbolic link.
        RunWriteError: if the disk refuses.
    """
    with refusals_told(path):
        try:
            return durable.open_file(path, flags)
        except OSError:
            if path.is_symlink():
                raise RunDirectoryError(f"can't write {path}: it is a symbolic link") from None
            raise


def refuse_links(run: Path, names: Iterable[str]) -> None:
    """Refuse to write into a run directory in which one of `names` is a link: what it leads to is not the run's.

    Raises:
        RunDirectoryError: naming the first of them.
    """
    for name in names:
        if (run / name).is_symlink():
            raise RunDirectoryError(f"can't write into {run / name}: it is a symbolic link")


def inside(folder: Path, *names: str) -> Path:
    """Return the folder `names` in `folder`, made if it is missing; a run directory that has vanished is not.

    Raises:
        RunDirectoryError: if that would not lie in `folder`: for a name with a separator, `..`, or a symbolic link.
        RunWriteError: if the disk refuses.
    """
    for name in names:
        folder = child(folder, name)
        with refusals_told(folder):
            durable.make_folder(folder)
        if folder.is_symlink():
            raise RunDirectoryError(f"can't write into {folder}: it is a symbolic link")
    return folder


def child(folder: Path, name: str) -> Path:
    """Return `folder/name`.

    Raises:
        RunDirectoryError: if `name` does not keep to `mnistlab.util.filenames.RULE`.
    """
    if not is_plain(name):
        raise RunDirectoryError(f"can't write {short(name)} into {folder}: a name in there {RULE}")
    return folder / name


def append_all(descriptor: int, data: bytes) -> None:
    """Append all of `data` or, as far as that is possible, nothing: a torn line would swallow the one after it."""
    end, rest = os.fstat(descriptor).st_size, memoryview(data)
    try:
        while rest:
            rest = rest[durable.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            durable.truncate(descriptor, end)
        raise


def append_to(path: Path, data: bytes, *, durably: bool = False) -> None:
    """Append to a file; `durably`: return only once it is on the disk.

    Raises:
        RunDirectoryError: if it is a symbolic link.
        RunWriteError: if the disk refuses.
    """
    new = not path.exists()
    descriptor = open_to_write(path, os.O_WRONLY | os.O_APPEND)
    try:
        with refusals_told(path):
            append_all(descriptor, data)
            if durably:
                durable.fsync(descriptor)
            if durably and new:
                durable.fsync_folder(path.parent)
    finally:
        os.close(descriptor)


def mend_tail(path: Path) -> str:
    """Make a file of lines end with a whole one; return in words what was done, "" where nothing was.

    What a writer that died has left of a line is cut off, because what is appended to it would be lost with it. A line
    of which only the line break is missing gets it.
    """
    if not path.exists():
        return ""
    descriptor = open_to_write(path, os.O_RDWR)
    try:
        with refusals_told(path):
            content = path.read_bytes()
            start = content.rfind(b"\n") + 1
            torn = len(content) - start
            if not torn:
                return ""
            if decode_line(content[start:]) is None:
                durable.truncate(descriptor, start)
                return f"cut off {torn} bytes of a line that was never written to its end"
            os.lseek(descriptor, 0, os.SEEK_END)
            append_all(descriptor, b"\n")
            return "added the line break that the last line lacked"
    finally:
        os.close(descriptor)


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write a JSON file, with its checksum, so that it is either whole or not there.

    Raises:
        RunWriteError: as `write_bytes`.
        ValueError: if it holds a number that JSON has not.
    """
    write_bytes(path, encode_file(body))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by temporary file, flush, rename and flush of the folder.

    Raises:
        RunWriteError: if the disk is full, read-only or gone; then the old file, if there is one, is whole.
        RunDirectoryError: if a symbolic link is in the place of the temporary file.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with refusals_told(path):
        try:
            _fill(temporary, data)
            durable.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        durable.fsync_folder(path.parent)


def _fill(path: Path, data: bytes) -> None:
    descriptor = open_to_write(path, os.O_WRONLY | os.O_TRUNC)
    try:
        append_all(descriptor, data)
        durable.fsync(descriptor)
    finally:
        os.close(descriptor)
