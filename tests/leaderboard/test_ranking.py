from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mnistlab.console.ranking import notes
from mnistlab.leaderboard import Leaderboard, rank, rank_together
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.store import pack_per_image
from mnistlab.store.results import ReplicateResult, RunRecord, TestScore, TrialResult

IMAGES = 1_000


def plan(channels: int) -> dict[str, Any]:
    model = {"name": "cnn", "plugin": "mnistlab:cnn", "distribution": "mnistlab", "version": "0.1.0"}
    return {
        "model": model | {"config": {"channels": channels, "depth": 3}},
        "optimizer": {"name": "adamw", "config": {"lr": 0.003}},
        "transforms": [],
        "training": {"epochs": 4, "batch_size": 128},
    }


def trial(number: int, value: float = 0.9, state: Any = "complete", epochs: int = 4, **changes: Any) -> TrialResult:
    metrics = {"val_accuracy": value, "val_loss": 1 - value, "parameters": 1_000 + number} if epochs else {}
    fields = {"plan": plan(16 + number), "seed": number, "label": "", "metrics": metrics, "seconds": 10.0 + number}
    history = tuple({"val_accuracy": value} for _ in range(epochs))
    return TrialResult(trial=f"{number:04}", number=number, state=state, history=history, **(fields | changes))


def replicates(number: int, accuracy: float, seeds: int = 5, first: int = 100) -> list[ReplicateResult]:
    """Confirm a trial: each seed gets the same share right, other images."""
    made = []
    for i in range(seeds):
        right = np.random.default_rng([number, i]).permutation(IMAGES) < round(accuracy * IMAGES)
        metrics = {"val_accuracy": float(right.mean()), "val_loss": 1 - float(right.mean())}
        score = TestScore(correct=round(accuracy * 10_000) + i, images=10_000, loss=0.1)
        bits = "".join("01"[int(x)] for x in right)
        seed = first + i
        one = ReplicateResult(
            trial=f"{number:04}", replicate=i, seed=seed, metrics=metrics, seconds=20, val_correct=bits, test=score
        )
        made.append(by_image(one, val_loss=1.0 - right))
    return made


def by_image(one: ReplicateResult, **values: np.ndarray) -> ReplicateResult:
    """Give a replicate what is known of each validation image, as if it had been read from its folder."""
    _, about = pack_per_image(values)
    assert about
    kept = {name: value.astype(np.float32) for name, value in values.items()}
    return replace(one, per_image=replace(about, read=lambda: kept))


def record(*trials: TrialResult, confirmed: list[ReplicateResult] | None = None, **changes: Any) -> RunRecord:
    run = {
        "run": "cnn-1",
        "metric": "val_accuracy",
        "metrics": ["val_accuracy"],
        "rule": "the rule",
        "dataset": {"name": "mnist", "requested": "mnist", "fallback": "", "train": 50_000},
    }
    openings = changes.pop("openings", 1 if confirmed else 0)
    return RunRecord(
        path="runs/cnn-1",
        confirmations=changes.pop("confirmations", ()),
        run=run | changes,
        trials=trials,
        replicates=tuple(confirmed or ()),
        test_openings=openings,
    )


def order(board: Leaderboard) -> list[tuple[str, str, str]]:
    return [(row.rank, row.trial, row.state) for row in board.rows]


def test_confirmed_then_complete_then_pruned_then_failed():
    board = rank(
        record(
            trial(0, 0.99),
            trial(1, 0.95),
            trial(2, 0.97, "pruned", 1),
            trial(3, 0.60, "pruned", 2),
            trial(4, 0.10, "failed", 1, cause="nan", message="the loss is nan"),
            trial(5, 0.98),
            trial(6, state="failed", epochs=0, cause="plugin", message="boom"),
            trial(7, 0.80, "pruned", 2),
            confirmed=replicates(1, 0.9),
        )
    )
    assert order(board) == [
        ("1", "0001", "confirmed"),
        ("2", "0000", "complete"),
        ("3", "0005", "complete"),
        ("4", "0007", "pruned"),
        ("5", "0003", "pruned"),
        ("6", "0002", "pruned"),
        ("-", "0004", "failed"),
        ("-", "0006", "failed"),
    ]
    assert board.failures == {"nan": 1, "plugin": 1}
    assert [row.validation for row in board.rows[-2:]] == [None, None]


def test_interrupted_and_pruned_trials_are_one_group():
    board = rank(
        record(
            trial(0, 0.70, "pruned", 2),
            trial(1, 0.90, "interrupted", 1),
            trial(2, 0.80, "interrupted", 2),
            trial(3, 0.70, "interrupted", 2),
            trial(4, 0.95, "interrupted", 0),
            trial(5, 0.10),
        )
    )
    assert order(board) == [
        ("1", "0005", "complete"),
        ("2", "0002", "interrupted"),
        ("3=", "0000", "pruned"),
        ("3=", "0003", "interrupted"),
        ("5", "0001", "interrupted"),
        ("6", "0004", "interrupted"),
    ]


def test_a_confirmed_row_holds_means_interval_and_provenance():
    row = rank(record(trial(1, 0.95), trial(2, 0.90), confirmed=replicates(1, 0.93))).rows[0]
    assert row.validation is not None
    assert row.test is not None
    assert (row.validation.mean, row.validation.n) == (pytest.approx(0.93), 5)
    assert row.test.accuracy.mean == pytest.approx(0.9302)
    assert row.test.accuracy.sd == pytest.approx(np.std([0, 1, 2, 3, 4], ddof=1) / 10_000)
    assert (round(row.test.interval.low, 4), round(row.test.interval.high, 4)) == (0.9250, 0.9350)
    assert (row.seconds, row.epochs, row.budget, row.parameters) == (20, 4, 4, 1_001)
    assert (row.model, row.settings) == ("cnn · adamw", "channels=17")
    assert (row.plugins[0], row.dataset, row.run) == ("mnistlab:cnn 0.1.0", "mnist", "cnn-1")


def test_plans_within_noise_share_a_rank_and_others_do_not():
    confirmed = replicates(1, 0.951) + replicates(2, 0.950) + replicates(3, 0.80)
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed))
    assert order(board) == [("1=", "0001", "confirmed"), ("1=", "0002", "confirmed"), ("3", "0003", "confirmed")]
    assert board.tied == ("0002",)


def test_ties_rest_on_the_seeds_that_both_have():
    confirmed = replicates(1, 0.95) + replicates(2, 0.80, first=500)
    board = rank(record(trial(1), trial(2), confirmed=confirmed))
    assert [row.rank for row in board.rows] == ["1=", "1="]  # without a common seed nothing can be told


def test_without_outcomes_by_image_the_seeds_decide():
    def bare(number: int, values: list[float]) -> list[ReplicateResult]:
        return [
            ReplicateResult(trial=f"{number:04}", replicate=i, seed=i, metrics={"val_accuracy": v})
            for i, v in enumerate(values)
        ]

    far = rank(record(trial(1), trial(2), confirmed=bare(1, [0.99, 0.991, 0.992]) + bare(2, [0.90, 0.902, 0.901])))
    near = rank(record(trial(1), trial(2), confirmed=bare(1, [0.99, 0.91, 0.95]) + bare(2, [0.90, 0.94, 0.95])))
    same = rank(record(trial(1), trial(2), confirmed=bare(1, [0.99, 0.991, 0.992]) + bare(2, [0.90, 0.901, 0.902])))
    assert [row.rank for row in far.rows] == ["1", "2"]
    assert [row.rank for row in near.rows] == ["1=", "1="]
    assert [row.rank for row in same.rows] == ["1=", "1="]  # the same difference three times says nothing of a fourth


def test_failed_replicates_are_counted_and_not_averaged():
    confirmed = replicates(1, 0.95)
    confirmed[0] = ReplicateResult(trial="0001", replicate=0, seed=100, metrics={"val_accuracy": 0.1}, cause="nan")
    confirmed[1] = ReplicateResult(trial="0001", replicate=1, seed=101, metrics={"val_accuracy": math.nan})
    row = rank(record(trial(1), confirmed=confirmed)).rows[0]
    assert row.validation is not None
    assert (row.validation.mean, row.validation.n, row.lost) == (pytest.approx(0.95), 3, 2)


def test_a_plan_of_which_every_replicate_failed_is_not_confirmed():
    lost = [ReplicateResult(trial="0001", replicate=i, seed=i, cause="memory") for i in range(3)]
    board = rank(record(trial(1, 0.99), trial(2, 0.9), confirmed=[*lost, *replicates(2, 0.9)]))
    assert order(board) == [("1", "0002", "confirmed"), ("2", "0001", "complete")]
    assert board.rows[1].lost == 3


def fail(made: list[ReplicateResult], *numbers: int) -> list[ReplicateResult]:
    return [
        replace(r, metrics={}, val_correct="", test=None, cause="nan") if r.replicate in numbers else r for r in made
    ]


def planned(seeds: int) -> dict[str, Any]:
    return {"experiment": {"confirm": {"top": 3, "seeds": seeds}}}


def test_a_plan_of_which_most_seeds_failed_is_no_champion():
    confirmed = fail(replicates(1, 0.99), 0, 1, 2, 3) + replicates(2, 0.90)
    board = rank(record(trial(1), trial(2), confirmed=confirmed, **planned(5)))
    assert order(board) == [("1", "0002", "confirmed"), ("2", "0001", "confirmed")]
    assert [(row.lost, row.untried) for row in board.rows] == [(0, 0), (4, 0)]


def test_a_failed_seed_counts_where_the_run_does_not_say_how_many_were_planned():
    board = rank(record(trial(1), trial(2), confirmed=fail(replicates(1, 0.99), 0) + replicates(2, 0.90)))
    assert [row.trial for row in board.rows] == ["0002", "0001"]


def test_of_plans_that_lost_seeds_the_one_that_lost_fewer_leads():
    confirmed = fail(replicates(1, 0.99), 0, 1, 2, 3) + fail(replicates(2, 0.90), 4)
    assert [row.trial for row in rank(record(trial(1), trial(2), confirmed=confirmed)).rows] == ["0002", "0001"]


def test_a_confirmation_that_was_cut_short_is_judged_on_the_seeds_all_have():
    """The seeds differ in difficulty, so that a mean over all of a plan's own would favour the one that has fewer."""

    def bare(number: int, values: list[float]) -> list[ReplicateResult]:
        return [
            ReplicateResult(trial=f"{number:04}", replicate=i, seed=i, metrics={"val_accuracy": v, "val_loss": 1 - v})
            for i, v in enumerate(values)
        ]

    confirmed = bare(1, [0.98, 0.97]) + bare(2, [0.99, 0.98, 0.80])
    for metric in ("val_accuracy", "val_loss"):
        board = rank(record(trial(1), trial(2), confirmed=confirmed, metric=metric, **planned(5)))
        assert [row.trial for row in board.rows] == ["0002", "0001"]
        assert [row.untried for row in board.rows] == [2, 3]
        assert board.rows[0].validation is not None
        assert board.rows[0].validation.n == 3  # what is shown is still the mean over all there are


def test_a_plan_with_all_seeds_leads_one_that_was_cut_short_and_shares_no_rank_with_it():
    confirmed = replicates(1, 0.951, seeds=4) + replicates(2, 0.950)
    board = rank(record(trial(1), trial(2), confirmed=confirmed, **planned(5)))
    assert order(board) == [("1", "0002", "confirmed"), ("2", "0001", "confirmed")]
    assert (board.tied, board.better, board.lacking) == ((), (), ("0001",))
    assert [row.ranks for row in board.rows] == ["1-2", "1-2"]


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_a_plan_that_lacks_seeds_and_was_clearly_better_is_named(metric: str):
    confirmed = replicates(1, 0.99, seeds=4) + replicates(2, 0.80) + replicates(3, 0.50)
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed, metric=metric, **planned(5)))
    assert [row.trial for row in board.rows] == ["0002", "0003", "0001"]
    assert (board.tied, board.better) == ((), ("0001",))


def asked(seeds: int, *numbers: int) -> dict[str, Any]:
    return {"type": "planned", "trials": [f"{n:04}" for n in numbers], "seeds": seeds}


def left(number: int) -> dict[str, Any]:
    return {"type": "dropped", "trial": f"{number:04}"}


def test_more_seeds_for_some_plans_than_were_planned_first_punish_nobody():
    confirmed = [*replicates(1, 0.9, 10), *replicates(2, 0.6, 5)]
    entries = (asked(5, 1, 2), asked(10, 1))
    board = rank(record(trial(1), trial(2), confirmed=confirmed, confirmations=entries, **planned(5)))
    assert order(board) == [("1", "0001", "confirmed"), ("2", "0002", "confirmed")]
    assert [(row.untried, row.validation and row.validation.n) for row in board.rows] == [(0, 10), (0, 5)]


def test_a_later_confirmation_of_all_plans_that_was_cut_short_says_what_is_missing():
    confirmed = [*replicates(1, 0.9, 7), *replicates(2, 0.6, 6)]
    entries = (asked(5, 1, 2), asked(10, 1, 2))
    board = rank(record(trial(1), trial(2), confirmed=confirmed, confirmations=entries, **planned(5)))
    assert [row.untried for row in board.rows] == [3, 4]


def test_what_was_asked_for_last_counts_where_the_run_planned_more():
    confirmed = [*replicates(1, 0.9, 3), *replicates(2, 0.6, 3)]
    board = rank(record(trial(1), trial(2), confirmed=confirmed, confirmations=(asked(3, 1, 2),), **planned(5)))
    assert [row.untried for row in board.rows] == [0, 0]


def test_a_plan_that_left_the_race_ranks_above_one_that_lost_a_seed_and_below_those_that_went_on():
    broken = replace(replicates(4, 0.95, 1, first=104)[0], cause="nan", val_correct="", metrics={}, test=None)
    confirmed = [*replicates(1, 0.9), *replicates(2, 0.89), *replicates(3, 0.7, 3), *replicates(4, 0.95, 4), broken]
    entries = (asked(5, 1, 2, 3, 4), left(3))
    trials = [trial(n) for n in (1, 2, 3, 4)]
    board = rank(record(*trials, confirmed=confirmed, confirmations=entries, **planned(5)))
    assert [(row.trial, row.left_race, row.lost, row.untried) for row in board.rows] == [
        ("0001", False, 0, 0),
        ("0002", False, 0, 0),
        ("0003", True, 0, 0),
        ("0004", False, 1, 0),
    ]
    assert [row.validation.n for row in board.rows if row.validation] == [5, 5, 3, 4]
    assert "Out of the race before all seeds: 0003" in "\n".join(notes(board))


def test_a_plan_that_left_the_race_never_passes_those_that_beat_it_when_the_run_is_cut_short():
    confirmed = [*replicates(1, 0.9, 4), *replicates(2, 0.9, 4), *replicates(3, 0.7, 3)]
    entries = (asked(5, 1, 2, 3), left(3))
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed, confirmations=entries, **planned(5)))
    assert [(row.trial, row.untried) for row in board.rows][-1] == ("0003", 0)
    assert [row.untried for row in board.rows[:2]] == [1, 1]


def test_a_plan_that_left_a_race_and_got_its_seeds_later_is_one_like_all_others():
    confirmed = [*replicates(1, 0.9), *replicates(3, 0.95)]
    entries = (asked(5, 1, 3), left(3), asked(5, 1, 3))
    board = rank(record(trial(1), trial(3), confirmed=confirmed, confirmations=entries, **planned(5)))
    assert [(row.trial, row.left_race) for row in board.rows] == [("0003", False), ("0001", False)]


def test_another_seed_of_a_plan_is_marked():
    board = rank(record(trial(1, 0.9), trial(2, 0.8, repeats="0001")))
    assert [row.repeats for row in board.rows] == ["", "0001"]
    assert "Another seed of a plan that was tried before, confirmed once at most: 0002 (of 0001)." in notes(board)


SEVERAL = {"dataset": {"name": "mnist", "requested": "mnist", "fallback": "", "train": 50_000, "split_sha256": "ab"}}


def several(*runs: tuple[str, str]) -> Leaderboard:
    """A ranking of runs, given (path, name): each has a trial that failed, one that lost a seed and a repeat."""
    records = []
    for path, name in runs:
        trials = (trial(1, 0.95), trial(2, 0.9), trial(3, 0.8, "failed", cause="plugin", message="boom"))
        confirmed = [*replicates(1, 0.95), *fail(replicates(2, 0.9), 0)]
        again = trial(4, 0.7, repeats="0001")
        records.append(replace(record(*trials, again, confirmed=confirmed, run=name, **SEVERAL), path=path))
    return rank_together(records)


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([("runs/a", "a"), ("/else/where/b", "b")], ["a", "b"]),
        ([("runs/a", "a"), ("old/a", "a")], ["runs/a", "old/a"]),  # names alone would be the same
    ],
)
def test_every_trial_and_every_log_of_several_runs_names_its_run(runs, names):
    board = several(*runs)
    said = "\n".join(notes(board))
    assert sorted(board.runs) == sorted(names)
    assert {row.run for row in board.rows} == set(names)
    for (path, _), name in zip(runs, names, strict=True):
        assert f"  {name}:0003 (plugin): boom; log: {path}/trials/0003/log.txt" in said
        assert f"Trial {name}:0002: of its confirmation 1 seed failed" in said
        assert f"{name}:0004 (of 0001)" in said
    assert not re.findall(r"(?<!:)(?<!trials/)(?<!of )\b000\d\b", said)  # no trial without its run


def test_a_minimised_metric_turns_the_order_round():
    trials = (trial(0, 0.90), trial(1, 0.99), trial(2, 0.95))
    board = rank(record(*trials, metric="val_loss", metrics=["val_loss"]))
    assert [row.trial for row in board.rows] == ["0001", "0002", "0000"]
    confirmed = rank(
        record(*trials, confirmed=replicates(0, 0.9) + replicates(2, 0.95), metric="val_loss", metrics=["val_loss"])
    )
    assert [row.trial for row in confirmed.rows] == ["0002", "0000", "0001"]


def test_equal_values_share_a_rank_and_the_smaller_stands_first():
    board = rank(record(trial(2, 0.9), trial(1, 0.9), trial(0, 0.8)))
    assert order(board) == [("1=", "0001", "complete"), ("1=", "0002", "complete"), ("3", "0000", "complete")]


def test_a_value_that_is_not_finite_ranks_below_every_finite_one():
    board = rank(record(trial(0, math.nan), trial(1, 0.2), trial(2, math.inf)))
    assert board.rows[0].trial == "0001"
    assert [row.validation for row in board.rows[1:]] == [None, None]


def test_a_fallback_dataset_stands_on_every_row():
    dataset = {"name": "digits", "requested": "mnist", "fallback": "no network"}
    board = rank(record(trial(0), trial(1, state="failed", epochs=0, cause="nan"), dataset=dataset))
    assert {row.dataset for row in board.rows} == {"digits (fallback for mnist)"}
    assert "On digits (fallback for mnist), " in verdict(board)


def test_the_pareto_front_is_marked_for_several_metrics():
    trials = (trial(0, 0.80), trial(1, 0.95), trial(2, 0.90), trial(3, 0.99, "pruned", 1), trial(4, 0.97))
    front = rank(record(*trials, metrics=["val_accuracy", "parameters"]))
    assert {row.trial for row in front.rows if row.front} == {"0000", "0001", "0004"}
    assert not any(row.front for row in rank(record(*trials)).rows)


def test_one_trial_shows_all_its_settings():
    assert rank(record(trial(0))).rows[0].settings == "channels=16 depth=3 lr=0.003 epochs=4 batch_size=128"


def test_a_failed_trial_without_a_plan_is_still_listed():
    row = rank(record(trial(0, state="failed", epochs=0, cause="version", plan={}))).rows[0]
    assert (row.rank, row.model, row.parameters, row.budget) == ("-", "", None, 0)
