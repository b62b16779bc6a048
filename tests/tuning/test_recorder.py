"""What a trial's end leaves behind is whole, whatever comes in between."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnistlab import events
from mnistlab.errors import RunWriteError
from mnistlab.registry import Registry
from mnistlab.tuning.losses import Leftover, Retries
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.recorder import Recorder, _Open
from mnistlab.tuning.refusals import Refusals
from tests.tuning.test_repeats import CONTINUOUS, Asked


def recorder(write: Any, ended: list[Any], emitted: list[events.Event]) -> Recorder:
    spec: Any = SimpleNamespace(search=SimpleNamespace(metric=("val_accuracy",)))
    store: Any = SimpleNamespace(write_trial=write)
    registry: Any = SimpleNamespace(plugins=())
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
        refusals=Refusals(),
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


def test_what_the_disk_refuses_while_a_trial_ends_is_not_taken_for_a_lost_worker() -> None:
    # Tune takes an exception in its searcher's `on_trial_complete` for the failure of the trial.
    made, refusals = recorder(lambda _: None, [], []), Refusals()
    made._refusals = refusals
    with pytest.raises(RunWriteError), refusals.noted():
        raise RunWriteError("can't write study.db: database is locked")
    with pytest.raises(RunWriteError, match=r"study\.db: database is locked"):
        made.on_trial_error(1, [], SimpleNamespace(trial_id="t"))  # type: ignore[arg-type]


@pytest.mark.parametrize("tells", ["on_trial_result", "on_trial_complete"])
def test_what_the_study_refuses_is_noted(tells: str, tmp_path: Path, registry: Registry) -> None:
    asked = Asked(tmp_path, registry, CONTINUOUS, "random")
    refusals = asked.bridge._refusals
    assert asked.bridge.suggest("t")
    with closing(sqlite3.connect(tmp_path / "study.db")) as other:
        other.execute("DROP TABLE trial_intermediate_values")
        other.commit()
    with pytest.raises(RunWriteError, match=r"can't write .*study\.db: no such table") as raised:
        getattr(asked.bridge, tells)("t", {"epoch": 4, "epochs": 4, "val_accuracy": 0.9})
    assert refusals.first is raised.value
