"""What searching gained over the defaults: what is said, that it agrees with the ranks, and that it claims no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mnistlab.console.ranking import notes, ranking_text
from mnistlab.leaderboard import Gain, Leaderboard, rank, rank_together
from mnistlab.leaderboard.compare import compare
from mnistlab.leaderboard.gain import gain_text
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.leaderboard.statistics import Difference, Interval
from mnistlab.report.tables import section
from mnistlab.report.tables.columns import about, table_of
from mnistlab.store.results import ReplicateResult, RunRecord
from tests.leaderboard.test_ranking import fail, plan, record, replicates, trial


def paid(*trials: Any, baseline: str = "0001", seeds: int = 5, plan: Any = None, **about: Any) -> RunRecord:
    """A run in which `baseline` was confirmed as the plan of all defaults."""
    said = {"trial": baseline, "added": True, **({"plan": plan} if plan else {})}
    names = [*(one.trial for one in trials), *([baseline] if plan else [])]
    entry = {"type": "planned", "trials": names, "seeds": seeds, "baseline": said}
    return record(*trials, confirmations=(entry,), **about)


def gain_of(one: RunRecord) -> Gain:
    board = rank(one)
    assert board.gain
    return board.gain


def said(one: RunRecord) -> str:
    board = rank(one)
    assert board.gain
    assert verdict(board).startswith(gain_text(board.metric, board.gain) + " On mnist, trial ")
    return gain_text(board.metric, board.gain)


def scattered(number: int, accuracy: float, spread: float = 0.004, seeds: int = 5) -> list[ReplicateResult]:
    """Seeds of a plan that lie around its accuracy, up and down in turn."""
    turns = [spread * (-1) ** (i * number) for i in range(seeds)]
    return [replicates(number, accuracy + turns[i], i + 1)[i] for i in range(seeds)]


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_gain_is_told_first_with_its_interval() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(1, 0.80) + replicates(2, 0.95))
    gain = gain_of(one)
    assert (gain.kind, gain.trial, gain.seeds) == ("gained", "0001", 5)
    assert gain.difference
    assert gain.difference.interval.low > 0
    low, high = (f"{100 * end:.2f}" for end in (gain.difference.interval.low, gain.difference.interval.high))
    assert said(one) == f"Searching gained 15.00 points over the defaults (95 % interval {low} to {high})."


def test_a_gain_in_a_loss_is_by_how_much_it_is_lower() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(1, 0.80) + replicates(2, 0.95), metric="val_loss")
    assert said(one).startswith("Searching gained 0.15 in val_loss over the defaults (95 % interval 0.")
    difference = gain_of(one).difference
    assert difference
    assert 0 < difference.interval.low < difference.mean < difference.interval.high


def test_a_gain_that_other_images_might_change_says_so() -> None:
    bare = [replace(r, val_correct="", per_image=None) for r in scattered(1, 0.80) + scattered(2, 0.95)]
    assert said(paid(trial(1), trial(2), confirmed=bare)).endswith(", of other seeds on the same images).")


def test_where_nothing_is_told_apart_it_is_said_what_would_have_been_seen() -> None:
    one = paid(trial(1), trial(2), confirmed=scattered(1, 0.950) + scattered(2, 0.951))
    gain = gain_of(one)
    assert gain.kind == "tied"
    assert gain.detectable
    assert gain.detectable > 0.004
    size = f"{float(f'{100 * gain.detectable:.2g}'):g}"
    assert said(one) == (
        "Searching gained nothing that 5 seeds could show; "
        f"a gain above {size} points would have been seen (80 % power)."
    )


@pytest.mark.parametrize(
    ("seeds", "start"),
    [
        (
            1,
            "1 shared seed can't tell what searching gained over the defaults: there the champion was 15.00 points ahe",
        ),
        (2, "Searching gained nothing that 2 seeds could show; 2 are too few to say how large a gain would have been"),
    ],
)
def test_few_seeds_say_only_what_they_can(seeds: int, start: str) -> None:
    far = 0.80 if seeds == 1 else 0.945
    one = paid(
        trial(1), trial(2), confirmed=scattered(1, far, 0.0, seeds) + scattered(2, 0.95, 0.0, seeds), seeds=seeds
    )
    assert said(one).startswith(start)


def test_defaults_that_win_are_named_as_the_winner() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(1, 0.95) + replicates(2, 0.80))
    assert (gain_of(one).kind, said(one)) == ("defaults", "The defaults themselves won: searching gained nothing.")


def test_defaults_of_which_every_seed_failed_have_no_number() -> None:
    broken = fail(replicates(1, 0.80), 0, 1, 2, 3, 4)
    one = paid(trial(1), trial(2), confirmed=broken + replicates(2, 0.95))
    assert said(one) == "The defaults came to nothing with each of 5 fresh seeds: what searching gained has no number."


def test_defaults_that_did_better_but_lack_a_seed() -> None:
    one = paid(trial(1), trial(2), confirmed=fail(replicates(1, 0.95), 4) + replicates(2, 0.80))
    assert gain_of(one).kind == "behind"
    assert said(one).startswith("Searching gained nothing: the defaults did better on the seeds they share")


def test_what_a_plan_fixes_is_gained_or_not_without_any_doubt() -> None:
    def sized(number: int, size: float) -> list[ReplicateResult]:
        return [replace(one, metrics={**one.metrics, "parameters": size}) for one in replicates(number, 0.9)]

    small = paid(trial(1), trial(2), confirmed=sized(1, 5_000.0) + sized(2, 1_000.0), metric="parameters")
    assert said(small) == "Searching gained 4,000 in parameters over the defaults, whatever the seed."
    same = paid(
        trial(1), trial(2), confirmed=sized(1, 1_000.0) + sized(2, 1_000.0), metric="parameters", baseline="0002"
    )
    assert said(same) == "Searching gained nothing in parameters: the champion has what the defaults have."


def test_a_claim_by_way_of_another_plan_shows_no_interval_that_holds_0() -> None:
    gain = Gain("gained", "0001", 5, Difference(0.002, Interval(-0.001, 0.005), 0.04, 1_000))
    assert gain_text("val_accuracy", gain) == (
        "Searching gained 0.20 points over the defaults, which the other plans tell."
    )


@pytest.mark.parametrize("confirmations", [(), ({"type": "planned", "trials": ["0001", "0002"], "seeds": 5},)])
def test_runs_without_a_baseline_say_nothing_of_it(confirmations: Any) -> None:
    confirmed = replicates(1, 0.80) + replicates(2, 0.95)
    board = rank(record(trial(1), trial(2), confirmed=confirmed, confirmations=confirmations))
    assert board.gain is None
    assert verdict(board).startswith("On mnist, trial 0002")
    assert "defaults" not in ranking_text(board, 200)


def test_defaults_of_which_no_seed_has_ended_yet_say_nothing() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(2, 0.95), baseline="0001")
    assert rank(one).gain is None
    bare = paid(trial(2), confirmed=replicates(2, 0.95), baseline="baseline", plan=plan(99))
    assert (rank(bare).gain, [row.trial for row in rank(bare).rows]) == (None, ["0002"])


# --- that it agrees with all else ---------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, plans: int, seeds: int) -> list[ReplicateResult]:
    shares = 0.95 + 0.003 * (rng.standard_normal((plans, 1)) + rng.standard_normal((plans, seeds)))
    table = np.clip(shares, 0, 1).tolist()
    return [replicates(n + 1, share, i + 1)[i] for n, mine in enumerate(table) for i, share in enumerate(mine)]


@pytest.mark.parametrize("seed", range(12))
def test_the_sentence_and_the_ranks_never_contradict_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plans = int(rng.integers(2, 5))
    one = paid(*(trial(n) for n in range(1, plans + 1)), confirmed=drawn(rng, plans, int(rng.integers(2, 7))))
    board = rank(one)
    assert board.gain
    assert board.champion
    rows = {row.trial: row for row in board.rows}
    shares = rows["0001"].rank == board.champion.rank
    if board.gain.kind == "defaults":
        assert board.champion.baseline
    elif board.gain.kind == "gained":
        assert not shares
    else:
        assert board.gain.kind == "tied"
        assert board.gain.difference
        assert board.gain.difference.tied


def test_several_runs_together_tell_of_the_champions_own_search() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(1, 0.80) + replicates(2, 0.85))
    other = replace(paid(trial(1), trial(3), confirmed=replicates(1, 0.90) + replicates(3, 0.97)), path="runs/other")
    gain = rank_together([one, other]).gain
    assert gain
    assert gain.difference
    assert gain.difference.mean == pytest.approx(0.07)


# --- where it is shown --------------------------------------------------------------------------------------------


def board_of_untried() -> Leaderboard:
    own = [replace(r, trial="baseline") for r in replicates(1, 0.80)]
    return rank(paid(trial(2), confirmed=own + replicates(2, 0.95), baseline="baseline", plan=plan(99)))


def test_defaults_that_no_trial_had_are_a_row_like_any_other() -> None:
    board = board_of_untried()
    (row,) = [row for row in board.rows if row.baseline]
    assert (row.trial, row.state, row.rank, row.values["model.cnn.channels"]) == ("baseline", "confirmed", "2", 99)
    assert board.gain
    assert board.gain.kind == "gained"


def test_the_row_is_marked_on_the_screen_and_in_every_table() -> None:
    board = rank(paid(trial(1), trial(2), confirmed=replicates(1, 0.80) + replicates(2, 0.95)))
    text = ranking_text(board, 200)
    assert [line for line in text.splitlines() if " 0001 " in line and "confirmed (defaults)" in line]
    assert any(note.startswith("(defaults): ") for note in notes(board))
    table = table_of([section(board)])
    column = [row[table.names.index("baseline")] for row in table.rows]
    assert column == [False, True]
    gain = about(board)["gain"]
    assert (gain["kind"], gain["trial"], gain["seeds"]) == ("gained", "0001", 5)
    assert gain["sentence"] == verdict(board).split(" On mnist")[0]
    assert gain["difference"]["low"] > 0


def test_a_plan_whose_trial_ended_early_is_shown_by_its_fresh_seeds() -> None:
    history = tuple({"val_accuracy": 0.8} for _ in range(4))
    ones = [replace(r, history=history, metrics={**r.metrics, "parameters": 77.0}) for r in replicates(1, 0.80)]
    early = trial(1, 0.3, "pruned", epochs=1)
    row = rank(paid(early, trial(2), confirmed=ones + replicates(2, 0.70))).rows[0]
    assert (row.trial, row.epochs, row.part, row.parameters) == ("0001", 4, 1.0, 77)
    assert row.objectives["val_accuracy"] == pytest.approx(0.80)
    assert rank(paid(early, trial(2), confirmed=ones + replicates(2, 0.70))).luck.drop is None  # type: ignore[union-attr]


def test_baseline_names_the_defaults_whichever_trial_had_them() -> None:
    one = paid(trial(1), trial(2), confirmed=replicates(1, 0.80) + replicates(2, 0.95))
    found = compare(one, one, "", "baseline")
    assert (found.a, found.b) == ("cnn-1:0002", "cnn-1:0001")
