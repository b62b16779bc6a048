"""Files that a command writes where its user says: whole or as they were, and never through a symbolic link."""

from __future__ import annotations

from pathlib import Path

from mnistlab.errors import ExitCode, MnistlabError, RunDirectoryError, RunWriteError


class NotWrittenError(MnistlabError):
    """A file that was asked for can't be written."""

    exit_code = ExitCode.USAGE


def is_device(path: Path) -> bool:
    """Return whether a path is one of the system's own, as /dev/stdout is: there links are no trap."""
    return path.parts[1:2] in {("dev",), ("proc",)}


def write_output(path: Path, data: bytes) -> None:
    """Write `data` to the file `path`, by a temporary file beside it; to a device or a pipe, as /dev/stdout, directly.

    In a folder that others can write into, somebody may have put a link in the file's place that leads to another one.

    Raises:
        NotWrittenError: if it is a symbolic link to a file, or can't be written; what was there before is whole then.
    """
    from mnistlab.store import write_bytes

    is_file = not is_device(path) and (path.is_file() or not path.exists())
    if is_file and path.is_symlink():
        raise NotWrittenError(f"can't write {path}: it is a symbolic link to {path.readlink()}; name that file itself")
    try:
        if is_file:
            write_bytes(path, data)
        else:
            with path.open("ab") as file:  # what standard output was sent to may hold something already
                file.write(data)
    except RunDirectoryError as error:  # there is a link in the place of the temporary file
        raise NotWrittenError(str(error)) from error
    except (RunWriteError, OSError) as error:
        refused = error.__cause__ or error  # by the operating system; it may name the temporary file
        raise NotWrittenError(f"can't write {path}: {getattr(refused, 'strerror', None) or refused}") from error
