"""The map of the rooms says what is so: every room and floor, and files that are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mnistlab"
MAP = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MOST_ROOMS, MOST_FLOORS = 20, 10


def rooms() -> set[str]:
    """What lies directly inside the package, but for what makes it one."""
    found = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return found - {"__init__"}


def floors(text: str) -> list[set[str]]:
    return [set(re.findall(r"\w+", line)) for line in text.strip().splitlines()]


def test_the_floors_of_the_map_are_those_of_the_import_contracts() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = tools["importlinter"]["contracts"][0]["layers"]
    drawn = re.search(r"```text\n(.*?)```", MAP, re.DOTALL)
    assert drawn
    assert floors(drawn[1]) == floors("\n".join(layers))
    assert len(layers) <= MOST_FLOORS
    assert set().union(*floors(drawn[1])) == rooms()


def test_the_map_says_what_every_room_owns() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", MAP, re.MULTILINE)
    assert rows == sorted(rooms() - {"__main__"})
    assert len(rooms()) <= MOST_ROOMS


def test_files_that_the_map_and_the_guide_name_are_there() -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", MAP + GUIDE)
    assert len(named) > 20
    assert [path for path in named if not (PACKAGE / path).exists() and not (ROOT / path).exists()] == []


def test_every_package_says_what_it_is_for() -> None:
    silent = [path for path in PACKAGE.rglob("__init__.py") if not path.read_text(encoding="utf-8").startswith('"""')]
    assert silent == []
