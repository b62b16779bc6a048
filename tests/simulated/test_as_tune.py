"""The simulation is as good as its likeness: Ray Tune itself, given the same workers, comes to the same end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import ray
from ray.tune import Trainable

from mnistlab.events import Stamped, TrialEpoch
from mnistlab.experiment import loader
from mnistlab.tuning import run
from mnistlab.tuning.executors import EXECUTORS
from mnistlab.tuning.ray import executor
from mnistlab.tuning.ray.cluster import cluster
from mnistlab.tuning.reopen import reopen_search
from mnistlab.tuning.resources import Machine
from tests.simulated.checks import outcome
from tests.simulated.controller import World
from tests.simulated.driving import Case, Drives, options_in, registry
from tests.simulated.worker import Worker, WorkerDiedError

pytestmark = pytest.mark.ray

WORLD = World(failing=0.4, keep_every=2)
CASES = [
    Case("tpe", "asha", trials=10, epochs=6, factor=2, world=WORLD),
    Case("random", "median", trials=10, epochs=4, world=WORLD),
    Case("cmaes", "hyperband", trials=8, epochs=9, metric="val_loss", seed=1, world=WORLD),
]


class SimulatedTrainable(Trainable):
    """A simulated worker as Tune has it: a class of which it makes an actor."""

    def setup(self, config: dict[str, Any], shared: object = None) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        state = config.get("state")
        there = config if state is None else {**config, "state": ray.get(state)}
        self._worker = Worker(there, WORLD.failing, WORLD.keep_every)

    def step(self) -> dict[str, Any]:
        try:
            return self._worker.step()
        except WorkerDiedError:
            os._exit(1)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the simulation finds; all of it before Ray is there, of whose threads a forked process would have none."""
    drives = [Drives(tmp_path_factory.mktemp("simulated"), case) for case in CASES]
    for one in drives:
        one.to_the_end()
    return [found(one.path) for one in drives]


@pytest.fixture(scope="module")
def in_ray(simulated: list[dict[str, Any]]) -> Iterator[None]:
    """One Ray for all, with one CPU: one trial at a time."""
    one = Machine(cpus=1, gpus=0.0)
    with (
        cluster(None, one),
        patch.dict(EXECUTORS, ray=replace(EXECUTORS["ray"], joined=lambda *_: nullcontext(one))),
        patch.object(executor, "PlanTrainable", SimulatedTrainable),
    ):
        yield


def by_tune(folder: Path, case: Case, stop_after: int = 0) -> Path:
    """Carry a search out by Ray Tune; with `stop_after` it is asked to stop after so many epochs, then gone on with."""
    folder.mkdir()
    file = folder / "x.toml"
    file.write_text(case.text)
    options = options_in(folder, "by Tune")
    path = run.search(loader.load(file, (), registry()), options, registry(), stopping_view(stop_after)).path
    if stop_after:
        run.resume(reopen_search(path, options.place), options, stopping_view(0))
    return path


def stopping_view(stop_after: int) -> run.View:
    epochs = 0

    @contextmanager
    def view(_path: Path) -> Iterator[Callable[[Stamped], None]]:
        def handle(stamped: Stamped) -> None:
            nonlocal epochs
            epochs += isinstance(stamped.event, TrialEpoch)
            if epochs == stop_after and isinstance(stamped.event, TrialEpoch):
                os.kill(os.getpid(), signal.SIGTERM)

        yield handle

    return view


def found(path: Path) -> dict[str, Any]:
    """What was found, but for the words in which a lost worker is told."""
    all_of_it = outcome(path)
    trials = {name: replace(one, message="") for name, one in all_of_it["trials"].items()}
    rows = [replace(row, message="") for row in all_of_it["leaderboard"]]
    return {**all_of_it, "trials": trials, "leaderboard": rows}


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(len(CASES)))
def test_ray_tune_comes_to_the_same_end(
    simulated: list[dict[str, Any]], in_ray: None, tmp_path: Path, number: int
) -> None:
    assert {one.cause for one in simulated[number]["trials"].values()} > {""}
    assert found(by_tune(tmp_path / "tune", CASES[number])) == simulated[number]


@pytest.mark.chaos  # a search by Ray and one by `local` are compared in tests/tuning/test_by_ray.py
def test_ray_tune_comes_to_the_same_end_after_a_stop(
    simulated: list[dict[str, Any]], in_ray: None, tmp_path: Path
) -> None:
    assert found(by_tune(tmp_path / "tune", CASES[0], stop_after=5)) == simulated[0]
