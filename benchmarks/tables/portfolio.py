"""Plans that are good and unlike each other, chosen greedily from tables: the portfolios of the built-in models.

Usage: python benchmarks/tables/portfolio.py [PLANS] [TASK ...]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from mnistlab.api import Scalar
from mnistlab.experiment import loader
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.space import Space
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry, select
from tables.table import Table, read, tasks

HERE = Path(__file__).parent
NAMES = {"transforms"}  # of the settings what no plugin can wish for


def chosen(tables: Sequence[Table], count: int) -> list[Mapping[str, Scalar]]:
    """Return the settings of so many plans: each lowers the best error of all before it the most, over all tables.

    Errors are compared by their logarithms, so that no task counts more than another. A table with fewer plans than
    another one is left out: plans are compared on the same tasks, and most of them would be missing there.
    """
    most = max(len(table.rows) for table in tables)
    tables = [table for table in tables if len(table.rows) == most]
    errors = [{canonical(row.plan): math.log(max(row.error, 1e-4)) for row in table.rows} for table in tables]
    flats = {canonical(row.plan): row.flat for row in tables[0].rows}
    common = [key for key in flats if all(key in one for one in errors)]
    best = [0.0 for _ in tables]
    found: list[str] = []
    for _ in range(count):
        found.append(min((key for key in common if key not in found), key=lambda key: _after(key, errors, best)))
        best = [min(lowest, one[found[-1]]) for lowest, one in zip(best, errors, strict=True)]
    return [{key: value for key, value in flats[one].items() if key not in NAMES} for one in found]


def _after(key: str, errors: Sequence[Mapping[str, float]], best: Sequence[float]) -> tuple[float, float]:
    """Return the sum of the best errors with this plan too; of equal ones the plan that is better by itself is less."""
    own = [one[key] for one in errors]
    return sum(map(min, best, own)), sum(own)


@dataclass(frozen=True)
class With:
    """A registry in which models offer other portfolios."""

    registry: Registry
    plans: Sequence[Mapping[str, Scalar]]

    def __getattr__(self, name: str) -> Any:
        """Answer as the registry does."""
        return getattr(self.registry, name)

    def find(self, kind: Any, name: str) -> Any:
        """Return the offer of that name; of a model or an optimizer with those of the plans that have it."""
        offer = self.registry.find(kind, name)
        if kind == "optimizer":
            return replace(offer, record=replace(offer.record, portfolio=()))
        if kind != "model":
            return offer
        mine = tuple(plan for plan in self.plans if plan["model"] == offer.record.name)
        return replace(offer, record=replace(offer.record, portfolio=mine))


def unlike_defaults(plan: Mapping[str, Scalar], space: Space) -> dict[str, Scalar]:
    """Return the settings of a plan that are not at their defaults, numbers to three digits, and its optimizer."""
    defaults = {one.path: one.default for one in space.parameters()}
    kept = {key: value for key, value in plan.items() if key in defaults and value != defaults[key]}
    rounded = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in kept.items()}
    return {"optimizer": plan["optimizer"]} | {key: value for key, value in rounded.items() if key != "model"}


def with_each_optimizer(tables: Sequence[Table], count: int) -> list[Mapping[str, Scalar]]:
    """Return so many plans, and the best one of each optimizer that none of them has: a search may have no other."""
    found = chosen(tables, count)
    for name in sorted(
        {str(row.flat["optimizer"]) for row in tables[0].rows} - {str(one["optimizer"]) for one in found}
    ):
        of_it = (tuple(row for row in table.rows if row.flat["optimizer"] == name) for table in tables)
        found += chosen([replace(table, rows=rows) for table, rows in zip(tables, of_it, strict=True)], 1)
    return found


def main() -> None:
    """Print the plans of each model, as `mnistlab/builtin/models/portfolios.py` holds them."""
    count, names = int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2:]
    space = loader.load(HERE / "space.toml", (), select(Selection(only_built_in=True))).space
    tables = [read(HERE / f"{name}.jsonl.xz", space) for name in names or tasks()]
    for model in space.models:
        of_it = [replace(one, rows=tuple(row for row in one.rows if row.flat["model"] == model.name)) for one in tables]
        print(f"{model.name.upper()}: Portfolio = (")
        for plan in with_each_optimizer(of_it, count):
            print("    {")
            print(
                "".join(
                    f"        {json.dumps(key)}: {value!r},\n" for key, value in unlike_defaults(plan, space).items()
                ),
                end="",
            )
            print("    },")
        print(")")


if __name__ == "__main__":
    main()
