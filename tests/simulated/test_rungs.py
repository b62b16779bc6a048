"""Trials that are trained anew at each rung, over simulated workers: what is kept, told, resumed and never lost."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from mnistlab import events
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store import fsck, read_events, read_run
from mnistlab.tuning import driver, recorder, session
from mnistlab.tuning.outcome import Outcome
from mnistlab.tuning.schedulers.halving import finalists
from tests.simulated.checks import running_in_study
from tests.simulated.controller import World
from tests.simulated.driving import Case, Drives, Fault

SEEDS = range(3)


def case(seed: int, trials: int = 24, parallel: int = 3, failing: float = 0.15, **more: str) -> Case:
    world = World(seed, spread=10.0, failing=failing)
    return Case("auto", "halving", trials=trials, epochs=9, seed=seed, factor=3, parallel=parallel, world=world, **more)


def searched(root: Path, wanted: Case) -> Path:
    drives = Drives(root, wanted)
    drives.to_the_end()
    return drives.path


def trained(path: Path) -> Mapping[str, list[int]]:
    """Return at which rungs each trial was trained, in order."""
    found = defaultdict[str, list[int]](list)
    for stamped in read_events(path):
        if isinstance(one := stamped.event, events.TrialStarted) and (not found[one.trial] or one.rung):
            found[one.trial] += [one.rung] if one.rung not in found[one.trial] else []
    return found


@pytest.mark.parametrize(("metric", "parallel"), [("val_accuracy", 3), ("val_loss", 3), ("val_accuracy", 10)])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_trial_is_trained_at_one_rung_after_the_other(
    tmp_path: Path, seed: int, metric: str, parallel: int
) -> None:
    path = searched(tmp_path, case(seed, metric=metric, parallel=parallel))
    record, rungs = read_run(path), trained(path)
    budgets = record.run["rungs"]
    assert budgets == sorted(budgets)
    assert budgets[-1] == 9
    assert len(budgets) > 1
    for trial in record.trials:
        reached = rungs[trial.trial]
        assert reached == list(range(len(reached)))
        ended = [rung.rung for rung in trial.rungs]
        assert ended == list(range(len(ended)))
        assert [rung.budget for rung in trial.rungs] == budgets[: len(ended)]
        assert (trial.state == "complete") == (trial.budget is None and trial.state != "failed")
        assert len(trial.history) == 9 if trial.state == "complete" else len(trial.history) < 9
        if trial.state == "pruned":  # it waits at the last rung that it came to
            assert trial.metrics == trial.rungs[-1].metrics
            assert trial.budget == budgets[len(ended) - 1]
    told = next(one.event for one in read_events(path) if isinstance(one.event, events.RunStarted)).trainings
    begun = [sum(rung in reached for reached in rungs.values()) for rung in range(len(budgets))]
    assert begun[0] == told[0] == 24
    failed = sum(trial.state == "failed" for trial in record.trials)
    assert all(wanted - failed <= found <= wanted + 5 for wanted, found in zip(told, begun, strict=True)), (told, begun)
    came = sum(len(trial.rungs) == len(budgets) - 1 for trial in record.trials)
    gone = sum(len(reached) == len(budgets) for reached in rungs.values())
    assert gone >= finalists(came, parallel)
    assert fsck.check(path).findings == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_optuna_is_told_each_value_under_its_rung(tmp_path: Path, seed: int) -> None:
    path = searched(tmp_path, case(seed, failing=0.0))
    record = read_run(path)
    top = len(record.run["rungs"]) - 1
    with closing(sqlite3.connect(path / "study.db")) as study:
        told = study.execute(
            "SELECT number, step, intermediate_value, state FROM trials"
            " LEFT JOIN trial_intermediate_values USING (trial_id)"
        ).fetchall()
    values = {(number, step): value for number, step, value, _ in told if step is not None}
    wanted = {(one.number, rung.rung): rung.metrics["val_accuracy"] for one in record.trials for rung in one.rungs}
    wanted |= {(one.number, top): one.metrics["val_accuracy"] for one in record.trials if one.state == "complete"}
    assert values == wanted
    states = {number: state for number, _, _, state in told}
    assert states == {one.number: {"complete": "COMPLETE", "pruned": "PRUNED"}[one.state] for one in record.trials}


def view_of(path: Path) -> ViewState:
    state = ViewState()
    for stamped in read_events(path):
        state = advance(state, stamped)
        assert min(state.paused, state.pruned, state.queued) >= 0
    return state


def test_a_run_with_more_trials_promotes_those_that_waited(tmp_path: Path) -> None:
    """They had been told as pruned: that was no last word. In two of twelve searches it is so by chance alone."""
    promoted = 0
    for seed in range(12):
        drives = Drives(tmp_path / str(seed), replace(case(seed, trials=8, failing=0.0), algorithm="random"))
        drives.to_the_end()
        before = {one.trial: one.state for one in read_run(drives.path).trials}
        drives.more("search.trials=10")
        after = {one.trial: one.state for one in read_run(drives.path).trials}
        assert len(after) == 10
        assert all(after[name] == "complete" for name in before if before[name] == "complete")
        assert fsck.check(drives.path).findings == ()
        assert running_in_study(drives.path) == 0
        view = view_of(drives.path)
        told = {"complete": view.complete, "pruned": view.pruned, "waiting": view.paused}
        assert told == {**Counter(after.values()), "waiting": 0}
        promoted += sum(before[name] == "pruned" and after[name] == "complete" for name in before)
    assert promoted >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_driver_leaves_nobody_waiting_for_ever(tmp_path: Path, seed: int) -> None:
    drives = Drives(tmp_path, case(seed))
    for at in (20, 30, 40):
        drives.go(Fault("kill", at=at))
    view = view_of(drives.path)
    assert view.paused > 0
    drives.to_the_end()
    record = read_run(drives.path)
    assert len(record.trials) == 24
    assert {one.state for one in record.trials} <= {"complete", "pruned", "failed"}
    assert fsck.check(drives.path).findings == ()
    view = view_of(drives.path)
    assert (view.complete + view.pruned + view.failed, view.paused) == (24, 0)


def test_rungs_and_promotions_are_told(tmp_path: Path) -> None:
    path = searched(tmp_path, case(0, failing=0.0))
    told = [one.event for one in read_events(path)]
    last = {event.epoch: event for event in told if isinstance(event, events.RungDecided)}
    budgets = read_run(path).run["rungs"]
    assert list(last) == budgets[:-1]
    assert last[budgets[0]].reached == 24
    promoted = sum(isinstance(event, events.TrialStarted) and event.rung > 0 for event in told)
    assert promoted == sum(event.kept for event in last.values())


def test_a_search_of_few_trials_has_no_rungs_to_wait_at(tmp_path: Path) -> None:
    path = searched(tmp_path, replace(case(0, failing=0.0), trials=3))
    assert read_run(path).run["rungs"] == [9]
    assert [one.state for one in read_run(path).trials] == ["complete"] * 3
    assert not any(one.rungs for one in read_run(path).trials)


# --- what is easy to lose -----------------------------------------------------------------------------------------


def test_a_trial_that_waits_counts_as_one_that_could_be_trained(tmp_path: Path) -> None:
    """Else five failures would be most of "the first eight trials" while all good ones wait."""
    judged = list[list[str]]()

    def given_up(_: ExperimentSpec, verdicts: Sequence[Outcome]) -> None:
        judged.append([one.state for one in verdicts])

    drives = Drives(tmp_path, case(0, trials=8))
    drives.to_the_end()
    with patch.object(driver, "given_up", given_up), patch.object(session, "given_up", given_up):
        drives.more("search.trials=12")
    told = [one.event for one in read_events(drives.path)]
    paused = [event for event in told if isinstance(event, events.TrialPaused)]
    ends = [one.state for one in read_run(drives.path).trials if one.state != "pruned"]
    assert Counter(judged[-1]) == Counter(["pruned"] * len(paused) + ends)
    assert judged[-1][:8].count("pruned") >= 5


def test_a_run_whose_time_was_up_when_its_driver_died_ends_those_that_waited(tmp_path: Path) -> None:
    drives = Drives(tmp_path, case(0, failing=0.0))
    drives.go(Fault("kill", at=40))
    assert view_of(drives.path).paused > 0
    drives.more("search.time_budget=0.001")
    record = read_run(drives.path)
    assert view_of(drives.path).paused == 0
    told = [one.event for one in read_events(drives.path) if isinstance(one.event, events.RunResumed)]
    assert all("paused" not in event.counts for event in told)
    assert sum(one.state == "pruned" for one in record.trials) > 0
    assert [one for one in fsck.check(drives.path).findings if one.level == "fault"] == []


def test_finalists_that_fail_leave_their_places_to_others(tmp_path: Path) -> None:
    """A search has a winner as long as any of its trials can be trained in full."""
    world = World(1, spread=10.0, failing=0.6)
    drives = Drives(tmp_path, replace(case(1), world=world))
    drives.to_the_end()
    record, rungs = read_run(drives.path), trained(drives.path)
    top = len(record.run["rungs"]) - 1
    came = sum(len(trial.rungs) == top for trial in record.trials if trial.state != "failed")
    full = [trial for trial in record.trials if trial.state == "complete"]
    assert [name for name, reached in rungs.items() if top in reached and name not in {one.trial for one in full}]
    assert len(full) >= finalists(came)


def test_more_trials_later_do_not_use_up_plans_that_are_known(tmp_path: Path) -> None:
    """A sampler that is told again what it proposed is not given a known plan in the place of one of its own."""
    drives = Drives(tmp_path, case(0, trials=6, failing=0.0))
    drives.to_the_end()
    looks = read_run(drives.path).run["first_looks"]
    assert looks == 2
    drives.more("search.trials=30")
    assert read_run(drives.path).run["first_looks"] == looks
    with closing(sqlite3.connect(drives.path / "study.db")) as study:
        count = "SELECT count(DISTINCT trial_id) FROM {} WHERE key LIKE '{}%'"
        replaced = study.execute(count.format("trial_user_attributes", "replaced")).fetchone()[0]
        given = study.execute(count.format("trial_system_attributes", "fixed_params")).fetchone()[0]
    assert given == 1 + replaced  # the plan of all defaults is enqueued, as what is told in the place of a proposal is
    plans = [canonical(trial.plan) for trial in read_run(drives.path).trials]
    assert len(set(plans)) == 30


def test_a_trial_that_failed_at_a_higher_rung_is_retried_there(tmp_path: Path) -> None:
    drives = Drives(tmp_path, case(1, failing=0.6))
    drives.to_the_end()
    before = read_run(drives.path).trials
    starts = {one.trial: len(_starts(drives.path, one.trial)) for one in before if one.state == "failed" and one.rungs}
    assert starts
    drives.case = replace(drives.case, world=replace(drives.case.world, failing=0.0))  # what had broken them is mended
    drives.more(again=True)
    record = read_run(drives.path)
    for name, count in starts.items():
        *_, failed, again = _starts(drives.path, name)[: count + 1]
        assert (again.rung, again.epoch) == (failed.rung, 0)
        assert again.rung > 0
    assert all(one.state != "failed" for one in record.trials)
    assert fsck.check(drives.path).findings == ()


def _starts(path: Path, name: str) -> list[events.TrialStarted]:
    told = [stamped.event for stamped in read_events(path)]
    return [one for one in told if isinstance(one, events.TrialStarted) and one.trial == name]


def test_no_training_goes_on_from_a_state_of_a_lower_rung(tmp_path: Path) -> None:
    """A driver that dies between the end of a rung and the removal of its states leaves them behind."""
    drives = Drives(tmp_path, case(2, failing=0.0, parallel=1))
    with patch.object(recorder, "discard_checkpoints"):
        drives.go(Fault("kill", at=60))
    assert any((drives.path / "trials").glob("*/checkpoints/*"))
    promoted = [name for name, rungs in trained(drives.path).items() if len(rungs) > 1]
    assert promoted
    drives.go(Fault("kill", at=20))
    drives.to_the_end()  # a simulated worker refuses the state of another rung
    assert len(read_run(drives.path).trials) == 24
    assert fsck.check(drives.path).findings == ()


def test_results_that_were_lost_are_made_anew_with_their_rungs(tmp_path: Path) -> None:
    path = searched(tmp_path, case(0, failing=0.0))
    before = read_run(path).trials
    for one in before:
        (path / "trials" / one.trial / "result.json").unlink()
    fsck.repair(path)
    after = {one.trial: one for one in read_run(path).trials}
    for one in before:
        again = after[one.trial]
        assert (again.state, again.budget, again.rungs) == (one.state, one.budget, one.rungs)
        assert again.metrics.items() <= one.metrics.items()
    assert fsck.check(path).sound


def test_the_start_says_at_which_budgets_trials_are_trained(tmp_path: Path) -> None:
    path = searched(tmp_path, case(0, trials=6, failing=0.0))
    state = ViewState()
    for stamped in read_events(path):
        state = advance(state, stamped)
        if isinstance(stamped.event, events.RunStarted):
            said = line(stamped, state)
            assert said is not None
            assert "(auto, halving at 1 and 9 epochs, seed 0" in said
    assert state.start is not None
    assert list(state.start.rungs) == read_run(path).run["rungs"] == [1, 9]
