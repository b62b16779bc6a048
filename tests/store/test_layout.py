"""One module owns the names of a run directory: nobody else spells one, and what a run leaves is what it knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnistlab
from mnistlab.store import layout

PACKAGE = Path(mnistlab.__file__).parent
OWNER = Path(layout.__file__)
# What lies in a cache, a folder of Ray's or a dataset may be called alike; nobody there knows of run directories.
SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p != OWNER and not {"data", "builtin"} & set(p.parts))

FILES = {
    layout.RUN, layout.EVENTS, layout.LEDGER, layout.CONFIRMATION, layout.DRIVER_LOG, layout.STUDY,
    layout.RESULT, layout.LOG, layout.WEIGHTS, layout.PER_IMAGE, layout.CHECKPOINTS,
}  # fmt: skip
# These are words of other things as well (keys of JSON, names of packages): they count where a path is made of them.
WORDS = {
    layout.TRIALS, layout.PLUGINS, layout.RAY, layout.TENSORBOARD, layout.QUARANTINE, layout.LOCK,
    layout.REPLICATES, layout.REFIT_FOLDER,
}  # fmt: skip
JOINS = {"joinpath", "inside", "child", "Path", "PurePosixPath"}


def spelt(source: str) -> list[tuple[int, str]]:
    """Return line and text of each literal of `source` that spells a name of a run directory."""
    tree = ast.parse(source)
    parts = {id(node) for one in ast.walk(tree) for node in joined(one)}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        if names_of(node.value) & (FILES | (WORDS if id(node) in parts or "/" in node.value else set()))
    ]
    return sorted(set(found))


def joined(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a path is made of: the operands of `/`, and what is handed to functions that join."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield from (node.left, node.right)
    if isinstance(node, ast.Call):
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in JOINS:
            yield from node.args


def names_of(text: str) -> set[str]:
    """Return the parts of a path; a text with a space in it is a sentence, which may mention files."""
    return set() if " " in text else set(text.split("/"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nobody_else_spells_a_name_of_a_run_directory(path: Path) -> None:
    assert spelt(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'run / "run.json"',
        'f"trials/{name}/log.txt"',
        'run / "trials" / name',
        'inside(self.path, "plugins")',
        'root.glob("*/events.jsonl")',
        'store.path.joinpath("ray")',
    ],
)
def test_a_name_that_is_spelt_is_found(source: str) -> None:
    assert spelt(source)


@pytest.mark.parametrize(
    "source", ['"""In run.json."""', 'entry["trials"]', 'say("its sha256 is not the one in result.json")']
)
def test_what_only_mentions_one_is_left_alone(source: str) -> None:
    assert spelt(source) == []


def test_what_is_made_is_what_is_known() -> None:
    own = [
        layout.RUN, layout.record_name(2), layout.record_name(10), layout.LOCK, layout.DRIVER_LOG, layout.STUDY,
        layout.EVENTS, layout.LEDGER, layout.CONFIRMATION, f"{layout.PLUGINS}/own.py",
        *(layout.in_trial(layout.trial_name(7), name) for name in (layout.RESULT, layout.LOG)),
        *(
            layout.in_trial(layout.trial_name(12345), layout.CHECKPOINTS, layout.checkpoint_file(3, kind))
            for kind in (layout.MANIFEST, layout.STATE)
        ),
        *(
            layout.in_trial("0007", *place, name)
            for place in ((layout.REPLICATES, "2"), (layout.REFIT_FOLDER,))
            for name in (layout.RESULT, layout.WEIGHTS, layout.PER_IMAGE)
        ),
    ]  # fmt: skip
    assert [name for name in own if not layout.OWN.fullmatch(name)] == []
    assert [name for name in ("run-1.json", "run-02.json", "trials/7/result.json") if layout.OWN.fullmatch(name)] == []
