"""Properties of a search whatever its trials come to and in whatever order they end: a fake clock, no training."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.experiment.identity import canonical
from mnistlab.store import fsck, read_events, read_run
from mnistlab.store.results import RunRecord
from mnistlab.tuning.driver import best_trials
from tests.simulated.checks import running_in_study
from tests.simulated.controller import World
from tests.simulated.curves import fate
from tests.simulated.driving import Case, Drives

pytestmark = pytest.mark.simulated

SHORT, LONG = 1, 40
SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]
SOME = World(spread=100.0, failing=0.15, keep_every=2)


def searched(folder: Path, case: Case) -> Path:
    drives = Drives(folder, case)
    drives.to_the_end()
    return drives.path


def stream(run: Path) -> list[events.Event]:
    return [stamped.event for stamped in read_events(run)]


def epochs_of(run: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in stream(run):
        if isinstance(event, events.TrialEpoch):
            found[event.trial].append(event.epoch)
    return found


def plans(record: RunRecord) -> list[str]:
    return [canonical(trial.plan) for trial in record.trials]


# --- how much is kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_each_rung_keeps_about_one_in_eta(tmp_path: Path, seed: int) -> None:
    """The n-th to come is kept if it is in the best 1/eta so far: n/eta of n in the mean, and a few while n is small.

    The bound is three standard deviations of n independent draws, and the harmonic sum of those few.
    """
    world = replace(SOME, seed=seed)
    run = searched(tmp_path, Case("random", "asha", trials=60, epochs=9, parallel=8, seed=seed, world=world))
    last = {(one.bracket, one.epoch): one for one in stream(run) if isinstance(one, events.RungDecided)}
    assert {epoch for _, epoch in last} >= {1, 3}
    for rung in last.values():
        share = rung.reached / 3
        slack = 3 * math.sqrt(rung.reached * (1 / 3) * (2 / 3)) + math.log(rung.reached) + 1
        assert 1 <= rung.kept <= share + slack, rung
        assert rung.kept >= share - slack, rung


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_every_trial_ends_within_its_budget_in_whatever_order(tmp_path: Path, seed: int, scheduler: str) -> None:
    world = replace(SOME, seed=seed, spread=1000.0)
    case = Case("tpe", scheduler, trials=10, epochs=6, parallel=1 + 2 * (seed % 4), seed=seed, world=world)
    run = searched(tmp_path, case)
    record, seen = read_run(run), epochs_of(run)
    # no starvation: every trial that was proposed has ended, and Optuna knows of it
    assert [trial.number for trial in record.trials] == list(range(10))
    assert {trial.state for trial in record.trials} <= {"complete", "pruned", "failed"}
    assert running_in_study(run) == 0
    # the budget
    assert all(sorted(set(epochs)) == list(range(1, max(epochs, default=0) + 1)) for epochs in seen.values())
    assert sum(len(set(epochs)) for epochs in seen.values()) <= 10 * 6
    assert all((trial.state == "complete") == (len(trial.history) == 6) for trial in record.trials)
    # nothing that has failed goes on, and no rung has counted it afterwards
    for trial in record.trials:
        end = fate(trial.plan, world.failing)
        if trial.state == "failed":
            assert trial.cause == end.kind
            assert len(set(seen[trial.trial])) == max(end.at, 1) - 1
        elif end.kind != "good":
            assert len(trial.history) < end.at
    for rung in (event for event in stream(run) if isinstance(event, events.RungDecided)):
        assert rung.reached <= sum(rung.epoch in epochs for epochs in seen.values())
    assert fsck.check(run).findings == ()


def test_the_ways_to_fail_are_all_tried(tmp_path: Path) -> None:
    """Else the two tests above would say nothing of them."""
    case = Case("random", "none", trials=40, epochs=4, parallel=4, world=replace(SOME, failing=0.5))
    record = read_run(searched(tmp_path, case))
    assert {trial.cause for trial in record.trials} == {"", "nan", "plugin", "worker"}
    assert {len(trial.history) for trial in record.trials if trial.cause == "nan"} > {0, 1}


# --- what must not matter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_more_workers_never_change_the_plans_of_a_random_search(tmp_path: Path, seed: int) -> None:
    found = []
    for parallel in (1, 2, 7):
        world = replace(SOME, seed=100 * seed + parallel)
        case = Case("random", "asha", trials=12, epochs=4, parallel=parallel, seed=seed, world=world)
        found.append(plans(read_run(searched(tmp_path / str(parallel), case))))
    assert len(set(found[0])) == 12
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("algorithm", ["tpe", pytest.param("random", marks=pytest.mark.chaos)])
def test_a_metric_and_its_negative_rank_alike(tmp_path: Path, seed: int, algorithm: str) -> None:
    """The simulated loss is 1 - accuracy to the last bit: less of the one is more of the other."""
    ranked = []
    for metric in ("val_accuracy", "val_loss"):
        scheduler = ("asha", "median", "hyperband")[seed % 3]
        case = Case(algorithm, scheduler, trials=12, epochs=6, metric=metric, seed=seed, world=replace(SOME, seed=seed))
        record = read_run(searched(tmp_path / metric, case))
        ranked.append((plans(record), [t.state for t in record.trials], best_trials(record.trials, metric, 12)))
    (plans_up, states_up, best_up), (plans_down, states_down, best_down) = ranked
    assert plans_up == plans_down
    assert states_up == states_down
    assert [trial.trial for trial in best_up] == [trial.trial for trial in best_down]
    assert best_up
    accuracies = [trial.metrics["val_accuracy"] for trial in best_up]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_same_world_tells_the_same_story(tmp_path: Path) -> None:
    """Else a seed that has found a fault would not find it again."""
    case = Case("tpe", "hyperband", trials=10, epochs=6, parallel=3, world=SOME)
    first, second = (stream(searched(tmp_path / name, case)) for name in ("first", "second"))

    def timeless(told: list[events.Event]) -> list[events.Event]:
        kinds = (events.TrialStarted, events.TrialEpoch, events.RungDecided, events.BestChanged)
        return [event for event in told if isinstance(event, kinds)]

    assert timeless(first) == timeless(second)
