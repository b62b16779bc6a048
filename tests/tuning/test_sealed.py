"""Trial code never sees test images: a dataset that tells who asks for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnistlab.confirm import confirm
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import moods

pytestmark = pytest.mark.ray


def test_the_test_images_are_loaded_by_the_confirmation_and_by_nobody_before(run_tiny: RunTiny, loads: Path) -> None:
    loads.write_text("")
    before: list[str] = []

    def look_then_confirm(search, trials) -> None:
        before.extend(loads.read_text().splitlines())
        confirm(search, trials, "the command")

    text = moods("good", "stuck", scheduler="none") + "\n[confirm]\ntop = 2\nseeds = 1\n"
    run_tiny(text, parallel=2, then=look_then_confirm, dataset="watched")
    assert "load train" in before
    assert before.count("prepare") == 1  # the driver's; the workers read no more than what they train on
    assert "load test" not in before
    assert "load test" in loads.read_text().splitlines()
