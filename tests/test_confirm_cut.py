"""A confirmation that is cut off and gone on with ends as it would have without the cut.

The trainings, which Ray would carry out, are made up here at once; all else is the program's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mnistlab import confirm as confirmation
from mnistlab.confirm import confirm, go_on
from mnistlab.errors import RunWriteError
from mnistlab.events import Event, PlanDropped, RefitFinished, ReplicateFinished
from mnistlab.racing import outcomes
from mnistlab.results import REFIT, RunRecord, TrialResult
from mnistlab.spec import Draft, ExperimentSpec, validate
from mnistlab.store import RunWriter, read_lines, read_run
from mnistlab.tuning.replicates import ReplicateAnswer, ReplicateTask, TestAnswer

pytestmark = pytest.mark.simulated

IMAGES = 500
WRONG = {"0000": 0.02, "0001": 0.025, "0002": 0.2, "0003": 0.3}  # shares of images
LUCK: dict[tuple[str, int], float] = {}  # the same for a seed of which a test wants another one


def trial(number: int) -> TrialResult:
    name, plan = f"{number:04d}", {"model": {"name": "mlp", "config": {"width": 8 + number}}}
    about: dict[str, Any] = {"trial": name, "number": number, "plan": plan, "label": name, "seed": 0}
    return TrialResult(**about, state="complete", metrics={"val_accuracy": 1 - WRONG[name], "val_loss": WRONG[name]})


TRIALS = [trial(number) for number in range(4)]


def trained(task: ReplicateTask) -> ReplicateAnswer:
    rng = np.random.default_rng([int(task.trial), task.replicate])
    wrong = LUCK.get((task.trial, task.replicate), WRONG[task.trial] * rng.uniform(0.8, 1.2))
    right = rng.random(IMAGES) >= wrong
    losses = np.where(right, 0.01, 3.0)
    history = ({"val_accuracy": float(right.mean()), "val_loss": float(losses.mean()), "seconds": 1.0},)
    per_image = {"val_loss": losses, "val_doubt": losses}
    about = {"correct": right, "per_image": per_image, "weights": f"{task.name}".encode(), "log": "trained"}
    return ReplicateAnswer(history=history, **about)


def run_tasks(search: Any, _function: Any, tasks: Any, *, started: Any = None, **about: Any) -> Iterator[Any]:
    """What `tuning.tasks.run_tasks` does, one task after the other."""
    for task in tasks:
        if about.get("stopping", lambda: False)():
            return
        if isinstance(task, ReplicateTask):
            if started:
                started(task)
            yield task, trained(task)
        else:
            yield task, TestAnswer(correct=np.ones(10, bool), log="tested")


class Run:
    """A run directory whose search is over, and confirmations of it."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path, self.said = path, list[Event]()
        self.store = RunWriter(path)
        self.store.write_run({"run": path.name, "metric": "val_accuracy", "dataset": {"name": "made-up"}})
        for one in TRIALS:
            self.store.write_trial(one)

    def confirm(
        self, trials: list[TrialResult], until: Callable[[Event], bool] = lambda _: False, **table: Any
    ) -> RunRecord:
        """Confirm `trials`, to the end or until an event for which `until` holds."""
        self._call(lambda search: confirm(search, trials, "confirm", self.record), until, table)
        return self.record

    def go_on(self, **table: Any) -> RunRecord:
        self._call(lambda search: go_on(search, TRIALS, "resume"), lambda _: False, table)
        return self.record

    def _call(self, work: Callable[[Any], None], until: Callable[[Event], bool], table: dict[str, Any]) -> None:
        stop: list[bool] = []

        def emit(event: Event) -> None:
            self.store.append(event)
            self.said.append(event)
            if until(event):
                stop.append(True)

        shared = SimpleNamespace(dataset="made-up")
        about = {"spec": spec(**table), "shared": shared, "store": self.store, "emit": emit, "again": "resume"}
        work(SimpleNamespace(**about, stopping=lambda: bool(stop)))

    @property
    def record(self) -> RunRecord:
        return read_run(self.path)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    def evaluated(self) -> list[tuple[str, int]]:
        entries = read_lines(self.path / "test_ledger.jsonl")
        return [(one["trial"], one["replicate"]) for one in entries if one["type"] == "evaluated"]


def spec(metric: str = "val_accuracy", **table: Any) -> ExperimentSpec:
    about = {"name": "x", "model": {"mlp": {}}, "search": {"metric": metric}, "confirm": table}
    made, faults = validate(Draft("x.toml", about))
    assert made, faults
    return made


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Run]]:
    monkeypatch.setattr(confirmation, "run_tasks", run_tasks)
    made: list[Run] = []

    def make(name: str) -> Run:
        made.append(Run(tmp_path / name))
        return made[-1]

    yield make
    for run in made:
        run.store.close()


# --- a race -------------------------------------------------------------------------------------------------------

RACE: dict[str, Any] = {"top": 4, "seeds": 6, "racing": True}


def outcome(run: Run) -> tuple[list[Any], dict[tuple[str, int], bool]]:
    """Who left the race, when and by what, and which trainings have been evaluated."""
    return run.of(PlanDropped), {(one.trial, one.replicate): one.test is not None for one in run.record.replicates}


def test_a_race_by_the_loss_compares_image_by_image_wherever_it_is_cut_off(make_run) -> None:
    whole, cut = make_run("whole"), make_run("cut")
    whole.confirm(TRIALS, metric="val_loss", **RACE)
    assert ("0003", False) in [(out.trial, out.seeds_only) for out in whole.of(PlanDropped)]
    cut.confirm(TRIALS, lambda event: isinstance(event, ReplicateFinished), metric="val_loss", **RACE)
    cut.confirm(TRIALS, metric="val_loss", **RACE)  # what was trained before is read from its folder
    assert outcome(cut)[0] == outcome(whole)[0]
    for one in cut.record.replicates:
        assert one.per_image
        assert [*one.per_image.sd] == ["val_loss"]  # what the search does not rank by is not kept
        assert outcomes([one], "val_loss").shape == (1, IMAGES)


def test_a_race_that_can_not_compare_image_by_image_says_so(make_run, monkeypatch) -> None:
    def without(task: ReplicateTask) -> ReplicateAnswer:
        return replace(made(task), per_image={})

    made = trained
    monkeypatch.setattr("tests.test_confirm_cut.trained", without)
    run = make_run("bare")
    run.confirm(TRIALS, metric="val_loss", **RACE)
    assert {out.seeds_only for out in run.of(PlanDropped)} == {True}
    assert not [*run.path.rglob("per_image.safetensors")]


def test_a_race_ends_alike_wherever_it_is_cut_off(make_run) -> None:
    whole = make_run("whole")
    whole.confirm(TRIALS, **RACE)
    left, trainings = outcome(whole)
    assert {one.trial for one in left} == {"0002", "0003"}
    assert len({one.seeds for one in left}) == 2  # they leave at different looks: a cut can fall in between
    for cut in range(1, len(trainings) + 1):
        run = make_run(f"cut-{cut}")
        for _ in range(2):  # each attempt makes so many trainings
            run.confirm(TRIALS, after_trainings(cut), **RACE)
        run.confirm(TRIALS, **RACE)
        assert outcome(run) == (left, trainings), cut


def after_trainings(number: int) -> Callable[[Event], bool]:
    ended: list[Event] = []

    def reached(event: Event) -> bool:
        ended.extend([event] if isinstance(event, ReplicateFinished) else [])
        return len(ended) >= number

    return reached


def test_another_race_in_between_makes_one_that_is_gone_on_with_no_stricter(make_run) -> None:
    whole, cut = make_run("whole"), make_run("cut")
    whole.confirm(TRIALS, **RACE)
    cut.confirm(TRIALS, after_trainings(6), **RACE)
    own = {"top": 2, "seeds": 5, "racing": True}
    cut.confirm(TRIALS, **own)
    cut.go_on(**own)
    assert outcome(cut) == outcome(whole)


BAD_LUCK = {("0001", number): 0.3 for number in (1, 2, 3)}


def test_a_look_sees_no_seed_that_it_would_not_have_seen_without_the_cut(make_run, monkeypatch) -> None:
    monkeypatch.setattr("tests.test_confirm_cut.LUCK", BAD_LUCK)
    whole, cut = make_run("whole"), make_run("cut")
    whole.confirm(TRIALS, **RACE)
    cut.confirm(TRIALS, after_trainings(12), **RACE)  # three seeds of each plan, and nobody has looked
    own = {"top": 2, "seeds": 5}
    cut.confirm(TRIALS, **own)
    cut.go_on(racing=True, **own)
    assert cut.of(PlanDropped) == whole.of(PlanDropped)
    assert "0001" in {one.trial for one in whole.of(PlanDropped)}


def test_a_plan_is_judged_by_all_seeds_that_its_rivals_have_too(make_run, monkeypatch) -> None:
    """One that has made up for a bad beginning does not leave a later race for that beginning."""
    monkeypatch.setattr("tests.test_confirm_cut.LUCK", BAD_LUCK)
    run = make_run("run")
    run.confirm(TRIALS, top=2, seeds=8)
    run.confirm(TRIALS, top=2, seeds=10, racing=True)
    assert run.of(PlanDropped) == []


# --- the refit ----------------------------------------------------------------------------------------------------


def test_a_champion_that_was_refitted_is_not_refitted_again_when_others_are_confirmed(make_run) -> None:
    """It leads still, though the search has found plans since that are better by what the search measured."""
    run = make_run("run")
    (before,) = run.confirm(TRIALS[:1], top=1, seeds=1, refit=True).refits
    assert before.test
    record = run.confirm(TRIALS[2:], top=2, seeds=1, refit=True)
    assert {one.trial for one in record.replicates} == {"0000", "0002", "0003"}
    assert len(run.of(RefitFinished)) == 1
    assert record.refits == (before,)
    assert run.evaluated().count(("0000", REFIT)) == 1


def test_a_refit_that_was_cut_off_before_its_test_is_evaluated_and_not_made_again(make_run) -> None:
    run = make_run("run")
    table = {"seeds": 1, "refit": True}
    record = run.confirm(TRIALS[:1], lambda event: isinstance(event, RefitFinished), top=1, **table)
    assert ([one.test for one in record.refits], record.test_openings) == ([None], 0)
    record = run.confirm(TRIALS[2:], top=1, **table)
    assert [one.test is not None for one in record.refits] == [True]
    assert len(run.of(RefitFinished)) == 1
    assert run.evaluated() == [("0002", 1), ("0000", REFIT)]


# --- the test set -------------------------------------------------------------------------------------------------


def test_a_model_whose_log_the_disk_refuses_keeps_the_score_of_its_only_evaluation(make_run, monkeypatch) -> None:
    run, append = make_run("run"), RunWriter.append_log

    def refuse(writer: RunWriter, name: str, text: str, *, final: bool = False) -> None:
        if "on the test set" in text:
            raise RunWriteError("can't write log.txt: No space left on device")
        append(writer, name, text, final=final)

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "append_log", refuse)
        with pytest.raises(RunWriteError):
            run.confirm(TRIALS[:1], top=1, seeds=1)
    assert run.record.replicates[0].test
    run.confirm(TRIALS[:1], top=1, seeds=1)
    assert run.evaluated() == [("0000", 1)]
