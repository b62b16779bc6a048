"""Confirmation: fresh seeds, failures that are answers, a test set that opens once or not at all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest

from mnistlab import events
from mnistlab.errors import RunDirectoryError
from mnistlab.leaderboard import Row, rank
from mnistlab.leaderboard.racing import outcomes
from mnistlab.store import read_lines, read_run
from mnistlab.store.results import REFIT, RunRecord, State, TrialResult
from mnistlab.tuning.confirm import confirm, go_on
from mnistlab.tuning.confirm_work import left_of, work_of
from mnistlab.tuning.driver import Search, best_trials
from mnistlab.util.seeds import replicate_seed
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import moods

pytestmark = pytest.mark.simulated

CONFIRM = "\n[confirm]\nbaseline = false\ntop = {top}\nseeds = {seeds}\n"


def trial(number: int, value: float, state: State = "complete", plan: int | None = None) -> TrialResult:
    metrics = {"val_accuracy": value, "val_loss": value}
    tried = {"model": number if plan is None else plan}
    return TrialResult(trial=f"{number:04d}", number=number, state=state, seed=0, plan=tried, label="", metrics=metrics)


def test_the_best_are_those_that_used_their_full_budget() -> None:
    trials = [trial(0, 0.9), trial(1, 0.95), trial(2, 0.99, "pruned"), trial(3, 0.95), trial(4, 0.2, "failed")]
    assert [t.number for t in best_trials(trials, "val_accuracy", 3)] == [1, 3, 0]
    assert [t.number for t in best_trials(trials, "val_loss", 2)] == [0, 1]
    assert best_trials([], "val_accuracy", 3) == []


def test_a_plan_that_was_tried_twice_is_confirmed_once() -> None:
    trials = [trial(0, 0.9, plan=7), trial(1, 0.8), trial(2, 0.95, plan=7)]
    assert [t.number for t in best_trials(trials, "val_accuracy", 3)] == [2, 1]


def test_the_best_plans_are_trained_on_fresh_seeds_and_tested_once(run_tiny: RunTiny) -> None:
    text = moods("good", "stuck", scheduler="none") + CONFIRM.format(top=2, seeds=2)
    ran = run_tiny(text, then=lambda search, trials: confirm(search, trials, "the command"))
    kinds = [event.type for event in ran.stream]
    confirming = kinds[kinds.index("confirmation_started") :]
    epochs = ran.results[0].plan["training"]["epochs"]
    assert Counter(confirming) == {
        "confirmation_started": 1,
        "replicate_started": 4,
        "replicate_epoch": 4 * epochs,
        "replicate_finished": 4,
        "test_opened": 1,
        "ensemble_evaluated": 1,
    }
    assert confirming[-2:] == ["test_opened", "ensemble_evaluated"]
    record = read_run(ran.path)
    assert record.test_openings == 1
    assert {(r.trial, r.replicate, r.seed) for r in record.replicates} == {
        (name, number, replicate_seed(0, number)) for name in ("0000", "0001") for number in (1, 2)
    }
    good = [r for r in record.replicates if r.trial == "0000"]
    assert all(r.test and r.test.accuracy > 0.9 and r.test.images == 40 for r in good)
    assert all(r.cost and r.cost.macs and r.cost.latency_1 > 0 and "thread" in r.cost.device for r in good)
    assert good[0].seed not in {t.seed for t in record.trials}
    assert good[0].weights_sha256 != good[1].weights_sha256
    for one in good:
        losses = outcomes([one], "val_loss")
        assert losses.mean() == pytest.approx(one.metrics["val_loss"], rel=1e-6)
        assert losses.shape == (1, len(one.val_correct))
    assert [entry["type"] for entry in read_lines(ran.path / "test_ledger.jsonl")] == [
        "opened",
        *["evaluated"] * 4,
        "ensemble",
    ]


def test_a_replicate_that_fails_is_recorded_and_does_not_open_the_test_set(run_tiny: RunTiny) -> None:
    def break_then_confirm(search, trials) -> None:
        broken = json.loads(json.dumps(dict(trials[0].plan)))
        broken["model"]["config"]["mood"] = "nan"
        confirm(search, [TrialResult(**{**vars(trials[0]), "plan": broken})], "the command")

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=break_then_confirm)
    (failed,) = ran.of(events.ReplicateFailed)
    assert failed.cause == "nan"  # type: ignore[attr-defined]
    assert not ran.of(events.TestOpened)
    assert not (ran.path / "test_ledger.jsonl").exists()
    assert read_run(ran.path).replicates[0].cause == "nan"


def test_a_run_that_is_asked_to_stop_leaves_the_test_set_sealed(run_tiny: RunTiny) -> None:
    stop: list[bool] = []

    def stop_then_confirm(search, trials) -> None:
        stop.append(True)
        confirm(search, trials, "the command")

    text = moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=2)
    ran = run_tiny(text, then=stop_then_confirm, stopping=lambda: bool(stop))
    assert ran.of(events.ConfirmationStarted)
    assert not ran.of(events.TestOpened)


def again(search: Search, **confirm_as: object) -> Search:
    """The search with another `[confirm]` table."""
    table = search.spec.confirm.model_copy(update=confirm_as)
    return replace(search, spec=search.spec.model_copy(update={"confirm": table}))


def test_a_later_confirmation_trains_what_is_missing_and_tests_those_models_alone(run_tiny: RunTiny) -> None:
    kept: list[RunRecord] = []

    def confirm_twice(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the first")
        kept.append(read_run(search.store.path))
        confirm(again(search, top=2, seeds=2), trials, "the second", kept[0])
        kept.append(read_run(search.store.path))
        confirm(again(search, top=2, seeds=2), trials, "the third", kept[1])

    ran = run_tiny(moods("good", "stuck", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=confirm_twice)
    before, after = kept
    assert [(r.trial, r.replicate) for r in before.replicates] == [("0000", 1)]
    assert [(r.trial, r.replicate) for r in after.replicates] == [("0000", 1), ("0000", 2), ("0001", 1), ("0001", 2)]
    assert after.replicates[0] == before.replicates[0]
    assert all(r.test for r in after.replicates)
    opened = [entry for entry in read_lines(ran.path / "test_ledger.jsonl") if entry["type"] == "opened"]
    assert [[(m["trial"], m["replicate"]) for m in entry["models"]] for entry in opened] == [
        [("0000", 1)],
        [("0001", 1), ("0000", 2), ("0001", 2)],
    ]
    assert [entry["command"] for entry in opened] == ["the first", "the second"]
    assert [event.count for event in ran.stream if isinstance(event, events.TestOpened)] == [1, 2]
    assert [(entry["trials"], entry["seeds"]) for entry in after.confirmations] == [
        (["0000"], 1),
        (["0000", "0001"], 2),
    ]
    assert [row.untried for row in rank_of(after)] == [0, 0]


def rank_of(record: RunRecord) -> tuple[Row, ...]:
    dataset = {"name": "idx", "requested": "idx", "fallback": ""}
    return rank(replace(record, run={**record.run, "metric": "val_accuracy", "dataset": dataset})).rows


def test_models_that_were_trained_and_never_evaluated_are_when_the_run_is_gone_on_with(run_tiny: RunTiny) -> None:
    stop: list[bool] = []

    def stop_at_the_end_then_go_on(search: Search, trials: list[TrialResult]) -> None:
        def emit(event: events.Event) -> None:
            search.emit(event)
            if isinstance(event, events.ReplicateFinished):
                stop.append(True)

        confirm(replace(search, emit=emit, stopping=lambda: bool(stop)), trials, "the first")
        record = read_run(search.store.path)
        assert [(bool(r.weights_sha256), r.test) for r in record.replicates] == [(True, None)]
        assert record.test_openings == 0
        confirm(search, trials, "the second", record)

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=stop_at_the_end_then_go_on)
    assert len(ran.of(events.ReplicateFinished)) == 1
    record = read_run(ran.path)
    assert record.test_openings == 1
    assert [r.test is not None for r in record.replicates] == [True]


def test_what_was_asked_for_beyond_the_experiment_and_was_cut_off_is_gone_on_with(run_tiny: RunTiny) -> None:
    stop: list[bool] = []

    def cut_off_then_go_on(search: Search, trials: list[TrialResult]) -> None:
        def emit(event: events.Event) -> None:
            search.emit(event)
            if isinstance(event, events.ReplicateFinished) and event.replicate == 2:
                stop.append(True)

        confirm(search, trials, "the search")
        cut = replace(again(search, top=2, seeds=3), emit=emit, stopping=lambda: bool(stop))
        confirm(cut, trials, "more", read_run(search.store.path))
        record = read_run(search.store.path)
        left = left_of(search.spec, trials, record)
        assert left is not None
        assert ([one.trial for one in left.trials], left.seeds) == (["0000", "0001"], 3)
        assert len(left.tasks) == 6 - len(record.replicates) > 0
        assert left_of(again(search, top=2, seeds=3).spec, trials, record) is None  # that is the experiment's own
        go_on(search, [*trials, trial(9, 1.0)], "resumed")  # whatever is the best one by now
        assert left_of(search.spec, trials, read_run(search.store.path)) is None
        go_on(search, trials, "once more")
        assert work_of(search.spec, search.space, trials, read_run(search.store.path)).done

    ran = run_tiny(moods("good", "stuck", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=cut_off_then_go_on)
    record = read_run(ran.path)
    assert {(r.trial, r.replicate) for r in record.replicates} == {(t, n) for t in ("0000", "0001") for n in (1, 2, 3)}
    assert all(r.test for r in record.replicates)
    assert record.test_openings == 2
    assert [(entry["command"], entry["seeds"]) for entry in record.confirmations] == [
        ("the search", 1),
        ("more", 3),
        ("resumed", 3),
    ]


def test_weights_that_were_changed_are_not_evaluated(run_tiny: RunTiny) -> None:
    def spoil(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the first")
        record = read_run(search.store.path)
        (one,) = record.replicates
        search.store.write_replicate(replace(one, test=None, test_correct=""), b"other weights")
        with pytest.raises(RunDirectoryError, match=r"weights\.safetensors is damaged: its sha256 is not"):
            confirm(search, trials, "the second", read_run(search.store.path))

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=spoil)
    assert len(ran.of(events.TestOpened)) == 1


def test_in_a_race_a_plan_that_can_no_longer_win_gets_no_more_seeds(run_tiny: RunTiny) -> None:
    text = moods("good", "stuck", "noisy", scheduler="none") + CONFIRM.format(top=3, seeds=5) + "racing = true\n"
    made: list[Search] = []

    def race(search: Search, trials: list[TrialResult]) -> None:
        made.append(search)
        confirm(search, trials, "the command")

    ran = run_tiny(text, then=race)
    (dropped,) = [event for event in ran.stream if isinstance(event, events.PlanDropped)]
    assert (dropped.trial, dropped.seeds) == ("0001", 3)
    assert dropped.leader in {"0000", "0002"}
    assert 0 < dropped.low < dropped.difference < dropped.high
    record = read_run(ran.path)
    assert Counter(r.trial for r in record.replicates) == {"0000": 5, "0001": 3, "0002": 5}
    assert all(r.test for r in record.replicates)
    *_, last = rank_of(record)
    assert (last.trial, last.left_race, last.untried) == ("0001", True, 0)
    assert record.confirmations[-1]["type"] == "dropped"
    assert work_of(made[0].spec, made[0].space, ran.results, record).done  # what has left a race stays out of it
    more = work_of(again(made[0], seeds=6).spec, made[0].space, ran.results, record)
    assert {task.trial for task in more.tasks} == {"0000", "0001", "0002"}  # a longer one is another race


def test_the_champion_is_trained_once_more_on_all_images_and_tested_in_the_same_opening(run_tiny: RunTiny) -> None:
    text = moods("good", "stuck", scheduler="none") + CONFIRM.format(top=2, seeds=1) + "refit = true\n"
    ran = run_tiny(text, then=lambda search, trials: confirm(search, trials, "the command"))
    record = read_run(ran.path)
    assert [(r.trial, r.replicate) for r in record.replicates] == [("0000", 1), ("0001", 1)]
    (refit,) = record.refits
    assert (refit.trial, refit.replicate, len(refit.history)) == ("0000", REFIT, 4)
    assert refit.seed not in {r.seed for r in (*record.replicates, *record.trials)}
    assert (refit.val_correct, refit.per_image) == ("", None)
    assert not [name for epoch in refit.history for name in epoch if name.startswith("val_")]
    assert refit.test
    assert refit.test.accuracy > 0.9
    weights = (ran.path / "trials" / "0000" / "refit" / "weights.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == refit.weights_sha256
    (opened, *evaluated) = read_lines(ran.path / "test_ledger.jsonl")
    assert (opened["type"], len(opened["models"]), record.test_openings) == ("opened", 3, 1)
    assert refit.weights_sha256 in {entry["weights_sha256"] for entry in evaluated}
    kinds = [event.type for event in ran.stream]
    assert kinds.index("replicate_finished") < kinds.index("refit_started") < kinds.index("test_opened")
    assert [row.trial for row in rank_of(record)] == ["0000", "0001"]


def test_a_refit_that_was_not_reached_is_made_up_for_and_never_made_twice(run_tiny: RunTiny) -> None:
    def confirm_thrice(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the first")
        for _ in range(2):
            confirm(again(search, refit=True), trials, "again", read_run(search.store.path))

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=confirm_thrice)
    assert [event.type for event in ran.stream].count("refit_finished") == 1
    record = read_run(ran.path)
    assert record.test_openings == 2
    assert [one.test is not None for one in record.refits] == [True]
    opened = [entry for entry in read_lines(ran.path / "test_ledger.jsonl") if entry["type"] == "opened"]
    assert [(m["trial"], m["replicate"]) for m in opened[1]["models"]] == [("0000", REFIT)]
