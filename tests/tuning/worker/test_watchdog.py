"""The watch of a worker, in a process that it may end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mnistlab.tuning.worker import watchdog
from mnistlab.tuning.worker.watchdog import was_ended
from tests.forked import python

pytestmark = pytest.mark.simulated

PREPARE = """
import sys, time
from mnistlab.tuning.worker.watchdog import Watch
watch = Watch(sys.stdout.fileno(), stall=0.5)
"""


def ends(body: str) -> tuple[int, str]:
    done = python(PREPARE + body)
    return done.returncode, done.stdout + done.stderr


def test_a_process_that_hangs_is_ended_with_its_stacks_also_after_half_a_line() -> None:
    code, said = ends(
        """
sys.stdout.write("|###   |"); sys.stdout.flush()
with watch.over():
    time.sleep(30)
"""
    )
    assert code == 1
    assert was_ended(said)
    assert 'File "<string>", line 8 in <module>' in said


@pytest.mark.parametrize(
    "body",
    [
        "with watch.over():\n    for _ in range(8):\n        time.sleep(0.2); watch.step()",  # slow, and moving
        "with watch.over():\n    watch.step()\ntime.sleep(1)",  # nothing is expected to move between two epochs
        # a step that takes longer than the limit, and less than ten of those before it
        "with watch.over():\n    for _ in range(9):\n        time.sleep(0.3); watch.step()\n    time.sleep(1.5)",
        "watch.step()\ntime.sleep(1)",  # a step outside of that sets no clock
    ],
)
def test_a_process_that_moves_or_need_not_is_left_alone(body: str) -> None:
    assert ends(body) == (0, "")


def test_the_time_of_a_trial_that_goes_on_is_told_whole() -> None:
    code, said = ends("watch.begin(2.0, spent=3.0)\nwith watch.over():\n    watch.step()")
    assert code == 1
    assert "TimeLimitError: the trial has had the 2 s that it may take" in said


def test_the_steps_of_a_trial_say_nothing_of_those_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now, allowed = 0.0, list[float]()
    clock = SimpleNamespace(
        dump_traceback_later=lambda seconds, **_: allowed.append(seconds), cancel_dump_traceback_later=lambda: None
    )
    monkeypatch.setattr(watchdog, "faulthandler", clock)
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now))
    watched = watchdog.Watch(1, stall=60.0)
    watched.begin(None)
    with watched.over():
        now += 30.0
        watched.step()
    watched.begin(None)
    with watched.over():
        pass
    assert allowed == [60.0, 300.0, 60.0]
