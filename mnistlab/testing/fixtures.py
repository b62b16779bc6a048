"""The `lab` fixture: a temporary project in which a plugin author runs the command line without leaving the test.

It is there wherever this package and pytest are installed (entry-point group `pytest11`), so nothing heavy is imported
before a test asks for it.
"""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mnistlab.results import RunRecord


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
        """
        from mnistlab.cli.main import main

        words, out, err = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
        code: object = 0
        with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["mnistlab", *words])  # what a run writes down as its command
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
        return Ran(int(str(code or 0)), out.getvalue(), err.getvalue())

    def last_run(self) -> RunRecord:
        """Return everything that the newest run of the project left.

        Raises:
            IndexError: if there is none.
        """
        from mnistlab.store import find_runs, read_run

        return read_run(find_runs(self.path / "runs")[-1])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Give the test a temporary project in which `lab.run("search", "x.toml")` works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNISTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MNISTLAB_OFFLINE", "1")
    monkeypatch.setenv("MNISTLAB_UI", "plain")
    monkeypatch.delenv("MNISTLAB_DATA", raising=False)
    return Lab(tmp_path)
