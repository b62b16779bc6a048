"""Trial code never sees test images: a dataset that tells who asks for what."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mnistlab.experiment.identity import plan_sha256
from mnistlab.store import read_lines, read_run
from mnistlab.tuning.confirm import confirm
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import moods


@pytest.mark.simulated
def test_the_test_images_are_loaded_by_the_confirmation_and_by_nobody_before(run_tiny: RunTiny, loads: Path) -> None:
    loads.write_text("")
    before: list[str] = []

    def look_then_confirm(search, trials) -> None:
        before.extend(loads.read_text().splitlines())
        confirm(search, trials, "the command")

    text = moods("good", "stuck", scheduler="none") + "\n[confirm]\ntop = 2\nbaseline = false\nseeds = 1\n"
    run_tiny(text, then=look_then_confirm, dataset="watched")
    assert "load train" in before
    assert before.count("prepare") == 1  # the driver's; the workers read no more than what they train on
    assert "load test" not in before
    assert "load test" in loads.read_text().splitlines()


@pytest.mark.simulated
def test_the_ledger_names_command_plan_seed_weights_and_time_of_every_model(run_tiny: RunTiny) -> None:
    text = moods("good", scheduler="none") + "\n[confirm]\ntop = 1\nbaseline = false\nseeds = 1\n"
    ran = run_tiny(text, then=lambda search, trials: confirm(search, trials, "the command"))
    opened, evaluated = read_lines(ran.path / "test_ledger.jsonl")
    (replicate,) = read_run(ran.path).replicates
    (model,) = opened["models"]
    assert model == {
        "trial": "0000",
        "replicate": 1,
        "seed": replicate.seed,
        "plan_sha256": plan_sha256(ran.results[0].plan),
        "weights_sha256": replicate.weights_sha256,
    }
    assert model.items() <= evaluated.items()
    for entry in (opened, evaluated):
        assert entry["command"] == "the command"
        assert datetime.fromisoformat(entry["time"]).utcoffset() == timedelta(0)
