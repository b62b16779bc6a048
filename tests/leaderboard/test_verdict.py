"""What a ranking comes to, in one sentence that claims no more than the numbers carry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mnistlab.leaderboard import rank
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.store.results import ReplicateResult, TrialResult
from tests.leaderboard.test_ranking import fail, planned, record, replicates, trial


def spread_out(number: int, accuracy: float) -> list[ReplicateResult]:
    """Replicates of which each second seed of a plan goes a little better, of the other plan a little worse."""
    made = [
        replicates(number, accuracy + 0.004 * (-1) ** seed * (1 if number == 1 else -0.5), seed + 1)[seed]
        for seed in range(5)
    ]
    test = replicates(number, accuracy)
    return [replace(one, test=other.test) for one, other in zip(made, test, strict=True)]


def test_verdict_of_a_tied_champion():
    confirmed = spread_out(1, 0.951) + spread_out(2, 0.950)
    assert verdict(rank(record(trial(1), trial(2), confirmed=confirmed))) == (
        "On mnist, trial 0001 (cnn · adamw channels=17) leads with mean test accuracy 95.12 % over 5 fresh seeds "
        "(95 % interval 94.68-95.53 % for 10,000 images); on validation it is tied with trial 0002 (5 seeds could "
        "show a difference of about 1.3 points); the test set was opened once."
    )


def test_verdict_of_a_clear_champion_and_of_an_often_opened_test_set():
    confirmed = replicates(1, 0.95) + replicates(2, 0.80)
    text = verdict(rank(record(trial(1), trial(2), confirmed=confirmed, openings=3)))
    assert "on validation it is ahead of the other confirmed plan by more than noise" in text
    assert text.endswith("the test set was opened 3 times, so its numbers are no longer untouched by choice.")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("val_loss", "; on validation it is tied with trial"),
        ("train_loss", "; by train_loss (other seeds, the same images) it is tied with trial"),
        ("parameters", "; by parameters it is tied with trial"),
    ],
)
def test_verdict_by_what_is_not_measured_on_validation_images_says_by_what(metric: str, said: str):
    confirmed = [
        replace(one, metrics=one.metrics | {"train_loss": 0.1, "parameters": 900.0})
        for one in replicates(1, 0.95) + replicates(2, 0.95)
    ]
    assert said in verdict(rank(record(trial(1), trial(2), confirmed=confirmed, metric=metric)))


def test_verdict_names_a_better_plan_that_lacks_seeds():
    confirmed = replicates(1, 0.99, seeds=4) + replicates(2, 0.80)
    text = verdict(rank(record(trial(1), trial(2), confirmed=confirmed, **planned(5))))
    assert "on validation trial 0001 did better on the seeds they share, but lacks seeds" in text
    assert "by more than noise" not in text


def test_verdict_of_a_champion_that_lacks_seeds_says_so():
    confirmed = fail(replicates(1, 0.95), 0)
    assert "over 4 of 5 fresh seeds" in verdict(rank(record(trial(1), confirmed=confirmed, **planned(5))))


def test_verdict_before_the_test_set_is_opened():
    confirmed = [ReplicateResult(trial="0001", replicate=0, seed=1, metrics={"val_accuracy": 0.95})]
    assert verdict(rank(record(trial(1), confirmed=confirmed, openings=0))) == (
        "On mnist, trial 0001 (cnn · adamw channels=17 depth=3 lr=0.003 epochs=4 batch_size=128) leads with mean "
        "val_accuracy 95.00 % over 1 fresh seed; no other plan was confirmed; the test set has not been opened."
    )


def test_verdict_without_confirmation_warns_of_luck():
    assert verdict(rank(record(trial(0, 0.98), trial(1, 0.97)))) == (
        "On mnist, trial 0000 (cnn · adamw channels=16) is ahead with val_accuracy 98.00 %: one training that no "
        "fresh seed has confirmed, so part of it may be luck; the test set has not been opened."
    )


@pytest.mark.parametrize(("values", "words"), [((0.98, 0.98), "1 other"), ((0.98, 0.98, 0.98), "2 others")])
def test_verdict_of_an_unconfirmed_trial_that_shares_its_rank_does_not_call_it_ahead(
    values: tuple[float, ...], words: str
):
    text = verdict(rank(record(*(trial(i, value) for i, value in enumerate((*values, 0.97))))))
    assert text.startswith(
        f"On mnist, trial 0000 (cnn · adamw channels=16) shares the first rank with {words}, each with val_accuracy "
        "98.00 %: one training that no fresh seed has confirmed"
    )


@pytest.mark.parametrize(
    ("trials", "text"),
    [
        ((), "No trial has ended yet: there is no champion."),
        (
            (trial(0, state="failed", epochs=0, cause="nan"), trial(1, state="failed", epochs=0, cause="plugin")),
            "No trial succeeded: 2 failed (nan 1, plugin 1); there is no champion.",
        ),
        (
            (trial(0, state="pruned", epochs=1), trial(1, state="failed", epochs=0, cause="nan")),
            "No trial has used its full budget: 1 pruned and 1 failed (nan 1); there is no champion.",
        ),
        (
            (trial(0, state="interrupted", epochs=1), trial(1, state="pruned", epochs=1)),
            "No trial has used its full budget: 1 pruned and 1 interrupted; there is no champion.",
        ),
    ],
)
def test_verdict_where_nothing_succeeded(trials: tuple[TrialResult, ...], text: str):
    board = rank(record(*trials))
    assert board.champion is None
    assert verdict(board) == text
