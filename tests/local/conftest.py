"""Whole runs by the executor `local`, in this process, with the model and the images of the tests of the search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.events import Stamped
from mnistlab.experiment import loader
from mnistlab.plugins.registry import Registry
from mnistlab.tuning import run
from mnistlab.tuning.reopen import reopen_search
from tests.tuning.conftest import loads, moody_on_the_path, registry, run_tiny, tiny

__all__ = ["loads", "registry", "run_tiny", "tiny"]  # fixtures


@dataclass
class Driven:
    """A run by `run.search` and `run.resume`: where it lies, and what its drivers have told."""

    file: Path
    options: run.Options
    registry: Registry
    told: list[events.Event] = field(default_factory=list[events.Event])

    @property
    def path(self) -> Path:
        (path,) = self.options.runs.iterdir()
        return path

    def search(self) -> run.Finished:
        return run.search(loader.load(self.file, (), self.registry), self.options, self.registry, self._view)

    def resume(self) -> run.Finished | None:
        with moody_on_the_path():
            return run.resume(reopen_search(self.path, self.options.place), self.options, self._view)

    def of(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    @contextmanager
    def _view(self, _path: Path) -> Generator[Callable[[Stamped], None]]:
        yield lambda stamped: self.told.append(stamped.event)


Drive = Callable[..., Driven]


@pytest.fixture
def drive(loads: Path, registry: Registry, tiny: Path, tmp_path: Path) -> Drive:
    """Return what makes a run of an experiment's text, in a folder of its own."""

    def drive(text: str, name: str = "run", **options: Any) -> Driven:
        folder = tmp_path / name
        folder.mkdir()
        file = folder / "x.toml"
        file.write_text('name = "tiny"\n[data]\ndataset = "idx"\nvalidation = 32\n[confirm]\ntop = 0\n' + text)
        place = DataPlace(data_dir=tiny, cache=folder / "cache", offline=True)
        about = {"runs": folder / "runs", "place": place, "address": None, "command": "x", "executor": "local"}
        return Driven(file, run.Options(**{**about, **options}), registry)

    return drive


AtStep = Callable[[int, Callable[[], None]], None]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> AtStep:
    """Return what has something done once, in the so many-th forward pass of a model, in the middle of its epoch."""

    def at_step(number: int, then: Callable[[], None]) -> None:
        steps = 0

        def sleep(_seconds: float) -> None:
            nonlocal steps
            steps += 1
            if steps == number:
                then()

        monkeypatch.setattr(sys.modules["mnistlab_moody"], "time", SimpleNamespace(sleep=sleep))

    return at_step
