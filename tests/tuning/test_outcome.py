"""The one rule of how a trial ended, without a Ray."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from mnistlab.store.results import TrialResult
from mnistlab.tuning.outcome import Interruptions, Outcome, common_failure, machine_failure, outcome_of
from mnistlab.tuning.retries import Loss

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


# --- when a search is given up ------------------------------------------------------------------------------------


def ends(text: str, cause: str = "plugin") -> list[TrialResult]:
    """Trials in the order of their ends: `x` failed, `.` complete, `p` pruned, `i` interrupted.

    `m` failed by the machine's fault.
    """
    states = {"x": "failed", "m": "failed", ".": "complete", "p": "pruned", "i": "interrupted"}
    causes = {"x": cause, "m": "worker"}
    made: Any = [SimpleNamespace(state=states[one], cause=causes.get(one, ""), message="it broke") for one in text]
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xxxxx", "cause 'plugin' in 5 of the first 8 trials"),
        (".x.x.xxx", "cause 'plugin' in 5 of the first 8 trials"),
        (".x.x.xx.", ""),
        ("ixxxxi", ""),
        ("ixixxixix", "cause 'plugin' in 5 of the first 8 trials"),
        # what the machine did says nothing of the plans
        (6 * "m" + "xxxxx", "cause 'plugin' in 5 of the first 8 trials"),
        (8 * "m" + "x.x.x.x.", ""),
        ("...." + 6 * "xxxxm", "cause 'plugin' in 14 of 16 trials in a row"),
        # five good ones, then nothing but failures: 27 of 32
        (5 * "." + 27 * "x", "cause 'plugin' in 14 of 16 trials in a row"),
        ("...." + 20 * "x", "cause 'plugin' in 14 of 16 trials in a row"),
        (4 * ".x" + 12 * "x" + "." + 12 * "x", "cause 'plugin' in 21 of 24 trials in a row"),
        (40 * "." + 16 * "x", "cause 'plugin' in 14 of 16 trials in a row"),
        # half of the plans fail, here and there, or six in a row
        (50 * ".x", ""),
        (20 * "x.p..x" + 6 * "x" + 20 * ".x", ""),
        # what ends after a search was given up changes nothing
        (5 * "." + 16 * "x" + "....iiii" + 20 * ".", "cause 'plugin' in 14 of 16 trials in a row"),
    ],
)
def test_a_search_is_given_up_where_nearly_all_fail_for_one_cause(text: str, expected: str) -> None:
    assert str(common_failure(ends(text)) or "") == expected


@pytest.mark.parametrize("cause", ["nan", "memory", "timeout", "plugin"])
def test_causes_of_the_plans_count(cause: str) -> None:
    assert common_failure(ends("xxxxx", cause))
    assert not machine_failure(ends("xxxxx", cause))


@pytest.mark.parametrize("cause", ["worker", "device", "system", "hang", "data", "disk", "version", "meteorite"])
def test_causes_that_are_not_the_plans_are_no_reason_to_give_up_but_the_machine_has_failed(cause: str) -> None:
    assert common_failure(ends(8 * "x" + 40 * "x", cause)) is None
    assert machine_failure(ends(".xxxx.xxxx", cause)) == ""
    said = f"5 trials in a row failed through no fault of their plans ({cause} 5); the last of them: it broke"
    assert machine_failure(ends(".xxixixxii..", cause)) == said


def test_different_causes_do_not_add_up() -> None:
    mixed = [one for pair in zip(ends(20 * "x", "nan"), ends(20 * "x", "plugin"), strict=True) for one in pair]
    assert common_failure(mixed) is None


def test_a_grid_in_which_one_block_fails_goes_on_to_the_next() -> None:
    block = ends(32 * "." + 32 * "x")
    assert common_failure(block) is not None
    assert common_failure(block, in_blocks=True) is None


def test_a_search_in_which_half_of_all_plans_fail_at_random_is_rarely_given_up_later_on() -> None:
    draw, late = random.Random(0), 0
    for _ in range(200):
        text = "".join(draw.choice(".x") for _ in range(100))
        late += text[:8].count("x") < 5 and common_failure(ends(text)) is not None
    assert late <= 4
