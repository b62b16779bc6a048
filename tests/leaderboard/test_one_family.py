"""Ranks, ties, verdict, races and report are read from one family of comparisons: nothing contradicts anything.

Random rankings are simulated: plans with unlike spreads, seeds that failed or were never trained, races with the drops
that they wrote down, races that were cut short, runs of older versions, several runs ranked together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mnistlab.console.ranking import notes
from mnistlab.leaderboard import Leaderboard, Row, rank, rank_together
from mnistlab.leaderboard.entries import difference_of
from mnistlab.leaderboard.family import Family, Standings, _worth_a_look, standings
from mnistlab.leaderboard.gain import gain_text
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.leaderboard.racing import ALPHA, LEAST, RISK, beaten, confidence_of, drops, level_of
from mnistlab.leaderboard.statistics import holm
from mnistlab.report import page_columns
from mnistlab.report.prose import methods
from mnistlab.report.tables import section, table_of
from mnistlab.store.results import ReplicateResult, RunRecord
from tests.leaderboard.test_ranking import asked, planned, record, trial

pytestmark = pytest.mark.simulated

IMAGES = 60


def training(rng: np.random.Generator, name: str, number: int, value: float, *, metric: str) -> ReplicateResult:
    """A training of about that value: of an accuracy with outcomes of images, of a loss without."""
    if metric == "val_loss":
        return ReplicateResult(trial=name, replicate=number, seed=100 + number, metrics={metric: 1 - value})
    right = rng.random(IMAGES) < min(max(value, 0.0), 1.0)
    bits = "".join("01"[int(x)] for x in right)
    metrics = {metric: float(right.mean())}
    return ReplicateResult(trial=name, replicate=number, seed=100 + number, metrics=metrics, val_correct=bits)


@dataclass(frozen=True)
class Simulated:
    """A run as it was drawn, with the pairs (better, worse) that its race has told."""

    record: RunRecord
    told: list[tuple[str, str]]


def simulated(rng: np.random.Generator, path: str, metric: str = "val_accuracy", *, equal: bool = False) -> Simulated:
    """Draw a run: two to six plans, three to nine seeds, a race in every second, seeds that fail or go untrained.

    In most of them the first plan is that of all defaults.
    """
    plans, seeds = int(rng.integers(2, 7)), int(rng.integers(2, 10))
    racing, cut = bool(rng.random() < 0.5), int(rng.integers(2, seeds + 1)) if rng.random() < 0.3 else seeds
    means = np.full(plans, 0.7) if equal else rng.normal(0.7, 0.08, plans)
    spreads = 10 ** rng.uniform(-3, -0.7, plans)
    failing = rng.random() * 0.3 * (rng.random() < 0.4)
    names = [f"{n:04}" for n in range(plans)]
    drawn: dict[str, list[ReplicateResult]] = {name: [] for name in names}
    baseline = {"baseline": {"trial": "0000", "added": True}} if rng.random() < 0.7 else {}
    entries: list[Mapping[str, Any]] = [{"type": "planned", "trials": names, "seeds": seeds, **baseline}]
    alive, told = list(names), list[tuple[str, str]]()
    for number in range(1, cut + 1):
        for name, mean, sd in zip(names, means, spreads, strict=True):
            if name in alive:
                one = training(rng, name, number, rng.normal(mean, sd), metric=metric)
                drawn[name].append(replace(one, cause="nan", metrics={}) if rng.random() < failing else one)
        if not racing or number < LEAST or number == seeds:
            continue
        good = {name: [one for one in drawn[name] if not one.cause] for name in alive}
        for out in beaten(good, metric, confidence_of(plans, seeds)):
            if baseline and out.trial == "0000":
                continue
            alive.remove(out.trial)
            told.append((out.leader, out.trial))
            about = {"leader": out.leader, "seeds": out.seeds, "confidence": out.confidence}
            entries.append({"type": "dropped", "trial": out.trial, **about})
    made = record(
        *(trial(n, 0.9) for n in range(plans)),
        confirmed=[one for name in names for one in drawn[name]],
        confirmations=tuple(entries),
        metric=metric,
        metrics=[metric],
        experiment={"confirm": {"seeds": seeds, "racing": racing}},
    )
    return Simulated(replace(made, path=f"runs/{path}", run={**made.run, "run": path}), told)


def rankings(count: int) -> Iterator[tuple[list[RunRecord], Leaderboard, list[tuple[str, str]]]]:
    rng = np.random.default_rng(20)
    for number in range(count):
        metric = "val_loss" if number % 4 == 3 else "val_accuracy"
        runs = [simulated(rng, path, metric, equal=number % 5 == 0) for path in "abc"[: 1 + (number % 3 == 2) * 2]]
        board = rank_together([run.record for run in runs])
        many = len(runs) > 1
        told = [
            (f"{run.record.run['run']}:" * many + a, f"{run.record.run['run']}:" * many + b)
            for run in runs
            for a, b in run.told
        ]
        yield [run.record for run in runs], board, told


def number_of(row: Row) -> int:
    return int(row.rank.rstrip("="))


def check_rows(board: Leaderboard, family: Family) -> None:
    """Ranks, ranges and the family's pairs agree."""
    rows = [row for row in board.rows if row.state == "confirmed"]
    assert [number_of(row) for row in board.rows if row.rank != "-"] == sorted(
        number_of(row) for row in board.rows if row.rank != "-"
    )
    for i, row in enumerate(rows):
        sharing = [other for other in rows if number_of(other) == number_of(row)]
        assert row.rank.endswith("=") == (len(sharing) > 1)
        assert number_of(row) == 1 + sum(number_of(other) < number_of(row) for other in rows)
        assert row.rank_low is not None
        assert row.rank_high is not None
        assert 1 <= row.rank_low <= number_of(row) <= row.rank_high <= len(rows)
        assert row.rank_low == 1 + len(family.above[i])
        assert (row.tie is not None) == (row.rank.endswith("=") and sharing[0] is not row)
        for j, other in enumerate(rows):
            assert (j in family.above[i]) == (i in family.below[j])
            if j in family.above[i]:
                assert j < i
                assert number_of(other) < number_of(row)
                assert family.above[j] < family.above[i]
                assert other.rank_low is not None
                assert other.rank_high is not None
                assert other.rank_low < row.rank_low
                assert other.rank_high < row.rank_high
    assert not any(row.rank_low for row in board.rows[len(rows) :])


def check_words(board: Leaderboard) -> None:
    """The verdict says what the ranks say, of every plan."""
    text, rows = verdict(board).partition("On mnist, ")[2], [row for row in board.rows if row.state == "confirmed"]
    if not rows:
        return
    first = {board.name(row) for row in rows if number_of(row) == 1} - {board.name(rows[0])}
    assert set(board.tied) == first
    assert (rows[0].rank == "1=") == bool(board.tied)
    may_lead = {board.name(row) for row in rows[1:] if row.rank_low == 1}
    assert may_lead == {*board.tied, *board.better, *board.lacking}
    assert ("tied with" in text) == bool(board.tied)
    assert ("did better" in text) == bool(board.better)
    assert ("may be as good" in text) == bool(board.lacking)
    assert ("by more than noise" in text) == (not may_lead and len(rows) > 1)
    assert ("no other plan was confirmed" in text) == (len(rows) == 1)
    said = text.partition("; on validation ")[2].partition("; the test set")[0]
    assert set(re.findall(r"(?:[abc]:)?(?<![\d.])\d{4}", said)) == may_lead


def check_order(family: Family) -> None:
    """To be surely better is a strict partial order."""
    above = family.above
    assert all(i not in above[i] for i in range(len(above)))
    assert all(above[j] <= above[i] for i in range(len(above)) for j in above[i])


def check_gain(board: Leaderboard, judged: Standings) -> None:
    """The sentence is about the plan that is listed first, and says what the ranks say of it and the defaults."""
    assert board.champion == board.rows[0]
    own = [i for i, row in enumerate(board.rows) if row.baseline and row.run == board.rows[0].run]
    gain = board.gain
    if gain is None:
        assert not any(judged.found[i].replicates for i in own)  # no seed of the defaults has ended
        return
    (place,) = own
    assert gain.trial == board.rows[place].trial
    assert verdict(board).startswith(gain_text(board.metric, gain))
    assert (gain.kind == "defaults") == (place == 0)
    if gain.kind in {"defaults", "failed"}:
        return
    family, nothing = judged.family, gain_text(board.metric, gain).startswith("Searching gained nothing")
    assert (gain.kind == "gained") == (place in family.below[0])
    assert not (gain.kind == "gained" and board.rows[place].rank == board.rows[0].rank)
    assert (gain.kind == "behind") == ((place, 0) in family.overruled)
    if nothing:
        assert not [i for i in family.above[place] if judged.found[i].record is judged.found[0].record]
    if (gain.kind == "gained") == (gain.difference is not None and gain.difference.interval.low > 0):
        return
    assert gain.best_of == 0  # a chain of plans tells it, or a race has


def check_races(board: Leaderboard, told: Sequence[tuple[str, str]]) -> None:
    """What a race told stands: the plan that left ranks below the one that beat it, and can't be the best."""
    place = {board.name(row): row for row in board.rows}
    for leader, left in told:
        assert place[left].left_race
        assert number_of(place[leader]) < number_of(place[left])
        assert (place[leader].rank_low or 0) < (place[left].rank_low or 0)
        assert (place[leader].rank_high or 0) < (place[left].rank_high or 0)
        assert left not in {*board.tied, *board.better, *board.lacking}
    assert {name for name, row in place.items() if row.left_race} == {left for _, left in told}


def check_files(board: Leaderboard, records: Sequence[RunRecord]) -> None:
    """Tables, notes and report hold the same ranks."""
    table = table_of([section(board)])
    column = {name: [cells[i] for cells in table.rows] for i, name in enumerate(table.names)}
    assert column["shared"] == [row.rank.endswith("=") for row in board.rows]
    assert column["rank_low"] == [row.rank_low for row in board.rows]
    assert column["rank_high"] == [row.rank_high for row in board.rows]
    below = notes(board)
    for texts in [below, *([methods(records[0], board)] if len(records) == 1 else [])]:
        shared = [text for text in texts if text.startswith("Tie at ")]
        confirmed = {row.rank for row in board.rows if row.state == "confirmed" and row.rank.endswith("=")}
        assert {text.split()[2] for text in shared} == confirmed
        assert any(text.startswith("n= marks") for text in texts) == any(row.rank.endswith("=") for row in board.rows)
        assert any(text.startswith("Range: ") for text in texts) == any(row.ranks for row in board.rows)
    shown = page_columns.table(board, page_columns.shown(board))
    assert [ranked.cells[0][0] for ranked in shown] == [row.rank for row in board.rows]
    left = ", ".join(row.trial for row in board.rows if row.left_race)
    assert any(text.startswith("Out of the race") for text in below) == bool(left)


def test_no_two_things_that_a_ranking_says_contradict_each_other() -> None:
    seen = {
        "tied": 0,
        "better": 0,
        "lacking": 0,
        "sure": 0,
        "left": 0,
        "overlap": 0,
        "unsorted": 0,
        "gained": 0,
        "nothing": 0,
    }
    for records, board, told in rankings(240):
        metric = board.metric
        judged = standings(sorted(records, key=lambda r: r.path), metric)
        check_rows(board, judged.family)
        check_order(judged.family)
        check_words(board)
        if board.champion and board.champion.state == "confirmed":
            check_gain(board, judged)
        check_races(board, told)
        check_files(board, records)
        rows = [row for row in board.rows if row.state == "confirmed"]
        means = [row.validation.mean for row in rows if row.validation]
        seen["tied"] += bool(board.tied)
        seen["better"] += bool(board.better)
        seen["lacking"] += bool(board.lacking)
        seen["sure"] += len(rows) > 1 and all(not row.ranks for row in rows)
        seen["left"] += bool(told)
        seen["overlap"] += any(row.rank_low and 1 < row.rank_low < number_of(row) for row in rows)
        seen["gained"] += board.gain is not None and board.gain.kind == "gained"
        seen["nothing"] += board.gain is not None and board.gain.kind == "tied"
        seen["unsorted"] += means != sorted(means, reverse=metric != "val_loss")
    assert all(seen.values()), seen  # each kind of ranking was among them


# --- one case of each kind ----------------------------------------------------------------------------------------


def values(number: int, metric: str, *of: float) -> list[ReplicateResult]:
    return [
        ReplicateResult(trial=f"{number:04}", replicate=i, seed=100 + i, metrics={metric: value})
        for i, value in enumerate(of, 1)
    ]


def noisy(middle: float, spread: float, seeds: int = 5) -> list[float]:
    return [middle + spread * (-1) ** i * (1 + i / 10) for i in range(seeds)]


def test_a_plan_of_wide_spread_that_can_not_be_told_from_the_champion_shares_its_rank() -> None:
    """Its mean is the last, but its spread hides how good it is: the second is surely worse than the first."""
    made = [(1, 0.95, 0.001), (2, 0.90, 0.0012), (3, 0.85, 0.2)]
    confirmed = [one for n, mean, sd in made for one in values(n, "val_accuracy", *noisy(mean, sd))]
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed))
    assert [(row.rank, row.trial, row.ranks) for row in board.rows] == [
        ("1=", "0001", "1-2"),
        ("1=", "0003", "1-3"),
        ("3", "0002", "2-3"),
    ]
    assert board.tied == ("0003",)


def test_what_is_better_along_a_chain_is_better() -> None:
    """The first is told from the second and that from the third; the first and the third share too few seeds."""
    first, second = values(1, "val_loss", *noisy(0.1, 0.001, 9)), values(2, "val_loss", *noisy(0.2, 0.0017, 9))
    third = values(3, "val_loss", *noisy(0.3, 0.0023, 9))
    confirmed = [*first[:5], *second, *third[4:]]
    board = rank(record(trial(1), trial(2), trial(3), confirmed=confirmed, metric="val_loss", **planned(5)))
    assert {row.trial: row.rank_low for row in board.rows} == {"0001": 1, "0002": 2, "0003": 3}
    assert (board.tied, board.better, board.lacking) == ((), (), ())


def test_a_dropped_plan_stays_below_the_one_that_beat_it_though_that_loses_a_seed_later() -> None:
    lost = ReplicateResult(trial="0001", replicate=4, seed=104, metrics={}, cause="nan")
    first = [*values(1, "val_loss", *noisy(0.10, 0.001, 3)), lost, *values(1, "val_loss", *noisy(0.1, 0.001))[4:]]
    dropped = values(2, "val_loss", *noisy(0.2, 0.002, 3))
    rest = values(3, "val_loss", *noisy(0.15, 0.05))
    left = {"type": "dropped", "trial": "0002", "leader": "0001", "seeds": 3, "confidence": 0.9875}
    trials, entries = [trial(1), trial(2), trial(3)], (asked(5, 1, 2, 3), left)
    board = rank(record(*trials, confirmed=[*first, *dropped, *rest], confirmations=entries, metric="val_loss"))
    assert [row.trial for row in board.rows] == ["0003", "0001", "0002"]
    assert board.rows[2].rank_low == 2
    assert board.lacking == ("0001",)


def test_the_decision_of_an_old_race_stands_whatever_the_final_comparisons_would_say() -> None:
    """Its level was 0.0125 of a pair, which is not enough after Holm's correction."""
    confirmed = [
        *values(1, "val_loss", *noisy(0.10, 0.01)),
        *values(2, "val_loss", *noisy(0.11, 0.02)),
        *values(3, "val_loss", *noisy(0.20, 0.03, 3)),
    ]
    left = {"type": "dropped", "trial": "0003", "leader": "0001", "seeds": 3, "confidence": 0.9875}
    trials, entries = [trial(1), trial(2), trial(3)], (asked(5, 1, 2, 3), left)
    board = rank(record(*trials, confirmed=confirmed, confirmations=entries, metric="val_loss"))
    assert [(row.rank, row.trial, row.ranks) for row in board.rows] == [
        ("1=", "0001", "1-2"),
        ("1=", "0002", "1-3"),
        ("3", "0003", "2-3"),
    ]
    without = {key: value for key, value in left.items() if key in {"type", "trial"}}
    older = rank(record(*trials, confirmed=confirmed, confirmations=(without,), metric="val_loss"))
    assert [row.trial for row in older.rows] == ["0001", "0002", "0003"]  # whom it lost to is not on the record


def test_a_race_that_is_planned_again_over_more_seeds_frees_a_plan_once_it_has_more() -> None:
    left = {"type": "dropped", "trial": "0003", "leader": "0001", "seeds": 3, "confidence": 0.99}
    entries = [asked(5, 1, 2, 3), left, asked(9, 1, 2, 3)]
    assert drops(entries)["0003"].again
    assert not drops([*entries[:2], asked(5, 1, 2, 3)])["0003"].again
    for seeds, out in ((3, True), (4, False)):
        confirmed = [one for n in (1, 2) for one in values(n, "val_loss", *noisy(0.1, 0.01 * n))]
        confirmed += values(3, "val_loss", *noisy(0.3, 0.01, seeds))
        trials = [trial(1), trial(2), trial(3)]
        board = rank(record(*trials, confirmed=confirmed, confirmations=tuple(entries), metric="val_loss"))
        assert [row.left_race for row in board.rows if row.trial == "0003"] == [out]


def test_races_and_final_comparisons_share_one_risk() -> None:
    raced = {"experiment": {"confirm": {"racing": True, "seeds": 5}}}
    assert level_of({}, ()) == ALPHA
    assert level_of(raced, ()) == ALPHA - RISK
    assert level_of({"experiment": {"confirm": {"racing": True, "seeds": LEAST}}}, ()) == ALPHA
    assert level_of(raced, (asked(3, 1, 2),)) == ALPHA
    assert level_of({}, ({"type": "dropped", "trial": "0001"},)) == ALPHA - RISK


def test_of_equal_plans_with_unlike_spreads_races_and_comparisons_together_seldom_claim_anything() -> None:
    """In at most one of twenty runs, over all looks of the race and all pairs in the end."""
    rng, false, count = np.random.default_rng(11), 0, 300
    for _ in range(count):
        run = equal_run(rng, plans=4, seeds=8)
        family = standings([run], "val_loss").family
        false += any(family.above)
    assert false <= 0.05 * count


def equal_run(rng: np.random.Generator, plans: int, seeds: int) -> RunRecord:
    """Equal plans whose deviations between seeds differ by up to a factor of thirty, raced."""
    spreads = 10 ** rng.uniform(-1.5, 0, plans)
    table = rng.normal(1.0, spreads[:, None], (plans, seeds))
    alive, entries = list(range(plans)), list[Mapping[str, Any]]([asked(seeds, *range(plans))])
    have = dict.fromkeys(alive, seeds)
    for look in range(LEAST, seeds):
        shown = {f"{n:04}": values(n, "val_loss", *table[n, :look]) for n in alive}
        for out in beaten(shown, "val_loss", confidence_of(plans, seeds)):
            alive.remove(int(out.trial))
            have[int(out.trial)] = look
            about = {"leader": out.leader, "seeds": out.seeds, "confidence": out.confidence}
            entries.append({"type": "dropped", "trial": out.trial, **about})
    confirmed = [one for n in range(plans) for one in values(n, "val_loss", *table[n, : have[n]])]
    raced = {"experiment": {"confirm": {"racing": True, "seeds": seeds}}}
    trials = [trial(n) for n in range(plans)]
    return record(*trials, confirmed=confirmed, confirmations=tuple(entries), metric="val_loss", **raced)


def test_only_pairs_that_could_be_told_are_looked_at_closely() -> None:
    """What is skipped would have been told apart by no step of Holm's method."""
    rng = np.random.default_rng(2)
    for _ in range(40):
        means, spreads = rng.normal(0.0, 0.3, 12), 10 ** rng.uniform(-2, 0, 12)
        confirmed = [
            one for n in range(12) for one in values(n, "val_loss", *rng.normal(means[n], spreads[n], 4 + n % 3))
        ]
        plans = standings([record(*(trial(n) for n in range(12)), confirmed=confirmed)], "val_loss").found
        pairs = list(combinations(range(12), 2))
        exact = [difference_of(plans[a], plans[b], "val_loss").p for a, b in pairs]
        told = {pair for pair, p in zip(pairs, holm(exact), strict=True) if p <= ALPHA}
        assert told <= set(_worth_a_look(plans, "val_loss", pairs, ALPHA, len(pairs)))
