"""The one rule of how a trial ended, without a Ray."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mnistlab.tuning.losses import Loss
from mnistlab.tuning.outcome import Interruptions, Outcome, outcome_of

HALF = {"epoch": 1, "epochs": 2, "val_accuracy": 0.5}
WHOLE = HALF | {"epoch": 2}
BROKEN = {"epoch": 1, "epochs": 2, "cause": "plugin", "message": "boom"}


@pytest.mark.parametrize(
    ("report", "lost", "interruption", "expected"),
    [
        (HALF, None, "", Outcome("pruned")),
        (None, None, "", Outcome("pruned")),
        (HALF, None, "Ctrl-C", Outcome("interrupted", message="Ctrl-C")),
        (None, None, "Ctrl-C", Outcome("interrupted", message="Ctrl-C")),
        ({"training_iteration": 1}, None, "Ctrl-C", Outcome("interrupted", message="Ctrl-C")),
        # whoever asks to stop in the moment of a trial's end changes nothing about that end
        (WHOLE, None, "", Outcome("complete")),
        (WHOLE, None, "Ctrl-C", Outcome("complete")),
        (BROKEN, None, "Ctrl-C", Outcome("failed", "plugin", "boom")),
        (HALF | {"val_accuracy": math.nan}, None, "Ctrl-C", Outcome("failed", "nan", "val_accuracy is nan")),
        (HALF, Loss("worker", "it died"), "Ctrl-C", Outcome("failed", "worker", "it died")),
    ],
)
def test_how_a_trial_ended(report: Any, lost: Loss | None, interruption: str, expected: Outcome) -> None:
    assert outcome_of(report, metrics=["val_accuracy"], lost=lost, interruption=interruption) == expected


@pytest.mark.parametrize("wrong", ["val_accuracy", "val_loss"])
def test_each_of_several_metrics_has_to_be_a_number(wrong: str) -> None:
    report = WHOLE | {"val_loss": 0.7}
    assert outcome_of(report, metrics=["val_accuracy", "val_loss"]) == Outcome("complete")
    failed = Outcome("failed", "nan", f"{wrong} is nan")
    assert outcome_of(report | {wrong: math.nan}, metrics=["val_accuracy", "val_loss"]) == failed


def test_a_trial_keeps_the_reason_for_which_it_was_cut_short() -> None:
    reason = ""
    cut = Interruptions(lambda: reason)
    assert not cut.takes("a")
    reason = "time budget"
    assert cut.takes("a")
    reason = "Ctrl-C"
    assert cut.takes("a")
    cut.breaks_off("a")
    assert cut.reason("a") == "time budget"
    assert cut.reason("b") == ""


def test_a_trial_that_is_left_over_is_interrupted_for_the_reason_there_is() -> None:
    reason = ""
    cut = Interruptions(lambda: reason)
    cut.breaks_off("a")
    reason = "SIGTERM"
    cut.breaks_off("b")
    assert [cut.reason(trial) for trial in "ab"] == ["search broken off", "SIGTERM"]
