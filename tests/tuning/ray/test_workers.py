"""All workers that were promised come up and stay: Ray Tune's own loop, without a Ray."""

from __future__ import annotations

import ast
import inspect
import itertools
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.air.execution._internal import RayActorManager
from ray.tune import tune as ray_tune
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from mnistlab.tuning.ray import workers
from mnistlab.tuning.ray.executor import RAY_TUNE
from mnistlab.tuning.ray.workers import KeepingController, workers_kept
from tests.tuning.conftest import RunTiny
from tests.tuning.tune_loop import NEVER, Actors, Loop, loop


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a search: Tune says nothing, of lost workers least of all."""
    monkeypatch.setattr(logging.getLogger("ray.tune"), "level", logging.CRITICAL)


def after(first: float, others: float) -> Callable[[], float]:
    """Return how long workers take to start: the first one, and each other one."""
    draws = itertools.chain([first], itertools.repeat(others))
    return lambda: next(draws)


@pytest.mark.parametrize("pausing", [False, True], ids=["asha", "pbt"])
def test_a_worker_that_starts_slowly_takes_trials_as_soon_as_it_is_up(tmp_path: Path, pausing: bool) -> None:
    one = loop(KeepingController, tmp_path, workers=2, trials=12, starting=after(1.0, 5.0), pausing=pausing)
    told = one.run()
    assert len(told.started) == 2
    assert not told.dropped
    assert one.starts.order[:3] == ["0000", "0002", "0003"]  # by the first worker; 0001 waits for the second
    assert told.clock < 10.0  # 12 trials of a second each: four by one worker alone, eight by two


@pytest.mark.parametrize("pausing", [False, True], ids=["asha", "pbt"])
def test_tune_by_itself_drops_it_each_time(tmp_path: Path, pausing: bool) -> None:
    """Once a new Ray fails this, `mnistlab.tuning.ray.workers` may not be needed any more."""
    told = loop(TuneController, tmp_path, workers=2, trials=12, starting=after(1.0, 5.0), pausing=pausing).run()
    assert len(told.dropped) == len(told.started) - 1 >= 3


def test_the_trial_of_a_worker_that_never_comes_up_is_taken_over_at_the_end(tmp_path: Path) -> None:
    one = loop(KeepingController, tmp_path, workers=2, trials=6, starting=after(1.0, NEVER))
    assert one.run().clock < 10.0
    assert one.starts.order == ["0000", "0002", "0003", "0004", "0005", "0001"]


@pytest.mark.parametrize("pausing", [False, True], ids=["asha", "pbt"])
def test_a_trial_that_needs_the_whole_machine_gets_it(tmp_path: Path, pausing: bool) -> None:
    one = loop(
        KeepingController,
        tmp_path,
        workers=2,
        trials=14,
        starting=lambda: 3.0,
        epochs=lambda _: 3,
        cpus=lambda number: 2 if number == 3 else 1,
        pausing=pausing,
    )
    one.run()
    assert one.starts.order.index("0003") <= 3  # Tune by itself gives it a place last
    if not pausing:  # two workers before it, its own, and two after it
        assert len(one.actors.told.started) == 5


def test_the_others_do_not_wait_for_ever_for_a_trial_that_gets_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=itertools.count(100.0).__next__))
    one = loop(
        KeepingController,
        tmp_path,
        workers=4,
        others=1,
        trials=12,
        starting=lambda: 3.0,
        cpus=lambda number: 4 if number == 3 else 1,
    )
    with pytest.raises(AssertionError, match=r"no end: .*'TERMINATED': 11, 'PENDING': 1"):
        one.run(most=500)


def test_with_one_worker_the_order_is_that_of_tune_itself(tmp_path: Path) -> None:
    def order(kind: type[TuneController], seed: int, pausing: bool) -> list[str]:
        draw = random.Random(seed)
        one = loop(
            kind,
            tmp_path,
            workers=1,
            trials=8,
            starting=lambda: 10 * draw.random(),
            epoch=draw.random,
            epochs=lambda number: 1 + number % 3,
            lost=lambda: draw.random() < 0.1,
            pausing=pausing,
        )
        one.run()
        return one.starts.order

    for seed, pausing in itertools.product(range(5), (False, True)):
        assert order(KeepingController, seed, pausing) == order(TuneController, seed, pausing)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(1, 5),
    trials=st.integers(1, 20),
    slow=st.sampled_from([0.5, 5.0, 50.0]),
    losses=st.sampled_from([0.0, 0.1]),
    large=st.sampled_from([0.0, 0.1]),
    pausing=st.booleans(),
)
def test_as_many_workers_as_were_promised_are_started_and_stay(
    tmp_path: Path, seed: int, count: int, trials: int, slow: float, losses: float, large: float, pausing: bool
) -> None:
    draw = random.Random(seed)
    one = loop(
        KeepingController,
        tmp_path,
        workers=count,
        trials=trials,
        starting=lambda: slow * draw.random(),
        epoch=lambda: 0.1 + draw.random(),
        epochs=lambda number: 1 + number % 4,
        lost=lambda: draw.random() < losses,
        cpus=lambda _: count if draw.random() < large else 1,
        pausing=pausing,
    )
    told = one.run()
    assert len(one.starts.order) == len(one.proposals.handed_out) == trials + told.lost
    if not large:  # for a trial that needs the whole machine the others make room
        assert not told.dropped_early
        assert told.idle < 1e-6
        assert len(told.started) <= count + told.lost


def running(one: Loop) -> int:
    return sum(trial.status == Trial.RUNNING for trial in one.controller.get_trials())


class After(Stopper):
    """Ends the search once as many trials have ended, as a stop does that was asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.loop = count, None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.loop is not None and len(self.loop.starts.order) > self.count


def test_a_search_that_is_stopped_waits_for_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopper = After(3)
    one = loop(KeepingController, tmp_path, workers=2, trials=99, starting=after(1.0, NEVER), stopper=stopper)
    stopper.loop = one
    told = one.run()
    seconds = itertools.count(time.monotonic()).__next__  # Tune gives workers ten to end
    monkeypatch.setattr(tune_controller, "time", SimpleNamespace(**{**vars(time), "monotonic": seconds}))
    one.controller.cleanup()
    assert told.clock < 10.0
    assert running(one) == 0


# --- with a real Ray ---

TWELVE = """
[model.moody]
mood = "sociable"
gain = { low = 0.5, high = 2.0 }
[optimizer.sgd]
lr = 0.05
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 1
batch_size = 16
[search]
trials = 12
algorithm = "random"
"""


@pytest.mark.ray
@pytest.mark.chaos  # in Tune's own loop without a Ray: above
def test_two_trials_run_side_by_side_once_the_slower_of_two_workers_is_up(
    run_tiny: RunTiny, loads: Path, tmp_path: Path
) -> None:
    gate, came = loads.with_name("gate"), loads.with_name("came")
    opened = False

    def look() -> bool:
        """Close the gate before the first trial is proposed; open it after the third has ended."""
        nonlocal opened
        opened = opened or len(list(tmp_path.glob("runs/*/trials/*/result.json"))) >= 3
        gate.unlink(missing_ok=True) if opened else gate.touch()
        return False

    ran = run_tiny(TWELVE, executor=RAY_TUNE, parallel=2, stopping=look, dataset="watched")
    assert [result.state for result in ran.results] == ["complete"] * 12  # each of the later ones has met another
    met = {path.suffix[1:] for path in gate.parent.glob("gate.met.*")}
    assert len(met) == 2  # two processes have trained
    assert set(came.read_text().split()) <= met  # the second may have come after the gate was opened


def test_nothing_of_ours_gets_into_the_snapshot_that_tune_writes(tmp_path: Path) -> None:
    one = loop(KeepingController, tmp_path, workers=2, trials=3, starting=lambda: 1.0)
    one.run()
    theirs = loop(TuneController, tmp_path, workers=2, trials=3, starting=lambda: 1.0).controller
    assert set(one.controller.__getstate__()) == set(theirs.__getstate__())


def test_tune_is_given_back_as_it_was() -> None:
    def interrupted() -> None:
        with workers_kept():
            assert vars(ray_tune)["TuneController"] is KeepingController
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert vars(ray_tune)["TuneController"] is TuneController


# --- what a new Ray may have lost ---


def private_names() -> set[str]:
    """Return the names with an underscore of Tune's loop that the module uses."""
    own = set(vars(KeepingController)) - {"_maybe_add_actors", "_maybe_reuse_cached_actor", "get_trials"}
    tree = ast.parse(inspect.getsource(workers))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in used if name.startswith("_")} - own


@pytest.mark.parametrize("name", sorted(private_names()))
def test_tune_has_what_is_used_of_it(tmp_path: Path, name: str) -> None:
    there = loop(TuneController, tmp_path, workers=1, trials=1, starting=lambda: 1.0).controller
    assert hasattr(there, name), f"TuneController has no {name} any more: see mnistlab/tuning/ray/workers.py"


def test_tune_makes_its_loop_by_the_name_that_is_replaced() -> None:
    assert "TuneController" in ray_tune.run.__code__.co_names


def test_the_stand_in_for_tunes_actors_is_called_as_they_are() -> None:
    for name, ours in inspect.getmembers(Actors, inspect.isfunction):
        if not name.startswith("_"):
            theirs = inspect.signature(getattr(RayActorManager, name)).parameters
            asked = {key for key, one in inspect.signature(ours).parameters.items() if one.kind != one.VAR_KEYWORD}
            assert asked <= set(theirs), name
