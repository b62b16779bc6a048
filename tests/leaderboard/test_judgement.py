"""What a ranking claims, checked by simulation, and what is said of luck, of bad labels and of several runs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import nct, norm, t

from mnistlab.leaderboard import Leaderboard, group, rank, rank_together
from mnistlab.leaderboard.label_errors import MNIST_TEST, SHA256, known_label_errors, without
from mnistlab.leaderboard.prose.notes import luck_notes
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.leaderboard.statistics import expected_maximum
from mnistlab.store.results import Cost, ReplicateResult, RunRecord, TestScore
from tests.leaderboard.test_ranking import IMAGES, record, replicates, trial

pytestmark = pytest.mark.simulated

DATASET: dict[str, Any] = {"name": "mnist", "requested": "mnist", "fallback": "", "split_sha256": "1a" * 32}


def drawn(rng: np.random.Generator, number: int, accuracy: float, seeds: int, sd: float) -> list[ReplicateResult]:
    """A plan's replicates: half of its errors are its own, the others by chance, with `sd` between seeds."""
    wrong = 1 - accuracy
    own = rng.random(IMAGES) < wrong / 2
    made = []
    for seed in range(seeds):
        right = ~(own | (rng.random(IMAGES) < np.clip(wrong / 2 + rng.normal(0, sd), 0, 1)))
        bits = "".join("01"[int(x)] for x in right)
        metrics = {"val_accuracy": float(right.mean())}
        made.append(ReplicateResult(trial=f"{number:04}", replicate=seed, seed=seed, metrics=metrics, val_correct=bits))
    return made


def simulated(rng: np.random.Generator, accuracies: list[float], seeds: int, sd: float) -> Leaderboard:
    confirmed = [r for number, value in enumerate(accuracies) for r in drawn(rng, number, value, seeds, sd)]
    return rank(record(*(trial(number) for number in range(len(accuracies))), confirmed=confirmed))


@pytest.mark.parametrize(
    ("plans", "seeds", "sd"),
    [(2, 3, 0.002), (5, 5, 0.002), (5, 3, 0.0), pytest.param(10, 5, 0.005, marks=pytest.mark.chaos)],
)
def test_of_equal_plans_the_leader_is_tied_with_all_others(plans: int, seeds: int, sd: float):
    """Uncorrected, the leader of ten would be told from one or more of the others in about half of the rankings."""
    rng = np.random.default_rng(53)
    boards = [simulated(rng, [0.97] * plans, seeds, sd) for _ in range(120)]
    assert np.mean([len(board.tied) == plans - 1 for board in boards]) >= 0.95
    assert np.mean([board.rows[0].rank == "1=" for board in boards]) >= 0.95


def test_a_true_gap_is_found():
    rng = np.random.default_rng(55)
    boards = [simulated(rng, [0.92, 0.97, 0.92, 0.92], 5, 0.002) for _ in range(40)]
    assert all(board.rows[0].trial == "0001" for board in boards)
    assert np.mean([board.rows[0].rank == "1" and not board.tied for board in boards]) >= 0.9


@pytest.mark.parametrize("gap", [0.012, 0.018, 0.026])
def test_a_gap_near_what_can_just_be_seen_is_found_as_often_as_five_seeds_can_tell(gap: float):
    """Between what Student's t with four degrees of freedom would find and what a known deviation would.

    A statistic that took seeds or images for more than they are would find more, one that did not pair them less.
    """
    rng, found, gaps = np.random.default_rng(57), [], []
    for _ in range(120):
        board = simulated(rng, [0.97 - gap, 0.97], 5, 0.002)
        better, worse = (next(row for row in board.rows if row.trial == name) for name in ("0001", "0000"))
        assert better.validation is not None
        assert worse.validation is not None
        gaps.append(better.validation.mean - worse.validation.mean)
        found.append(board.rows[0].trial == "0001" and not board.tied)
    size = gap / np.std(gaps, ddof=1)
    least, most = nct.sf(t.ppf(0.975, 4), 4, size), norm.sf(1.96 - size)
    assert least - 0.1 <= np.mean(found) <= most + 0.1


# --- luck ---------------------------------------------------------------------------------------------------------


def with_test(number: int, accuracy: float, seeds: int = 5, test: float | None = None) -> list[ReplicateResult]:
    """Replicates with 10,000 test images; the share `test` of them is right, the others are the last ones."""
    count = round(10_000 * (accuracy if test is None else test))
    score = TestScore(correct=count, images=10_000, loss=0.1)
    text = "1" * count + "0" * (10_000 - count)
    return [replace(r, test=score, test_correct=text) for r in replicates(number, accuracy, seeds)]


def test_the_luck_of_a_champion_is_counted():
    confirmed = with_test(1, 0.95, test=0.94) + drawn(np.random.default_rng(1), 2, 0.9, 5, 0.01)
    board = rank(record(trial(1, 0.96), trial(2), trial(3), trial(4, state="failed"), confirmed=confirmed))
    luck = board.luck
    assert luck is not None
    assert luck.tried == 3
    assert luck.spread == pytest.approx(np.std([r.metrics["val_accuracy"] for r in confirmed[5:]], ddof=1) / 2**0.5)
    assert luck.curse == pytest.approx(expected_maximum(3) * luck.spread)
    assert luck.drop == pytest.approx(0.01)
    assert luck.gap is not None
    assert luck.gap.mean == pytest.approx(0.01)
    notes = luck_notes(board)
    assert notes[0].startswith("Luck: the best of 3 equal plans would look ")
    assert notes[0].endswith("; the champion's score in the search was 1.00 points above its mean since.")
    assert notes[1].startswith("Validation minus test accuracy of the champion: +1.00 points (95 % interval ")
    assert notes[1].endswith("more than noise.")


def test_chances_to_be_best_stand_on_the_confirmed_rows():
    board = rank(record(trial(1), trial(2), trial(3), confirmed=with_test(1, 0.95) + with_test(2, 0.90)))
    assert [row.best for row in board.rows] == [1.0, 0.0, None]
    few = rank(record(trial(1), trial(2), confirmed=with_test(1, 0.95, seeds=1) + with_test(2, 0.90, seeds=1)))
    assert [row.best for row in few.rows] == [None, None]


@pytest.mark.parametrize("value", [0.9, 0.3, 0.0])
def test_equal_values_do_not_claim_that_there_is_no_luck(value):
    """The sums of equal floats leave a deviation of 1e-17, which is none."""
    metrics = {"val_accuracy": value}
    confirmed = [replace(one, metrics=metrics, val_correct="") for n in (1, 2) for one in replicates(n, 0.9, 3)]
    board = rank(record(trial(1), trial(2), confirmed=confirmed))
    assert board.luck is not None
    assert (board.luck.spread, board.luck.curse) == (None, None)
    assert not any(note.startswith("Luck:") for note in luck_notes(board))


def test_a_ranking_without_confirmation_says_nothing_of_luck():
    board = rank(record(trial(1), trial(2)))
    assert board.luck is not None
    assert (board.luck.curse, board.luck.gap, board.luck.drop) == (None, None, None)
    assert luck_notes(board) == []
    assert rank(record()).luck is None


# --- labels -------------------------------------------------------------------------------------------------------


def test_the_known_label_errors_hold_for_the_very_files_of_mnist_only():
    mnist = {"name": "mnist", "sha256": {**SHA256, "other": "x"}}
    assert known_label_errors(mnist) == MNIST_TEST
    assert len(set(MNIST_TEST)) == 15
    assert known_label_errors({**mnist, "name": "kmnist"}) == ()
    assert known_label_errors({"name": "mnist", "sha256": dict.fromkeys(SHA256, "0")}) == ()
    assert known_label_errors({"name": "mnist"}) == ()


def test_the_pinned_digests_are_those_of_the_dataset():
    from mnistlab.builtin.datasets.mnist import FILES

    assert {part.name: part.sha256 for part in FILES.parts if part.name.startswith("t10k")} == SHA256


def test_images_are_left_out_by_position():
    assert without("0110", (1, 3)) == (1, 2)
    assert without("0110", ()) == (2, 4)
    with pytest.raises(ValueError, match="no image 4"):
        without("0110", (4,))


def test_the_accuracy_without_bad_labels_is_a_second_figure_beside_the_first():
    text = ["1"] * 10_000
    for position in (*MNIST_TEST[:10], 0, 1, 2):
        text[position] = "0"
    score = TestScore(correct=10_000 - 13, images=10_000, loss=0.1)
    confirmed = [replace(r, test=score, test_correct="".join(text)) for r in replicates(1, 0.95)]
    dataset = DATASET | {"sha256": dict(SHA256)}
    board = rank(record(trial(1), confirmed=confirmed, dataset=dataset))
    row = board.rows[0]
    assert row.test is not None
    assert row.test_clean is not None
    assert (row.test.images, row.test.accuracy.mean) == (10_000, pytest.approx(0.9987))
    assert (row.test_clean.images, row.test_clean.accuracy.mean) == (9_985, pytest.approx(9_982 / 9_985))
    note = next(note for note in luck_notes(board) if note.startswith("clean %"))
    assert "without the 15 test images" in note
    assert "is then 99.97 % (95 % interval 99.91-99.99 % for 9,985 images)" in note
    assert "mean test accuracy 99.87 %" in verdict(board)
    assert rank(record(trial(1), confirmed=confirmed, dataset=DATASET)).rows[0].test_clean is None


# --- several runs -------------------------------------------------------------------------------------------------


def run(path: str, *trials, confirmed: list[ReplicateResult] | None = None, **dataset: Any) -> RunRecord:
    made = record(*trials, confirmed=confirmed, dataset=DATASET | dataset)
    return replace(made, path=f"runs/{path}", run={**made.run, "run": path})


def test_only_runs_of_one_dataset_split_and_metric_are_ranked_together():
    same = [run("a", trial(1)), run("b", trial(1))]
    others = [
        run("c", trial(1), split_sha256="2b"),
        run("d", trial(1), name="kmnist"),
        run("e", trial(1), sha256={"t10k": "0"}),
        replace(same[0], path="runs/f", run={**same[0].run, "metric": "val_loss"}),
        run("g", trial(1), split_sha256=""),
        run("h", trial(1), split_sha256=""),
    ]
    groups = group([*same, *others])
    assert [len(together) for together in groups] == [2, 1, 1, 1, 1, 1, 1]
    assert [r.path for r in groups[0]] == ["runs/a", "runs/b"]


def test_runs_are_ranked_together_and_their_trials_named_with_the_run():
    first = run("a", trial(1), trial(2, 0.8), confirmed=replicates(1, 0.95))
    second = run("b", trial(1), trial(3, 0.7, "pruned", 1), confirmed=replicates(1, 0.951))
    board = rank_together([first, second])
    assert [(row.rank, row.run, row.trial) for row in board.rows] == [
        ("1=", "b", "0001"),
        ("1=", "a", "0001"),
        ("3", "a", "0002"),
        ("4", "b", "0003"),
    ]
    assert (board.run, board.runs, board.tied, board.test_openings) == ("2 runs", ("a", "b"), ("a:0001",), 2)
    text = verdict(board)
    assert "trial b:0001 (cnn" in text
    assert "it is tied with trial a:0001" in text
    assert text.endswith("the test set was opened 2 times, once by each run.")
    assert verdict(replace(board, openings=(2, 0))).endswith("so its numbers are no longer untouched by choice.")
    assert verdict(replace(board, openings=(1, 1, 0))).endswith("opened 2 times, once by 2 of 3 runs.")


def test_the_order_of_runs_trials_and_replicates_changes_nothing():
    shuffled = random.Random(7)
    parts = [
        run("a", *(trial(n, 0.9 + n / 100) for n in range(5)), confirmed=replicates(1, 0.95) + replicates(2, 0.94)),
        run("b", *(trial(n, 0.9) for n in range(5)), confirmed=replicates(3, 0.95) + replicates(4, 0.8, seeds=3)),
    ]
    expected = rank_together(parts)
    for _ in range(5):
        mixed = [
            replace(
                part,
                trials=tuple(shuffled.sample(part.trials, len(part.trials))),
                replicates=tuple(shuffled.sample(part.replicates, len(part.replicates))),
            )
            for part in shuffled.sample(parts, len(parts))
        ]
        assert rank_together(mixed) == expected


def test_what_a_prediction_costs_is_that_of_the_seed_in_the_middle():
    costs = [Cost(macs=10, latency_1=s, latency_256=9 * s, device="CPU") for s in (0.3, 0.1, 0.2)]
    confirmed = [replace(r, cost=c) for r, c in zip(replicates(1, 0.9, seeds=3), costs, strict=True)]
    board = rank(record(trial(1), trial(2), confirmed=confirmed))
    assert [row.cost for row in board.rows] == [costs[2], None]
    assert "on CPU." in luck_notes(board)[-1]


def test_the_front_of_a_single_metric_is_of_metric_and_size():
    board = rank(record(trial(0, 0.80), trial(1, 0.95), trial(2, 0.90), trial(3, 0.99, "pruned", 1)))
    assert [row.trial for row in board.front()] == ["0001", "0000"]
    assert not any(row.front for row in board.rows)
