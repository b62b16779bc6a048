"""Which tests are run, in which order, and in what environment; for those of `plugins/` too."""

from __future__ import annotations

import gc
import os
import re

import pytest

# Two processes share two cores: threads of theirs would wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What asks Ray without having one would start one, from whose threads no test could be forked any more.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

TIERS = ("ray", "e2e", "simulated", "unit")  # the slowest first, so that no long test is left for the end


@pytest.hookimpl(tryfirst=True)  # before the command line's `-m` chooses by what is marked here
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put each test into its tier, and leave the long forms out unless the command line names their marker."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker(pytest.mark.unit)
    items.sort(key=lambda item: min(TIERS.index(mark.name) for mark in item.iter_markers() if mark.name in TIERS))
    if re.search(r"(?<!not )\bchaos\b", config.option.markexpr):
        return
    left_out = [item for item in items if item.get_closest_marker("chaos")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """Have no collection of garbage look at the thousands of tests: each trial ends with one."""
    _keep_what_there_is()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Nor at what a file of tests has imported; what becomes garbage of it is never freed, and is little."""
    if nextitem is not None and nextitem.path != item.path:
        _keep_what_there_is()


def pytest_unconfigure() -> None:
    """Let libraries see at the end that nothing of theirs is left: nanobind lists what is."""
    gc.unfreeze()


def _keep_what_there_is() -> None:
    gc.collect()
    gc.freeze()
