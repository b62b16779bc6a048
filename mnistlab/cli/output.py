"""Files that a command writes where its user says: whole or as they were, and never through a symbolic link."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from mnistlab.errors import ExitCode, MnistlabError, RunDirectoryError, RunWriteError

# Links of the system's own that lead to what this process has open already: nobody else can have put them there.
_OPEN_ALREADY = re.compile(r"/dev/(stdout|stderr|fd/[0-9]+)|/proc/self/fd/[0-9]+")


class NotWrittenError(MnistlabError):
    """A file that was asked for can't be written."""

    exit_code = ExitCode.USAGE


def is_device(path: Path) -> bool:
    """Return whether a path is written to as it stands: /dev/stdout and its like, a device or a pipe.

    A file under /dev or /proc, as in /dev/shm, is a file.
    """
    if _OPEN_ALREADY.fullmatch(str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:  # there is none, or nobody may look
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def write_output(path: Path, data: bytes) -> None:
    """Write `data` to the file `path`, by a temporary file beside it; to a device or a pipe, as /dev/stdout, directly.

    In a folder that others can write into, somebody may have put a link in the file's place that leads to another one.

    Raises:
        NotWrittenError: if it is a symbolic link to a file, or can't be written; what was there before is whole then.
    """
    from mnistlab.store import write_bytes

    is_file = not is_device(path) and not os.path.isdir(path)  # Path.is_dir raises where nobody may look
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
