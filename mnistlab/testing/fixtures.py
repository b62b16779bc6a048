"""The `lab` fixture: a temporary project in which a plugin author runs the command line without leaving the test.

It is there wherever this package and pytest are installed (entry-point group `pytest11`), so nothing heavy is imported
before a test asks for it.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mnistlab.store.results import RunRecord


SIGNALS = [number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGHUP"}]


@dataclass(frozen=True)
class Ran:
    """How a command ended (see the exit codes in the reference) and what it wrote."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Lab:
    """A temporary project: the current folder of the test, with a cache of its own and no network."""

    path: Path

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project, for example an experiment."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run(self, *arguments: object) -> Ran:
        """Run `mnistlab ARGUMENTS` in this process and return what its user would see.

        The exit code is that of the command; an internal error of mnistlab is code 3 with its traceback in `err`.
        Whatever the command does to this process (environment, signals, threads, random generators) is undone.
        """
        from mnistlab.cli.main import main

        words, sinks = [str(argument) for argument in arguments], (io.BytesIO(), io.BytesIO())
        # As a pipe has them: programs write text into these, and bytes into their buffers.
        out = io.TextIOWrapper(sinks[0], encoding="utf-8", write_through=True)
        err = io.TextIOWrapper(sinks[1], encoding="utf-8", errors="backslashreplace", write_through=True)
        code: object = 0
        with _process_restored(), redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["mnistlab", *words])  # what a run writes down as its command
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
        if isinstance(code, str):  # `sys.exit("text")` of whoever: Python writes the text and ends with 1
            err.write(f"{code}\n")
            code = 1
        return Ran(int(str(code or 0)), *(sink.getvalue().decode(errors="replace") for sink in sinks))

    def last_run(self) -> RunRecord:
        """Return everything that the newest run of the project left.

        Raises:
            LookupError: if there is none.
        """
        from mnistlab.store import find_runs, read_run

        runs = find_runs(self.path / "runs")
        if not runs:
            raise LookupError(f'no run is stored in {self.path / "runs"}: has `lab.run("search", ...)` succeeded?')
        return read_run(runs[-1])


@contextmanager
def _process_restored() -> Generator[None]:
    """Undo what training in this process changes: a test that comes later must not notice it."""
    from mnistlab.testing.traces import random_states, restore_random_states
    from mnistlab.training.precision import process_restored

    environment, states = dict(os.environ), random_states()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with process_restored():
            yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
        restore_random_states(states)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Give the test a temporary project in which `lab.run("search", "x.toml")` works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNISTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MNISTLAB_OFFLINE", "1")
    monkeypatch.setenv("MNISTLAB_UI", "plain")
    monkeypatch.delenv("MNISTLAB_DATA", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # tables as wide as in a pipe, wherever the tests run
    return Lab(tmp_path)
