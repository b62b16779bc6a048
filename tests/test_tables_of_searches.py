"""The benchmark of searches: what a table says, what is looked up in it, and that mnistlab's own search runs on it."""

from __future__ import annotations

import json
import lzma
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mnistlab.experiment import loader
from mnistlab.experiment.space import suggest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TABLES = sorted((BENCHMARKS / "tables").glob("*.jsonl.xz"))

pytestmark = pytest.mark.simulated


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The program, imported as it is run: from its own folder."""
    sys.path.insert(0, str(BENCHMARKS))
    import search

    yield search
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_a_table_holds_each_plan_s_trainings_for_each_budget_and_seed(path: Path) -> None:
    head, *lines = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    assert path.stat().st_size < 4e6
    assert head["machine"]
    assert len(lines) >= (500 if head["task"] in {"digits", "mnist-2000"} else 40)
    for line in lines:
        trainings = line["trainings"]
        if any(str(one.get("failed", "")).startswith("refused") for one in trainings):
            continue
        assert {(one["budget"], one["seed"]) for one in trainings} == {
            (budget, seed) for budget in head["budgets"] for seed in head["seeds"]
        }
        for one in trainings:
            assert "failed" in one or len(one["epochs"]) == math.ceil(one["budget"])
            assert all(0 <= right <= head["validation"] for right, _, _ in one["epochs"])


def test_a_plan_of_the_table_is_its_own_nearest(bench: Any) -> None:
    table = bench.table("digits")
    for row in table.rows[::7]:
        assert table.nearest(row.plan).number == row.number
        other = table.nearest(row.plan, {row.number})
        assert other.number != row.number
        assert (other.flat["model"], other.flat["optimizer"]) == (row.flat["model"], row.flat["optimizer"])


@pytest.mark.parametrize("name", ["random search", "one epoch, then the best 5", "mnistlab"])
def test_a_search_on_a_table_costs_what_its_trainings_cost(bench: Any, name: str) -> None:
    from tables import clock

    table = bench.table("digits")
    found = bench.SEARCHES[name]("digits", 0, 2)
    costs = [one.epochs for one in found.ended]
    assert costs == sorted(costs)
    assert {one.row for one in found.ended} <= found.proposed
    if name == "random search":
        assert len(found.proposed) == 24
        assert costs[-1] == 24 * 8
        seconds = [table.rows[one.row].trainings[8.0, one.row % 2].epochs for one in found.ended]
        spent = sum(epoch[2] for epochs in seconds for epoch in epochs)
        assert spent / 2 <= found.ended[-1].seconds <= spent  # two workers, none of which waits for long
    if name == "mnistlab":
        complete = sum(one.complete for one in found.ended)
        rungs = [one for one in found.ended if not one.complete]
        assert complete >= 9  # 1 + the square root of 64
        assert len(found.proposed) > 56  # of 64: two plans that plugins know may be nearest to the same one
        paid = 4 * len(rungs) + 8 * complete
        assert paid <= costs[-1] <= paid + 8 * (64 - len(rungs))  # those that failed
    errors = [error for _, _, error in clock.incumbents(table, found)]
    assert errors[-1] <= errors[0]


def test_a_portfolio_is_of_other_tables_and_its_first_plan_is_the_best_of_them(bench: Any) -> None:
    table = bench.table("mnist-2000")
    plans = bench.chosen([table], 3)
    best = min(table.rows, key=lambda row: row.error)
    assert plans[0] == {key: value for key, value in best.flat.items() if key != "transforms"}
    assert len({json.dumps(plan, sort_keys=True) for plan in plans}) == 3


def test_a_table_of_fewer_plans_does_not_narrow_a_portfolio(bench: Any) -> None:
    table = bench.table("mnist-2000")
    small = replace(table, rows=table.rows[-40:])
    assert bench.chosen([small, table], 3) == bench.chosen([table], 3)


def test_defaults_are_replaced_by_those_of_plans_of_the_table(bench: Any) -> None:
    import priors

    table = bench.table("digits")
    space = loader.load(bench.TABLES / "space.toml", (), bench.registry()).space
    ranked = sorted(row.error for row in table.rows if row.error < 1)
    for place, wanted in ((0.0, ranked[0]), (0.9, ranked[round(0.9 * (len(ranked) - 1))])):
        assert priors.at(place)(table.rows).error == wanted
    other = priors.with_defaults(space, priors.at(0.0), table.rows)
    plan = suggest(other, lambda parameter: parameter.default)
    assert table.nearest(plan).error == ranked[0]
    found = priors.SEARCHES["misleading defaults"]("digits", 0, 2)
    assert sum(one.complete for one in found.ended) >= 9


@pytest.mark.usefixtures("bench")
def test_a_search_on_foreign_tables_has_a_true_value_after_each_trial() -> None:
    import foreign

    families = {family for family, _ in foreign.names()}
    assert families == set(foreign.FAMILIES)
    table = next(iter(foreign.names()))
    by_chance, ours = (foreign.best_after((name, *table, 0, 12)) for name in ("random search", "mnistlab"))
    assert len(by_chance) == len(ours) == 12
    assert by_chance[0] < by_chance[-1]  # it has chosen better plans in time
    assert by_chance[0] < ours[-1]


def test_what_a_table_has_is_not_trained_again(bench: Any, tmp_path: Path) -> None:
    from tables import make

    wanted = make.plans(9)  # the defaults: no plan is drawn, which would be trained for its cost
    found = make.published(BENCHMARKS / "tables" / "digits.jsonl.xz", wanted)
    assert found.keys() == {(number, seed) for number in range(9) for seed in make.SEEDS}
    assert all([one["budget"] for one in rows] == list(make.BUDGETS) for rows in found.values())
    other = json.dumps({"budgets": [1, 2]})
    (tmp_path / "other.xz").write_bytes(lzma.compress(other.encode()))
    assert make.published(tmp_path / "other.xz", wanted) == make.published(tmp_path / "none.xz", wanted) == {}
