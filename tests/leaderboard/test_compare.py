from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mnistlab.leaderboard.compare import NotComparableError, compare
from mnistlab.store.results import ReplicateResult, RunRecord
from tests.leaderboard.test_judgement import DATASET, with_test
from tests.leaderboard.test_ranking import record, replicates, trial


def run(path: str, confirmed: list[ReplicateResult], metric: str = "val_accuracy", **dataset: Any) -> RunRecord:
    made = record(trial(1), trial(2), trial(3), confirmed=confirmed, dataset=DATASET | dataset, metric=metric)
    return replace(made, path=f"runs/{path}", run={**made.run, "run": path})


def test_champions_are_compared_over_the_seeds_and_images_that_both_have():
    first = run("a", with_test(1, 0.99) + with_test(2, 0.80))
    second = run("b", [r for r in with_test(3, 0.95) if r.replicate < 4])
    found = compare(first, second)
    assert (found.a, found.b, found.dataset, found.metric) == ("a:0001", "b:0003", "mnist", "val_accuracy")
    assert found.seeds == (100, 101, 102, 103)
    assert found.difference.mean == pytest.approx(0.04)
    assert [part.part for part in found.parts] == ["validation", "test"]
    validation, test = found.parts
    assert (validation.images, test.images) == (1_000, 10_000)
    assert validation.difference == found.difference
    assert validation.bootstrap.interval.low < 0.04 < validation.bootstrap.interval.high
    assert test.difference.mean == pytest.approx(0.04)
    for one, seed in zip(validation.by_seed, found.seeds, strict=True):
        assert one.seed == seed
        assert one.test.only_a - one.test.only_b == 40
        assert one.test.p <= one.corrected <= min(1.0, 4 * one.test.p)
    assert found.sentence().startswith(
        "a:0001 is better than b:0003 by more than noise: +4.00 points in val_accuracy ("
    )
    turned = compare(second, first)
    assert turned.sentence().startswith("a:0001 is better than b:0003 by more than noise: -4.00 points in val_accuracy")
    assert turned.difference.mean == pytest.approx(-0.04)


def test_two_trials_of_one_run_that_can_not_be_told_apart():
    both = run("a", replicates(1, 0.951) + replicates(2, 0.950), split_sha256="")
    found = compare(both, both, "0002", "0001")
    assert found.sentence().startswith(
        "a:0002 is tied with a:0001: -0.10 points in val_accuracy (95 % interval -1.07 to +0.87 points, over 5 shared "
        "seeds); "
    )
    assert [part.part for part in found.parts] == ["validation"]


def test_a_metric_that_is_minimised_turns_the_winner_round():
    found = compare(run("a", replicates(1, 0.99), metric="val_loss"), run("b", replicates(2, 0.90), metric="val_loss"))
    assert found.difference.mean == pytest.approx(-0.09)
    assert found.sentence().startswith("a:0001 is better than b:0002 by more than noise: -0.09 in val_loss")


def test_one_shared_seed_says_nothing_of_others():
    found = compare(run("a", replicates(1, 0.99)), run("b", replicates(2, 0.90, seeds=1)))
    assert found.sentence() == (
        "a:0001 differs from b:0002 by +9.00 points in val_accuracy over 1 shared seed: "
        "one seed says nothing of others."
    )
    assert not np.isfinite(found.difference.interval.low)


GOOD = run("a", replicates(1, 0.95) + replicates(2, 0.9))


@pytest.mark.parametrize(
    ("other", "trial_b", "why"),
    [
        (
            run("b", replicates(1, 0.9), name="kmnist"),
            "",
            "a and b can't be compared: one is on mnist, the other on kmnist",
        ),
        (run("b", replicates(1, 0.9), sha256={"x": "1"}), "", "both are on mnist, but not on the same files"),
        (run("b", replicates(1, 0.9), split_sha256="2b"), "", "their validation images are not the same"),
        (run("b", replicates(1, 0.9), metric="val_loss"), "", "one ranks by val_accuracy, the other by val_loss"),
        (run("b", replicates(1, 0.9, first=900, seeds=2)), "", r"share no seed \(100, .* and 104 and 900 and 901\)"),
        (run("b", []), "", "b has no confirmed trial"),
        (GOOD, "0003", "trial 0003 of a was not confirmed on fresh seeds; these were: 0001 and 0002"),
        (GOOD, "0009", "a has no trial '0009'; known: 0001, 0002, 0003"),
        (GOOD, "", "a:0001 can't be compared with itself"),
    ],
)
def test_what_can_not_be_compared_is_refused_in_words(other: RunRecord, trial_b: str, why: str):
    with pytest.raises(NotComparableError, match=why) as refused:
        compare(GOOD, other, "", trial_b)
    assert refused.value.exit_code == 2
