"""What a trial's end leaves behind is whole, whatever comes in between."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from mnistlab import events
from mnistlab.tuning.losses import Leftover, Retries
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.recorder import Recorder, _Open


def recorder(write: Any, ended: list[Any], emitted: list[events.Event]) -> Recorder:
    spec: Any = SimpleNamespace(search=SimpleNamespace(metric=("val_accuracy",)))
    store: Any = SimpleNamespace(write_trial=write)
    registry: Any = SimpleNamespace(notify=lambda _: [])
    made = Recorder(
        spec,
        None,
        store,
        emitted.append,
        registry,
        ended,
        Interruptions(lambda: ""),
        retries=Retries(more_room=False),
        leftover=lambda _: Leftover(),
    )  # type: ignore[arg-type]
    report = {"epoch": 1, "epochs": 1, "val_accuracy": 0.9}
    made._open["t"] = _Open("0000", 0, 1, {}, 0.0, "", history=[{"val_accuracy": 0.9}], last=report)
    return made


def test_who_insists_while_a_result_is_written_loses_nothing_of_it() -> None:
    ended: list[Any] = []
    emitted: list[events.Event] = []

    def write(_result: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # Python's own handler raises KeyboardInterrupt here, were it not held

    made = recorder(write, ended, emitted)
    with pytest.raises(KeyboardInterrupt):
        made._end("t")
    assert [one.state for one in ended] == ["complete"]
    assert [event.type for event in emitted] == ["trial_finished", "best_changed"]
    made.close()  # and nothing is said twice
    assert len(ended) == 1
