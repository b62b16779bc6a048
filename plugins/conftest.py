"""What the contracts of the plugins of this repository do again and again is left to the long form."""

from __future__ import annotations

import zlib

import pytest

SHARE = 5  # of the optimizers of a large library, one in so many is tried each time by what takes many steps
STEPS = (
    "test_optimizer_builds_everywhere",
    "test_optimizer_goes_on_from_its_state",
    "test_optimizer_moves_every_parameter",
    "test_optimizer_obeys_its_new_rate",
    "test_optimizer_reduces_a_quadratic",
)
LARGE = ("TestTransformer", "TestMobileNet", "TestRegNet")  # a smaller architecture of each library learns each time


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put all into one tier, and leave out what takes long.

    That is: a fresh process for each plugin, as tests/builtin imports all in one; C++; and most of the steps.
    """
    if item.get_closest_marker("e2e") is None:
        item.add_marker(pytest.mark.simulated)
    if item.name == "test_importing_it_has_no_side_effects":
        item.add_marker(pytest.mark.chaos)
    learns = item.name.startswith("test_model_learns") and isinstance(item, pytest.Function) and item.cls
    if item.name.startswith("test_model_compiles") or (learns and learns.__name__ in LARGE):
        item.add_marker(pytest.mark.chaos)
    library = "mnistlab-optimizers" in item.path.parts and item.name.startswith(STEPS)
    if library and zlib.crc32(item.name.partition("[")[2].encode()) % SHARE:
        item.add_marker(pytest.mark.chaos)
