"""What the program asks of a scheduler are its traits; only tables know schedulers by their names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from mnistlab.experiment.spec import Scheduler
from mnistlab.store.schedulers import SCHEDULERS, Traits, traits_of
from mnistlab.tuning import schedulers

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "mnistlab" / "store" / "schedulers.py"
SOURCES = [path for folder in ("mnistlab", "plugins", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
SHARED = {"__init__", "common"}


def asks_for_a_name(node: ast.AST) -> bool:
    """Return whether code compares something with a scheduler's name, or chooses by several names."""
    match node:
        case ast.Compare():
            return any(names(side) for side in (node.left, *node.comparators))
        case ast.MatchValue():
            return any(names(node.value))
        case ast.Dict():
            return len([key for key in node.keys if key and any(names(key))]) > 1
        case _:
            return False


def names(expression: ast.expr) -> list[str]:
    """Return the schedulers that an expression names, alone or in a list of constants."""
    parts = expression.elts if isinstance(expression, (ast.Tuple, ast.List, ast.Set)) else [expression]
    return [one.value for one in parts if isinstance(one, ast.Constant) and one.value in SCHEDULERS]


def found(text: str) -> Iterator[int]:
    """Yield the lines at which a module asks for a scheduler's name."""
    yield from (node.lineno for node in ast.walk(ast.parse(text)) if asks_for_a_name(node))  # type: ignore[attr-defined]


def test_every_name_has_traits_a_builder_and_a_module_and_an_experiment_may_give_it() -> None:
    modules = {path.stem for path in Path(schedulers.__file__).parent.glob("*.py")} - SHARED
    assert list(SCHEDULERS) == list(schedulers.BUILDERS) == list(get_args(Scheduler))
    assert modules == set(SCHEDULERS)


def test_nothing_outside_the_table_asks_for_a_scheduler_by_its_name() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES if path != TABLE}
    assert [f"{path}:{line}" for path, text in texts.items() for line in found(text)] == []


@pytest.mark.parametrize(
    "line",
    [
        'search.scheduler == "pbt"',
        '"halving" != name',
        'name in {"none", "halving"}',
        'name not in ("x", "asha")',
        'match name:\n    case "pbt":\n        pass',
        'match name:\n    case "x" | "median":\n        pass',
        'words = {"none": 1, "halving": 2}',
    ],
)
def test_code_that_asks_for_a_name_would_be_found(line: str) -> None:
    assert list(found(line))


@pytest.mark.parametrize(
    "line", ['name = "asha"', 'call(reduction="none")', '{"median": 1, "p90": 2}', 'name == "asha and more"']
)
def test_other_code_may_hold_such_a_word(line: str) -> None:
    assert not list(found(line))


@pytest.mark.parametrize("name", ["pbtt", "", None, 3, ["pbt"], {"pbt": 1}])
def test_what_is_no_schedulers_name_has_no_traits(name: object) -> None:
    assert traits_of(name) == Traits()
