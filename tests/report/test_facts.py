from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mnistlab.leaderboard import rank
from mnistlab.leaderboard.statistics import MeanSd
from mnistlab.report import facts, page_columns
from mnistlab.store.results import RungResult, TrialResult
from mnistlab.tuning.importance import importances
from tests.report.runs import record, stream, trial


def test_an_accuracy_is_drawn_as_an_error_that_is_never_zero() -> None:
    measure = facts.measure("val_accuracy", 500)
    assert measure.of(0.98) == pytest.approx(2.0)
    assert measure.of(1.0) == pytest.approx(0.1)
    assert measure.log
    assert facts.measure("val_loss").of(0.25) == 0.25
    assert not facts.measure("images_per_second").log


def test_trials_stand_in_the_order_in_which_they_ended_and_the_best_one_never_falls() -> None:
    of = record()
    ended = facts.endings(of, stream(of), "val_accuracy")
    assert [one.trial for one in ended] == [f"{number:04}" for number in reversed(range(24))]
    assert [one.order for one in ended] == list(range(1, 25))
    best = [one.best for one in ended if one.best is not None]
    assert best == sorted(best)
    assert best[-1] == max(one.value or 0.0 for one in ended if one.state == "complete")
    assert ended[0].minutes == pytest.approx(1 / 6)


def test_without_events_trials_stand_by_their_number() -> None:
    ended = facts.endings(record(), (), "val_accuracy")
    assert [one.trial for one in ended] == [f"{number:04}" for number in range(24)]
    assert {one.minutes for one in ended} == {None}


def test_failed_and_pruned_trials_never_are_the_best() -> None:
    of = record(trials=(trial(0, 0.5), trial(2, 0.9, "pruned"), trial(5, 0.99, "failed")))
    assert [one.best for one in facts.endings(of, (), "val_accuracy")] == [pytest.approx(0.5)] * 3


def test_the_last_word_on_each_rung_counts() -> None:
    assert [(one.epoch, one.reached, one.kept) for one in facts.rungs(stream(record()))] == [(1, 24, 8), (3, 8, 4)]


def test_the_early_order_that_is_the_late_one_has_correlation_one() -> None:
    told = facts.forecast(record(trials=tuple(trial(n, 0.9 + 0.01 * n) for n in range(5))), "val_accuracy")
    assert told.rho == pytest.approx(1.0)
    assert [(early, late) for _, early, late in told.pairs] == [(n, n) for n in (5, 4, 3, 2, 1)]


def test_the_early_order_turned_round_has_correlation_minus_one() -> None:
    trials = [trial(n, 0.9) for n in range(4)]
    curves = [({"val_accuracy": 0.1 * n}, {"val_accuracy": 1 - 0.1 * n}) for n in range(4)]
    turned = tuple(
        type(one)(**{**vars(one), "history": curve, "metrics": curve[-1]})
        for one, curve in zip(trials, curves, strict=True)
    )
    assert facts.forecast(record(trials=turned), "val_accuracy").rho == pytest.approx(-1.0)


def test_the_first_rung_is_the_early_order_where_trials_are_trained_anew_at_each() -> None:
    def waited(number: int, early: float, late: float) -> TrialResult:
        rung = RungResult(rung=0, budget=0.5, metrics={"val_accuracy": early}, seconds=1.0)
        return replace(trial(number, late), rungs=(rung,))

    trials = tuple(waited(number, 0.9 - 0.1 * number, 0.5 + 0.1 * number) for number in range(4))
    told = facts.forecast(record(trials=trials), "val_accuracy")
    assert told.rho == pytest.approx(-1.0)
    assert told.early == "at the first rung"
    assert facts.forecast(record(), "val_accuracy").early == "after epoch 1"


def test_too_few_or_equal_trials_predict_nothing() -> None:
    assert facts.forecast(record(trials=(trial(0, 0.9), trial(1, 0.8))), "val_accuracy").rho is None
    assert facts.forecast(record(trials=tuple(trial(n, 0.9) for n in range(5))), "val_accuracy").rho is None


def test_trials_are_compared_at_the_last_epoch_that_half_of_them_reached() -> None:
    full, short = [trial(n, 0.9) for n in range(10)], [trial(2 * n, 0.9, "pruned") for n in range(6, 9)]
    compared = facts.comparison(record(trials=(*full, *short)), "val_accuracy")
    assert (compared.epoch, len(compared.values)) == (4, 10)
    compared = facts.comparison(record(trials=(*full[:2], *short)), "val_accuracy")
    assert (compared.epoch, len(compared.values)) == (1, 5)
    assert facts.comparison(record(trials=()), "val_accuracy").values == {}


def test_only_settings_that_vary_are_compared_and_only_among_trials_that_have_them() -> None:
    of = record()
    points = facts.points(of)
    assert "model.cnn.width" in points["0001"]
    assert "model.cnn.width" not in points["0000"]
    assert "training.epochs" not in points["0000"]
    keys, shared = facts.shared_points(points, list(points))
    assert keys == ["model", "optimizer.adamw.lr", "training.batch_size"]
    assert len(shared) == 24


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    assert facts.pareto([(1, 5), (2, 3), (3, 4), (4, 1), (2, 3)]) == [True, True, False, True, True]


def test_importance_finds_the_setting_that_matters_and_says_how_sure_it_is() -> None:
    points = [{"lr": 10.0 ** -(1 + i % 5), "kind": "ab"[i % 2], "width": i * 7 % 11} for i in range(40)]
    found = importances(points, [math.log10(float(point["lr"])) for point in points])
    assert found[0].setting == "lr"
    assert found[0].mean > 0.9
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found)
    assert found == importances(points, [math.log10(float(point["lr"])) for point in points])


def test_importance_of_equal_values_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more different values"):
        importances([{"a": 1}, {"a": 2}], [0.5, 0.5])


def test_a_score_tells_spread_and_seeds_where_there_are_some() -> None:
    assert page_columns.score("val_accuracy", MeanSd(0.98441, 0.0019, 3)) == "98.44 ± 0.19 % (3)"
    assert page_columns.score("val_accuracy", MeanSd(0.98441, None, 1)) == "98.44 %"
    assert page_columns.score("val_loss", MeanSd(0.25, 0.5, 2)) == "0.25 ± 0.5 (2)"
    assert page_columns.score("val_accuracy", None) == ""


def test_only_columns_with_something_in_them_are_shown() -> None:
    titles = [column.title for column in page_columns.shown(rank(record()))]
    assert "Test accuracy" in titles
    assert "Seeds lost" not in titles
    assert "Test accuracy" not in [column.title for column in page_columns.shown(rank(record(replicates=())))]
