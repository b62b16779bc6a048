"""The command, or a program, in a process of its own, as a shell starts it, but without the seconds of its imports.

The process is forked from this one, which has imported everything already. Descriptors, streams, signals, environment,
current folder and session are its own, so that it can be killed, interrupted, cut off from its readers, or given a
terminal. It trains on one thread: a forked process has none of those with which torch has computed here.
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import logging
import os
import signal
import subprocess
import sys
import termios
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch._dynamo  # every fork that trains would import it with its first optimizer

from mnistlab.cli.main import main
from mnistlab.tuning import driver as _imported_too  # noqa: F401
from mnistlab.tuning import run as _imported_before  # noqa: F401 - and what a search imports with it
from mnistlab.tuning.ray import private
from tests.conftest import started_in

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def forked(
    arguments: Sequence[object], cwd: Path, environ: Mapping[str, str], *, terminal: bool = False, **streams: Any
) -> subprocess.Popen[str]:
    """Start `mnistlab ARGUMENTS` in `cwd` with that environment, in a session of its own.

    `streams` are those of `subprocess.Popen`, pipes unless it is told otherwise; with `terminal`, that of standard
    input controls the process.
    """
    words = ["mnistlab", *map(str, arguments)]
    return _start(words, lambda: _command(words, dict(environ)), cwd, environ, terminal=terminal, **streams)


def python(body: str, *arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program as `python -c` does, to its end; what it imports is there already."""
    words = ["-c", *arguments]

    def run() -> None:
        sys.argv = words
        exec(compile(body, "<string>", "exec", dont_inherit=True), {"__name__": "__main__"})

    faulthandler.cancel_dump_traceback_later()  # pytest's, whose lock the program could never take
    process = _start(words, run, cwd or Path.cwd(), {**os.environ, **environ})
    try:
        out, err = process.communicate(timeout=240)
    except BaseException:  # as `subprocess.run` does
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


_BY_PYTEST = """
import os, sys, pytest
for name in [name for name in os.environ if name.startswith("PYTEST_")]:
    del os.environ[name]  # this process's own
sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def by_pytest(*arguments: str, cwd: Path, on_path: Iterable[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run tests in a process of their own, in `cwd`, with more folders on the path."""
    more = f"import sys; sys.path[:0] = {[str(cwd), *map(str, on_path)]!r}\n"
    return python(more + _BY_PYTEST, *arguments, cwd=cwd)


def _start(
    words: list[str],
    body: Callable[[], None],
    cwd: Path,
    environ: Mapping[str, str],
    *,
    terminal: bool = False,
    **streams: Any,
) -> subprocess.Popen[str]:
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)

    def instead_of_a_program() -> NoReturn:
        os._exit(_code(body, environ, terminal=terminal))

    return subprocess.Popen(
        words,
        executable=sys.executable,
        cwd=cwd,
        text=True,
        start_new_session=True,
        restore_signals=False,  # Python ignores SIGPIPE
        preexec_fn=instead_of_a_program,  # noqa: PLW1509 - no lock of another thread is taken there
        **{"stdin": subprocess.DEVNULL, **pipes, **streams},
    )


def _code(body: Callable[[], None], environ: Mapping[str, str], *, terminal: bool) -> int:
    """Be a new process from its start to its end; return its exit code."""
    code: object = 1
    try:
        _become_new(environ, terminal=terminal)
        try:
            body()
            code = 0
        except SystemExit as ended:
            code = ended.code
            if isinstance(code, str):  # as Python does
                print(code, file=sys.stderr)
                code = 1
        finally:
            sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    return code if isinstance(code, int) else 0


def _command(words: list[str], environ: dict[str, str]) -> None:
    """Be the command `mnistlab`."""
    asked = environ.get("PYTHONPATH", "").split(os.pathsep)
    there = [folder for folder in asked if os.path.normpath(folder) not in map(os.path.normpath, sys.path)]
    with started_in(Path.cwd(), {**environ, "PYTHONPATH": os.pathsep.join(there)}):
        os.environ["PYTHONPATH"] = environ.get("PYTHONPATH", "")
        sys.argv = words
        private.is_early = lambda: True  # as a new process is, which has imported nothing yet
        main()


def _become_new(environ: Mapping[str, str], *, terminal: bool) -> None:
    """Forget what the process of the tests has open, and has set."""
    faulthandler.disable()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # also that by which `Popen` waits for a program
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in ENDS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environ)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()
    torch.set_num_threads(1)
    gc.freeze()  # nothing that was there before is looked at, so no page of it is copied
    gc.enable()
