"""What a driver promises while its search goes on: nothing in its process gets the test images."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.experiment import loader
from mnistlab.plugins.discovery import selection
from mnistlab.tuning import run
from mnistlab.tuning.reopen import reopen_search
from tests.simulated.controller import World
from tests.simulated.driving import Case, options_in, without_ray

pytestmark = pytest.mark.simulated

CURIOUS = """
from pathlib import Path

from mnistlab.api import DataPlace, hookimpl
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import select


@hookimpl
def mnistlab_trial_finished(trial):
    digits = select(Selection(only_built_in=True)).find("dataset", "digits").record
    digits.load(digits.config(), DataPlace(data_dir=None, cache=Path("cache"), offline=True), "test")
"""
CASE = Case("random", "none", trials=2, epochs=1, world=World(failing=0.0))


def test_an_observer_that_asks_for_the_test_images_is_refused_in_a_search_and_after_a_resume(tmp_path: Path) -> None:
    plugin, file = tmp_path / "curious.py", tmp_path / "x.toml"
    plugin.write_text(CURIOUS)
    file.write_text(CASE.text)
    opened, registry = loader.open_with(file, (), selection([plugin]))
    options = options_in(tmp_path)
    told = list[events.Event]()
    view = nullcontext(lambda stamped: told.append(stamped.event))
    with without_ray(CASE, tmp_path):
        done = run.search(opened, options, registry, lambda _: view)
        assert len(refusals(told)) == 2
        told.clear()
        more = run.resume(reopen_search(done.path, options.place, ["search.trials=5"]), options, lambda _: view)
    assert more is not None
    assert more.end.counts == {"complete": 5}
    assert len(refusals(told)) == 3


def refusals(told: list[events.Event]) -> list[str]:
    """What was said of the observer, which has to be that it was refused, and nothing else."""
    said = [event.message for event in told if isinstance(event, events.Warned)]
    for one in said:
        assert (
            "mnistlab_trial_finished raised dataset 'digits' was asked for its test images, but the test set is" in one
        )
    return said
