"""A confirmation that is cut off and gone on with ends as it would have without the cut.

The trainings, which Ray would carry out, are made up here at once; all else is the program's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mnistlab.api import Int
from mnistlab.data import Division
from mnistlab.errors import DamagedError, DataError, RunWriteError
from mnistlab.events import ConfirmationStarted, Event, PlanDropped, RefitFinished, ReplicateFinished, Warned
from mnistlab.experiment.space import Branch, Parameter, Space, default_plan, suggest
from mnistlab.experiment.spec import Draft, ExperimentSpec, validate
from mnistlab.leaderboard import rank
from mnistlab.leaderboard.racing import outcomes
from mnistlab.store import RunWriter, read_lines, read_run
from mnistlab.store.fsck import check
from mnistlab.store.results import REFIT, RunRecord, Split, TestScore, TrialResult
from mnistlab.trained.selection import model_of, training_of
from mnistlab.tuning import confirm as confirmation
from mnistlab.tuning import opening
from mnistlab.tuning.confirm import confirm, go_on
from mnistlab.tuning.confirm_work import work_of
from mnistlab.tuning.worker.ensemble import EnsembleAnswer, EnsembleTask
from mnistlab.tuning.worker.replicate import ReplicateAnswer, ReplicateTask, TestAnswer

pytestmark = pytest.mark.simulated

IMAGES = 500
WRONG = {"0000": 0.02, "0001": 0.025, "0002": 0.2, "0003": 0.3}  # shares of images
LUCK: dict[tuple[str, int], float] = {}  # the same for a seed of which a test wants another one


TOGETHER = EnsembleAnswer(test=TestScore(correct=9, images=10, loss=0.1), val_accuracy=0.5, log="tested together")


def space(default: int) -> Space:
    """Return a space of widths whose default is that of trial `default`, if there is such a trial."""
    width = Parameter("model.mlp.width", Int(8, 64), 8 + default)
    return Space((Branch("mlp", {}, {}, (width,)),), (Branch("adam", {}, {}, ()),), (), Branch("training", {}, {}, ()))


def trial(number: int) -> TrialResult:
    name, plan = f"{number:04d}", suggest(space(0), lambda _: 8 + number)
    about: dict[str, Any] = {"trial": name, "number": number, "plan": plan, "label": name, "seed": 0}
    return TrialResult(**about, state="complete", metrics={"val_accuracy": 1 - WRONG[name], "val_loss": WRONG[name]})


TRIALS = [trial(number) for number in range(4)]


def trained(task: ReplicateTask) -> ReplicateAnswer:
    rng = np.random.default_rng([int(task.trial) if task.trial.isdecimal() else 99, task.replicate])
    wrong = LUCK.get((task.trial, task.replicate), WRONG.get(task.trial, 0.1) * rng.uniform(0.8, 1.2))
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
        elif isinstance(task, EnsembleTask):
            yield task, TOGETHER
        else:
            yield task, TestAnswer(correct=np.ones(10, bool), log="tested")


class Run:
    """A run directory whose search is over, and confirmations of it."""

    def __init__(self, path: Path, **dataset: Any) -> None:
        path.mkdir()
        self.path, self.said, self.default = path, list[Event](), 3
        self.split: Callable[[int], Division | None] = lambda _: None
        self.cache = path.parent / "cache"
        self.store = RunWriter(path)
        about = {"metric": "val_accuracy", "dataset": {"name": "made-up", **dataset}}
        self.store.write_run({"run": path.name, **about})
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

        shared = SimpleNamespace(dataset="made-up", place=SimpleNamespace(cache=self.cache))
        about = {
            "spec": spec(**table),
            "shared": shared,
            "store": self.store,
            "emit": emit,
            "again": "resume",
            "space": space(self.default),
            "split": self.split,
        }
        work(SimpleNamespace(**about, stopping=lambda: bool(stop)))

    @property
    def record(self) -> RunRecord:
        return read_run(self.path)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    def ledger(self) -> list[str]:
        return [str(one["type"]) for one in read_lines(self.path / "test_ledger.jsonl")]

    def evaluated(self) -> list[tuple[str, int]]:
        entries = read_lines(self.path / "test_ledger.jsonl")
        return [(one["trial"], one["replicate"]) for one in entries if one["type"] == "evaluated"]


def spec(metric: str = "val_accuracy", **table: Any) -> ExperimentSpec:
    about = {"name": "x", "model": {"mlp": {}}, "search": {"metric": metric}, "confirm": {"baseline": False, **table}}
    made, faults = validate(Draft("x.toml", about))
    assert made, faults
    return made


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    for module in (confirmation, opening):
        monkeypatch.setattr(module, "run_tasks", run_tasks)
    made: list[Run] = []

    def make(name: str, **dataset: Any) -> Run:
        made.append(Run(tmp_path / name, **dataset))
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
    monkeypatch.setattr("tests.tuning.test_confirm_cut.trained", without)
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
    monkeypatch.setattr("tests.tuning.test_confirm_cut.LUCK", BAD_LUCK)
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
    monkeypatch.setattr("tests.tuning.test_confirm_cut.LUCK", BAD_LUCK)
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


# --- the plan of all defaults -------------------------------------------------------------------------------------

PAID: dict[str, Any] = {"top": 2, "seeds": 5, "baseline": True}


def planned(run: Run) -> list[Any]:
    return [entry["baseline"] for entry in run.record.confirmations if entry["type"] == "planned"]


def names(run: Run) -> set[str]:
    return {one.trial for one in run.record.replicates}


def of_defaults(run: Run) -> list[Any]:
    """What fsck finds wrong with the folder of defaults that no trial had."""
    return [found for found in check(run.path).findings if found.file.startswith("trials/baseline")]


def test_the_defaults_are_confirmed_on_top_of_the_best_ones_and_tested_with_them(make_run) -> None:
    run = make_run("run")
    record = run.confirm(TRIALS, **PAID)
    assert planned(run) == [{"trial": "0003", "added": True}]
    assert [event.baseline for event in run.of(ConfirmationStarted)] == ["0003"]
    assert Counter(one.trial for one in record.replicates) == {"0000": 5, "0001": 5, "0003": 5}
    assert all(one.test for one in record.replicates)
    assert record.test_openings == 1
    board = rank(record)
    assert (board.gain.kind, board.gain.trial, board.gain.seeds) == ("gained", "0003", 5)
    assert [row.trial for row in board.rows if row.baseline] == ["0003"]
    assert work_of(spec(**PAID), space(3), TRIALS, record).done


def test_defaults_that_are_among_the_best_cost_nothing_more(make_run) -> None:
    run = make_run("run")
    run.default = 1
    record = run.confirm(TRIALS, **PAID)
    assert planned(run) == [{"trial": "0001", "added": False}]
    assert Counter(one.trial for one in record.replicates) == {"0000": 5, "0001": 5}


@pytest.mark.parametrize("state", ["pruned", "interrupted", "failed"])
def test_defaults_that_the_search_gave_up_are_confirmed_by_their_own_trial(make_run, state) -> None:
    run = make_run("run")
    record = run.confirm([*TRIALS[:3], replace(TRIALS[3], state=state, metrics={})], **PAID)
    assert planned(run) == [{"trial": "0003", "added": True}]
    assert names(run) == {"0000", "0001", "0003"}
    assert rank(record).gain.kind == "gained"


def test_of_several_trials_of_the_defaults_the_best_one_stands_for_them(make_run) -> None:
    run = make_run("run")
    again = replace(TRIALS[3], trial="0004", number=4, metrics={**TRIALS[3].metrics, "val_accuracy": 0.75})
    run.confirm([*TRIALS, again], **PAID)
    assert planned(run) == [{"trial": "0004", "added": True}]


def test_defaults_that_no_trial_had_get_a_name_of_their_own(make_run) -> None:
    run = make_run("run")
    run.default = 20
    record = run.confirm(TRIALS, **PAID)
    assert planned(run) == [{"trial": "baseline", "added": True, "plan": default_plan(space(20))}]
    assert names(run) == {"0000", "0001", "baseline"}
    assert [one.trial for one in record.trials] == ["0000", "0001", "0002", "0003"]  # the search has not grown
    assert record.plans[-1].plan == default_plan(space(20))
    board = rank(record)
    assert {row.trial: (row.state, row.baseline) for row in board.rows}["baseline"] == ("confirmed", True)
    assert (board.gain.kind, board.gain.trial) == ("gained", "baseline")
    assert model_of(record, "baseline", None).trial.plan == default_plan(space(20))
    assert training_of(record, "baseline", None).title == "trial baseline, replicate 1"
    assert of_defaults(run) == []
    run.path.joinpath("confirmation.jsonl").unlink()
    said = "is of a plan that confirmation.jsonl does not hold"
    assert [(one.level, one.message) for one in of_defaults(run)] == [("fault", said)] * 5


def test_other_defaults_of_an_amended_space_get_another_name(make_run) -> None:
    run = make_run("run")
    for default in (20, 21, 20):
        run.default = default
        record = run.confirm(TRIALS, **PAID)
    assert [one["trial"] for one in planned(run)] == ["baseline", "baseline-2", "baseline"]
    assert Counter(one.trial for one in record.replicates)["baseline"] == 5  # the third time nothing was trained
    assert names(run) == {"0000", "0001", "baseline", "baseline-2"}
    assert len({one.number for one in record.plans}) == len(record.plans)
    assert [row.trial for row in rank(record).rows if row.baseline] == ["baseline"]


def test_a_confirmation_with_defaults_ends_alike_wherever_it_is_cut_off(make_run) -> None:
    for default in (3, 20):
        whole = make_run(f"whole-{default}")
        whole.default = default
        whole.confirm(TRIALS, **PAID)
        for cut in (1, 3, 8, 15):
            run = make_run(f"cut-{default}-{cut}")
            run.default = default
            run.confirm(TRIALS, after_trainings(cut), **PAID)
            run.confirm(TRIALS, **PAID)
            assert outcome(run) == outcome(whole)
            assert rank(run.record).gain == rank(whole.record).gain


def test_a_confirmation_that_alone_asked_for_the_defaults_is_gone_on_with(make_run) -> None:
    """`mnistlab confirm --baseline` of a run whose experiment asks for none."""
    run, own = make_run("run"), {"top": 2, "seeds": 5}
    run.default = 20
    run.confirm(TRIALS, **own)
    assert names(run) == {"0000", "0001"}
    run.confirm(TRIALS, after_trainings(2), **PAID)
    record = run.go_on(**own)
    assert Counter(one.trial for one in record.replicates)["baseline"] == 5
    assert [entry["baseline"]["trial"] for entry in record.confirmations if "baseline" in entry] == ["baseline"] * 2
    run.go_on(**own)
    assert len(run.of(ConfirmationStarted)) == 3


def test_asking_for_the_defaults_names_them_where_they_are_among_the_confirmed_plans(make_run) -> None:
    """Nothing is trained and nothing is opened: all that was missing is which of the plans they are."""
    run = make_run("run")
    run.default = 1
    before = run.confirm(TRIALS, top=3, seeds=5)
    record = run.confirm(TRIALS, top=3, seeds=5, baseline=True)
    assert record.baseline == "0001"
    assert (record.replicates, record.test_openings) == (before.replicates, before.test_openings)
    gain = rank(record).gain
    assert gain is not None
    assert gain.trial == "0001"
    assert work_of(spec(top=3, seeds=5, baseline=True), space(1), TRIALS, record).done


def test_the_defaults_are_taken_back_into_a_race_that_they_have_left(make_run) -> None:
    run = make_run("run")
    run.default = 2
    run.confirm(TRIALS, **RACE)
    assert "0002" in {event.trial for event in run.of(PlanDropped)}
    record = run.confirm(TRIALS, **RACE, baseline=True)
    assert Counter(one.trial for one in record.replicates)["0002"] == RACE["seeds"]
    gain = rank(record).gain
    assert gain is not None
    assert (gain.kind, gain.trial, gain.seeds) == ("gained", "0002", RACE["seeds"])


def test_what_stood_for_the_defaults_still_does_where_another_trial_has_their_plan(make_run) -> None:
    again = replace(TRIALS[3], trial="0004", number=4)
    for name, default, trials in (
        ("pruned", 3, [*TRIALS[:3], replace(TRIALS[3], state="pruned")]),
        ("own", 20, TRIALS),
    ):
        run = make_run(name)
        run.default = default
        stood = run.confirm(trials, **PAID).baseline
        more = replace(again, plan=default_plan(space(default)))
        record = run.confirm([*trials, more], **{**PAID, "seeds": 6})
        assert record.baseline == stood != "0004"
        assert "0004" not in names(run)


def test_the_defaults_never_leave_a_race(make_run) -> None:
    run = make_run("run")
    record = run.confirm(TRIALS, **RACE, baseline=True)
    assert {event.trial for event in run.of(PlanDropped)} == {"0002"}
    assert Counter(one.trial for one in record.replicates)["0003"] == RACE["seeds"]
    assert rank(record).gain.seeds == RACE["seeds"]


@pytest.mark.parametrize("table", [{"top": 0}, {"baseline": False}])
def test_without_a_confirmation_or_a_baseline_nothing_is_said(make_run, table) -> None:
    run = make_run("run")
    record = run.confirm(TRIALS, **{**PAID, "seeds": 1, **table})
    assert "0003" not in names(run)
    assert all("baseline" not in entry for entry in record.confirmations)
    assert rank(record).gain is None


def test_a_space_of_one_plan_has_nothing_to_gain(make_run) -> None:
    one = replace(space(0), models=(Branch("mlp", {}, {"width": 8}, ()),))
    assert work_of(spec(**PAID), one, TRIALS[:1]).chosen.baseline == ""
    assert work_of(spec(**PAID), space(0), TRIALS[:1]).chosen.baseline == "0000"


def test_where_no_trial_used_its_budget_the_defaults_are_not_trained_either() -> None:
    pruned = [replace(one, state="pruned") for one in TRIALS]
    assert work_of(spec(**PAID), space(3), pruned).done


# --- a split of each seed -----------------------------------------------------------------------------------------


def drawn(number: int) -> Division:
    """What `run` has each seed draw, made up: no image is of two numbers."""
    start = 100 * number
    return Division(train=np.arange(start, start + 60), validation=np.arange(start + 60, start + 100), left_out=7)


def test_every_plan_has_the_split_of_its_seed_also_in_a_confirmation_that_was_cut(make_run) -> None:
    run, table = make_run("run"), {"top": 2, "seeds": 3, "refit": True}
    run.split = drawn
    run.confirm(TRIALS, after_trainings(3), **table)
    record = run.confirm(TRIALS, **table)
    assert record.test_openings == 1
    for one in record.replicates:
        own = drawn(one.replicate)
        assert one.split == Split(sha256=own.digest(), train=60, validation=40, left_out=7)
        assert one.test  # also those that were read from their folders
    assert [one.split for one in record.refits] == [None]
    assert not [found for found in check(run.path).findings if "split" in found.message]


def test_models_whose_split_is_no_longer_drawn_alike_are_not_tested(make_run) -> None:
    run = make_run("run")
    run.split = drawn
    run.confirm(TRIALS, after_trainings(1), top=1, seeds=2)
    run.split = lambda number: drawn(number + 50)
    with pytest.raises(DamagedError, match="can't be drawn again"):
        run.confirm(TRIALS, top=1, seeds=2)
    assert run.record.test_openings == 0


def test_an_ensemble_whose_splits_are_no_longer_drawn_alike_has_no_score(make_run, monkeypatch) -> None:
    """Its models are normalised by the images that each was trained on."""
    run = make_run("run")
    run.split = drawn
    whole = opening.evaluate_together
    monkeypatch.setattr(opening, "evaluate_together", lambda *_: None)
    run.confirm(TRIALS, top=1, seeds=2)
    monkeypatch.setattr(confirmation, "evaluate_together", whole)
    assert run.record.ensemble_due == "0000"
    run.split = lambda number: drawn(number + 50)
    record = run.confirm(TRIALS, top=1, seeds=2)
    assert (record.ensemble, record.ensemble_due) == (None, "")
    assert "can't be drawn again" in run.of(Warned)[-1].message


def test_a_split_that_can_not_be_drawn_is_told_before_anything_is_written(make_run) -> None:
    run = make_run("run")

    def refuse(number: int) -> Division:
        if number > 2:
            raise DataError("no image of class 7 is left")
        return drawn(number)

    run.split = refuse
    with pytest.raises(DataError):
        run.confirm(TRIALS, top=1, seeds=3)
    assert (run.record.confirmations, run.of(ConfirmationStarted)) == ((), [])


def test_plans_of_unlike_splits_are_told_by_fsck(make_run) -> None:
    run = make_run("run")
    run.split = drawn
    run.confirm(TRIALS[:1], top=1, seeds=1)
    run.split = lambda number: drawn(number + 50)
    run.confirm([*TRIALS[1:], TRIALS[0]][:1], top=1, seeds=1)
    said = [found.message for found in check(run.path).findings if "split" in found.message]
    assert said == ["has another split than replicate 1 of trial 0000: they are no pair"]
