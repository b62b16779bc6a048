"""What a trial's end leaves behind is whole, whatever comes in between."""

from __future__ import annotations

import json
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
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.store.checkpoints import write_checkpoint
from mnistlab.store.results import TrialResult
from mnistlab.tuning.history import PastTrial
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.recorder import Recorder, _Open
from mnistlab.tuning.retries import Leftover, Retries
from mnistlab.tuning.tune_compat import Refusals
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
    refusals = asked.bridge._options.refusals
    assert asked.bridge.suggest("t")
    with closing(sqlite3.connect(tmp_path / "study.db")) as other:
        other.execute("DROP TABLE trial_intermediate_values")
        other.commit()
    with pytest.raises(RunWriteError, match=r"can't write .*study\.db: no such table") as raised:
        getattr(asked.bridge, tells)("t", {"epoch": 4, "epochs": 4, "val_accuracy": 0.9})
    assert refusals.first is raised.value


class Bridge:
    """As much of a bridge as a recorder asks, noting which trials go on, from what, and whether with more room."""

    def __init__(self, going_on: dict[str, PastTrial] | None = None) -> None:
        self.going_on, self.gone_on, self.failed = going_on or {}, list[tuple[str, bool]](), list[str]()
        self.states = list[bytes | None]()

    def number(self, _trial_id: str) -> int:
        return 0

    def goes_on(self, trial_id: str, _one: PastTrial, state: bytes | None, *, room: bool) -> None:
        self.gone_on.append((trial_id, room))
        self.states.append(state)

    def fails(self, trial_id: str, _lost: object) -> None:
        self.failed.append(trial_id)


def tune_trial(**task: object) -> Any:
    whole = {"seed": 1, "plan": {"model": {"name": "mlp", "config": {}}, "optimizer": {}, "transforms": []}} | task
    return SimpleNamespace(trial_id="t", config={"task": json.dumps(whole)})


def test_a_trial_that_loses_its_worker_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    emitted, bridge = list[events.Event](), Bridge()
    made = recorder(lambda _: None, [], emitted)
    made._spec.search.trial_timeout = None  # type: ignore[misc]
    made._bridge = bridge  # type: ignore[assignment]
    with closing(RunWriter(tmp_path)) as store:
        made._store = store
        write_checkpoint(store, "0000", 1, "val_accuracy", 0.9, b"state")
        made.on_trial_error(1, [], tune_trial())
    assert bridge.states == [b"state"]
    assert [one.epoch for one in emitted if isinstance(one, events.TrialWaiting)] == [1]


def test_a_trial_that_had_all_of_a_device_gets_all_of_one_again_when_it_loses_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnistlab.tuning.recorder.newest_checkpoint", lambda *_: None)
    monkeypatch.setattr("mnistlab.tuning.recorder.plan_label", lambda _: "mlp")
    for room in (False, True):
        bridge, made = Bridge(), recorder(lambda _: None, [], [])
        made._bridge, made._open = bridge, {}  # type: ignore[assignment]
        made._spec.search.trial_timeout = None  # type: ignore[misc]
        made._store = SimpleNamespace(path=tmp_path, append_log=lambda *_, **__: None)  # type: ignore[assignment]
        made.on_trial_start(1, [], tune_trial(room=room))
        made.on_trial_error(1, [], tune_trial(room=room))
        assert bridge.gone_on == [("t", room)]


def test_the_time_of_a_trial_that_goes_on_is_that_of_all_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnistlab.tuning.recorder.plan_label", lambda _: "mlp")
    history = {1: {"seconds": 40.0}, 2: {"seconds": 20.0}}
    made = recorder(lambda _: None, [], [])
    made._open = {}
    made._bridge = Bridge({"t": PastTrial(name="0000", number=0, seed=1, plan={}, history=history)})  # type: ignore[assignment]
    made.on_trial_start(1, [], tune_trial())
    assert 60 <= made._open["t"].seconds < 120


def test_only_what_is_better_than_all_that_earlier_drivers_found_is_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mnistlab.tuning.recorder.discard_checkpoints", lambda *_: None)
    earlier = TrialResult(
        trial="0009", number=9, state="complete", seed=1, plan={}, label="x", metrics={"val_accuracy": 0.95}
    )
    emitted: list[events.Event] = []
    made = recorder(lambda _: None, [earlier], emitted)
    made._store.path = Path()
    made._end("t")  # with 0.9
    assert [event.type for event in emitted] == ["trial_finished"]


def test_a_study_that_is_being_looked_at_is_waited_for(tmp_path: Path, registry: Registry) -> None:
    asked = Asked(tmp_path, registry, CONTINUOUS, "random")
    storage: Any = asked.study._storage
    with storage._backend.engine.connect() as connection:
        (milliseconds,) = connection.exec_driver_sql("PRAGMA busy_timeout").fetchone()
    assert milliseconds == 30_000


def test_a_study_that_is_no_database_any_more_is_told_in_our_words(tmp_path: Path, registry: Registry) -> None:
    asked = Asked(tmp_path, registry, CONTINUOUS, "random")
    (tmp_path / "study.db").write_bytes(b"no database, but as long as one" * 4000)
    with pytest.raises(RunWriteError, match=r"can't write .*study\.db: (file is not a database|.*malformed)"):
        asked.bridge.suggest("t")
