"""The race of a confirmation: who falls out, when, and how seldom it is the best one."""

from __future__ import annotations

import numpy as np
import pytest

from mnistlab.leaderboard.racing import ALPHA, LEAST, RISK, beaten, confidence_of, difference, races_before
from mnistlab.store.results import ReplicateResult

pytestmark = pytest.mark.simulated

IMAGES = 2000


def trained(name: str, errors: list[float], seed: int = 0, first: int = 1) -> list[ReplicateResult]:
    """One replicate for each of `errors`, the share of images that it gets wrong."""
    rng = np.random.default_rng([seed, *name.encode()])
    made: list[ReplicateResult] = []
    for number, share in enumerate(errors, first):
        right = rng.random(IMAGES) >= share
        metrics = {"val_accuracy": float(right.mean()), "val_loss": 1 - float(right.mean())}
        bits = "".join("01"[int(x)] for x in right)
        made.append(ReplicateResult(trial=name, replicate=number, seed=100 + number, metrics=metrics, val_correct=bits))
    return made


def test_a_plan_that_is_clearly_worse_falls_out_and_one_within_noise_stays() -> None:
    alive = {name: trained(name, [share] * 4) for name, share in (("a", 0.02), ("b", 0.021), ("c", 0.2))}
    (out,) = beaten(alive, "val_accuracy", confidence_of(3, 5))
    assert (out.trial, out.seeds) == ("c", 4)
    assert out.leader in {"a", "b"}
    assert out.difference.mean == pytest.approx(0.18, abs=0.02)


def test_a_loss_is_better_where_it_is_lower() -> None:
    alive = {
        name: trained(name, [share, share * 1.05, share, share * 0.95]) for name, share in (("a", 0.02), ("c", 0.4))
    }
    assert [(one.trial, one.leader) for one in beaten(alive, "val_loss", 0.95)] == [("c", "a")]
    assert beaten(alive, "val_loss", 0.95)[0].difference.mean < 0


def test_nobody_falls_out_before_the_third_seed_nor_for_seeds_that_are_missing() -> None:
    early = {name: trained(name, [share] * (LEAST - 1)) for name, share in (("a", 0.02), ("c", 0.4))}
    assert beaten(early, "val_accuracy", 0.95) == []
    one_short = {"a": trained("a", [0.02] * 4), "b": trained("b", [0.02] * 4), "c": trained("c", [0.4] * 2)}
    assert beaten(one_short, "val_accuracy", 0.95) == []
    apart = {"a": trained("a", [0.02] * 4), "c": trained("c", [0.4] * 4, first=4)}
    assert beaten(apart, "val_accuracy", 0.95) == []
    assert beaten({"a": trained("a", [0.02] * 4), "b": []}, "val_accuracy", 0.95) == []


def test_only_the_seeds_that_both_have_are_compared() -> None:
    ours, theirs = trained("a", [0.02] * 5), trained("a", [0.02] * 3)
    assert difference(ours, theirs, "val_accuracy").mean == 0


@pytest.mark.parametrize("runs", [50, pytest.param(200, marks=pytest.mark.chaos)])
def test_the_best_of_equal_plans_seldom_falls_out_over_all_looks(runs: int) -> None:
    """Five plans, ten seeds, one of them a little better than its equals: it must survive all seven looks."""
    plans, seeds, lost = 5, 10, 0
    confidence = confidence_of(plans, seeds)
    for run in range(runs):
        rng = np.random.default_rng(run)
        names = [f"{n}" for n in range(plans)]
        shares = {name: np.clip(rng.normal(0.02 - 0.0005 * (name == "0"), 0.002, seeds), 0.001, 1) for name in names}
        all_seeds = {name: trained(name, list(shares[name]), seed=run) for name in names}
        alive = set(names)
        for last in range(LEAST, seeds):
            alive -= {one.trial for one in beaten({n: all_seeds[n][:last] for n in alive}, "val_accuracy", confidence)}
        lost += "0" not in alive
    assert lost <= RISK * runs


def test_the_more_looks_and_rivals_the_surer_a_single_one_must_be() -> None:
    assert confidence_of(2, 4) == pytest.approx(1 - 0.8 * RISK)
    assert confidence_of(3, 5) == pytest.approx(1 - 0.8 * RISK / (3 * 2))
    assert confidence_of(5, 10) > confidence_of(3, 10) > confidence_of(3, 5)
    assert confidence_of(1, 1) == pytest.approx(1 - 0.8 * RISK)


def test_all_races_of_a_run_together_are_as_seldom_wrong_as_is_said() -> None:
    """Every pair at every look, of any number of races."""
    plans, seeds = 4, 7
    spent = [6 * (seeds - LEAST) * (1 - confidence_of(plans, seeds, n)) for n in range(50)]
    assert sum(spent) == pytest.approx(RISK)
    assert spent[0] == pytest.approx(0.8 * RISK)
    assert RISK < ALPHA


@pytest.mark.parametrize("runs", [50, pytest.param(150, marks=pytest.mark.chaos)])
def test_the_best_of_equal_plans_survives_confirmation_after_confirmation(runs: int) -> None:
    """Three races over more and more seeds, each of all plans anew: what fell out before may come back, and may win."""
    plans, lost = 4, 0
    for run in range(runs):
        rng = np.random.default_rng(run)
        names = [f"{n}" for n in range(plans)]
        shares = {name: np.clip(rng.normal(0.02 - 0.0005 * (name == "0"), 0.002, 12), 0.001, 1) for name in names}
        every = {name: trained(name, list(shares[name]), seed=run) for name in names}
        fell = False
        for earlier, seeds in enumerate((6, 9, 12)):
            alive = set(names)
            for last in range(LEAST, seeds):
                shown = {name: every[name][:last] for name in alive}
                alive -= {one.trial for one in beaten(shown, "val_accuracy", confidence_of(plans, seeds, earlier))}
            fell = fell or "0" not in alive
        lost += fell
    assert lost <= RISK * runs


# --- which race this is -------------------------------------------------------------------------------------------


def planned(trials: str, seeds: int) -> dict[str, object]:
    return {"type": "planned", "trials": list(trials), "seeds": seeds}


def test_a_race_that_is_gone_on_with_is_the_same_race_whatever_came_in_between() -> None:
    first, dropped = planned("abc", 10), {"type": "dropped", "trial": "c"}
    assert races_before([], "abc", 10) == 0
    assert races_before([first, dropped, first, first], "abc", 10) == 0
    assert races_before([first, planned("ab", 5), first], "cba", 10) == 0
    assert races_before([first, first, dropped], "abc", 12) == 1
    assert races_before([first, first, planned("abd", 10)], "abd", 10) == 1
    assert races_before([first, planned("abd", 10)], "abde", 10) == 2
