"""Whole searches over simulated workers that start from earlier runs: what they take, keep, say and refuse."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.errors import SpecError
from mnistlab.experiment import loader
from mnistlab.experiment.space import suggest
from mnistlab.experiment.spec import read
from mnistlab.leaderboard import rank
from mnistlab.report.prose import overview
from mnistlab.store import fsck, read_events, read_run
from mnistlab.store.results import RunRecord
from mnistlab.tuning import run
from mnistlab.tuning.like import earlier_of, taken
from mnistlab.tuning.reopen import reopen_search
from tests.simulated.controller import World
from tests.simulated.driving import Case, Drives, Fault, options_in, registry, without_ray

pytestmark = pytest.mark.simulated

CASE = Case("auto", "halving", trials=12, factor=3, world=World(failing=0.0, spread=10.0))


def searched(root: Path, case: Case, *changes: str, like: str = "") -> Path:
    """Search in this process; return the run directory."""
    file = root / "x.toml"
    root.mkdir(exist_ok=True)
    file.write_text(case.text.replace("[search]\n", f"[search]\n{like}\n"))
    with without_ray(case, root):
        wanted = loader.judge(read(file, changes), registry(), partial(taken, root / "runs"))
        return run.search(wanted, options_in(root), registry(), lambda _: nullcontext(lambda _stamped: None)).path


def with_like(root: Path, case: Case, *names: str, **more: Any) -> Path:
    return searched(root, case, *more.get("changes", ()), like=f"like = {json.dumps(list(names))}")


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied."""
    return searched(tmp_path_factory.mktemp("lent"), CASE)


@pytest.fixture
def root(lent: Path, tmp_path: Path) -> Path:
    shutil.copytree(lent, tmp_path / "runs" / lent.name)
    return tmp_path


def plan_at(record: RunRecord, number: int) -> Mapping[str, Any]:
    return next(one.plan for one in record.trials if one.number == number)


def test_the_best_plan_of_an_earlier_run_is_looked_at_right_after_the_defaults(root: Path, lent: Path) -> None:
    path = with_like(root, replace(CASE, seed=1), lent.name)
    found, before = read_run(path), read_run(lent)
    (kept,) = found.run["like"]
    best = max((one for one in before.trials if one.state == "complete"), key=lambda one: one.metrics["val_accuracy"])
    assert kept["results"][0]["trial"] == best.trial
    assert (kept["run"], kept["dataset"], kept["plans"], kept["alike"]) == (lent.name, "digits", 12, True)
    looked = {one.trial: one.plan for one in before.trials}
    plans = [looked[trial] for trial in kept["looks"]]
    assert plans
    assert [plan_at(found, number) for number in range(1, 1 + len(plans))] == plans
    assert 1 + len(plans) <= found.run["first_looks"] == 4
    assert [one for one in fsck.check(path).findings if one.level == "fault"] == []


def test_every_result_is_its_share_of_its_own_run(lent: Path) -> None:
    record = read_run(lent)
    space = loader.reopen("x", dict(record.run["experiment"]), registry().selection)[0].space
    found, misfits = earlier_of(record, space, "val_accuracy")
    assert not misfits
    assert sorted(one.beats for one in found.results) == pytest.approx([(at + 0.5) / 12 for at in range(12)])
    turned, _ = earlier_of(record, space, "val_loss")
    best = min((one for one in record.trials if one.state == "complete"), key=lambda one: one.metrics["val_loss"])
    assert turned.results[0].trial == best.trial
    for one in found.results:
        plan = next(trial.plan for trial in record.trials if trial.trial == one.trial)
        assert suggest(space, lambda parameter, one=one: one.point[parameter.path]) == plan


def test_a_run_that_was_killed_lends_what_waits_at_a_rung_too(tmp_path: Path) -> None:
    """Trials that wait have no result before their search is over, and the complete ones are the best of it."""
    drives = Drives(tmp_path, replace(CASE, trials=24))
    drives.go(Fault("kill", at=60))
    record = read_run(drives.path)
    waiting = [one.event.trial for one in read_events(drives.path) if isinstance(one.event, events.TrialPaused)]
    assert set(waiting) - {one.trial for one in record.trials}
    space = reopen_search(drives.path, options_in(tmp_path).place).experiment.space
    found, said = taken(drives.path.parent, [drives.path.name], space, "val_accuracy")
    assert said == []
    assert {one.trial for one in found[0].results} == set(waiting) | {one.trial for one in record.trials}
    best = min(found[0].results, key=lambda one: -one.beats)
    assert best.beats > 0.8


def test_a_plan_that_failed_beats_nothing_and_what_the_machine_did_says_nothing(lent: Path) -> None:
    record = read_run(lent)
    space = loader.reopen("x", dict(record.run["experiment"]), registry().selection)[0].space
    first, second, *others = record.trials
    failed = replace(first, state="failed", cause="nan"), replace(second, state="failed", cause="device")
    found, _ = earlier_of(replace(record, trials=(*failed, *others)), space, "val_accuracy")
    shares = {one.trial: one.beats for one in found.results}
    assert shares[first.trial] == min(shares.values())
    assert second.trial not in shares
    assert len(shares) == len(record.trials) - 1


@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_a_run_without_rungs_lends_too(tmp_path: Path, scheduler: str) -> None:
    first = searched(tmp_path, replace(CASE, scheduler=scheduler, algorithm="random"))
    kept = read_run(with_like(tmp_path, CASE, str(first))).run["like"][0]
    assert len(kept["results"]) == 12
    assert kept["looks"]


def test_a_search_goes_on_as_it_would_have_without_the_earlier_run(root: Path, lent: Path) -> None:
    """The sampler is told the same results again, so that it proposes what it had proposed."""
    case = replace(CASE, seed=1, trials=10)
    path = with_like(root, case, lent.name)
    said = read_run(path).run["proposals"]
    shutil.rmtree(root / "runs" / lent.name)
    drives = Drives(root, case)
    assert drives.path == path
    drives.more("search.trials=16")
    resumed = [one.event for one in read_events(path) if isinstance(one.event, events.RunResumed)]
    assert [one.proposals for one in resumed] == [said.replace("10 trials", "16 trials")]
    assert len(read_run(path).trials) == 16
    with closing(sqlite3.connect(path / "study.db")) as study:
        query = "SELECT count(*) FROM trial_user_attributes WHERE key LIKE 'replaced%'"
        assert study.execute(query).fetchone()[0] == 0


def test_what_was_taken_is_said_everywhere(root: Path, lent: Path) -> None:
    path = with_like(root, replace(CASE, epochs=8), lent.name)
    found, state = read_run(path), ViewState()
    said = found.run["proposals"]
    looks = len(found.run["like"][0]["looks"])
    assert said.startswith(
        f"auto: up to 4 known plans while they do well, {looks} of them of earlier runs, then TPE beside"
    )
    told = f"{lent.name} on digits: 12 of 12 plans fit, {looks} of them looked at first; other images or another budget"
    for stamped in read_events(path):
        state = advance(state, stamped)
        if isinstance(stamped.event, events.RunStarted):
            shown = line(stamped, state)
            assert shown is not None
            assert said in shown
            assert told in shown
    pairs = dict(overview(found, rank(found)))
    assert pairs["Proposals"] == said
    assert pairs["Started from"].startswith(told)


def test_several_runs_and_an_algorithm_that_only_looks(root: Path, lent: Path) -> None:
    other = searched(root, replace(CASE, seed=5, epochs=4))
    path = with_like(root, replace(CASE, algorithm="random"), lent.name, str(other))
    found = read_run(path).run
    assert [one["run"] for one in found["like"]] == [lent.name, other.name]
    looks = sum(len(one["looks"]) for one in found["like"])
    assert found["first_looks"] == 1 + looks
    assert "results of earlier runs" not in found["proposals"]


def test_a_larger_space_keeps_what_was_taken(root: Path, lent: Path) -> None:
    case = replace(CASE, seed=1, trials=6)
    path = with_like(root, case, lent.name)
    larger = root / "larger.toml"  # it does not name the run, which an option may have done
    larger.write_text(case.text.replace("batch_size = 16", "batch_size = [16, 32]").replace("trials = 6", "trials = 9"))
    with without_ray(case, root):
        options = options_in(root)
        found = reopen_search(path, options.place, (), larger)
        run.resume(found, options, lambda _: nullcontext(lambda _stamped: None))
    record = read_run(path)
    assert record.number == 2
    points = [one["point"] for one in record.run["like"][0]["results"]]
    assert {point["training.batch_size"] for point in points} == {16}
    assert len(record.trials) == 9


# --- what is refused ----------------------------------------------------------------------------------------------


def faults(root: Path, *names: str, space: str = "", case: Case = CASE) -> list[str]:
    text = case.text.replace("width = { low = 32, high = 1024 }", space or "width = { low = 32, high = 1024 }")
    file = root / "x.toml"
    file.write_text(text.replace("[search]\n", f"[search]\nlike = {json.dumps(list(names))}\n"))
    with pytest.raises(SpecError) as caught:
        loader.judge(read(file), registry(), partial(taken, root / "runs"))
    return [str(fault) for fault in caught.value.faults]


def test_runs_that_are_not_there_damaged_or_of_another_format_are_named_with_all_other_faults(
    root: Path, lent: Path
) -> None:
    newer, torn = root / "runs" / "newer", root / "runs" / "torn"
    for copy in (newer, torn):
        shutil.copytree(lent, copy)
    body = json.loads((newer / "run.json").read_text())
    body.pop("crc")
    (newer / "run.json").write_text(json.dumps({**body, "schema": "mnistlab.run/9"}))
    (torn / "run.json").write_text((torn / "run.json").read_text()[:-40])
    near = lent.name[:-1] + "9"
    found = faults(root, near, "newer", "torn", lent.name, f"runs/../{root.name}", space="width = 7")
    assert len(found) == 5
    text = "\n".join(found)
    for part in (f"did you mean '{lent.name}'", "mnistlab.run/9", "torn/run.json is damaged", "model.mlp.width"):
        assert part in text, text


def test_a_run_that_is_named_twice_is_a_fault(root: Path, lent: Path) -> None:
    (said,) = faults(root, lent.name, str(root / "runs" / lent.name))
    assert "once" in said


def test_a_run_of_which_no_plan_fits_says_why(root: Path, lent: Path) -> None:
    (said,) = faults(root, lent.name, space="width = { low = 1025, high = 2000 }")
    assert "none of the 12 plans of the run fits this space: model.mlp.width = " in said
    assert "and 9 reasons more" in said
    other = CASE.text.replace("[model.mlp]", "[model.lenet]").split("depth =")[0]
    file = root / "y.toml"
    rest = CASE.text.split("[optimizer.sgd]")[1]
    file.write_text(f"{other}\n[optimizer.sgd]{rest}".replace("[search]\n", f'[search]\nlike = "{lent.name}"\n'))
    with pytest.raises(SpecError, match=r"model mlp is none of lenet \(12\)"):
        loader.judge(read(file), registry(), partial(taken, root / "runs"))


def test_a_grid_takes_nothing(root: Path, lent: Path) -> None:
    (said, *_) = faults(root, lent.name, case=replace(CASE, algorithm="grid", scheduler="none"))
    assert "can't start a grid" in said
