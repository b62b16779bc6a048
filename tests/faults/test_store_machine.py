"""The store against a model in memory: whatever is done in whatever order, and wherever the power fails."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mnistlab import events
from mnistlab.errors import RunDirectoryError
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.store.fsck.repair import end_event
from mnistlab.store.results import State, TrialResult
from tests.faults.sample import DAY, MEMORY, begin, epoch, faults, result

pytestmark = pytest.mark.simulated


class StoreMachine(RuleBasedStateMachine):
    """`running` maps numbers of trials to their epochs, `ended` to results; `synced` is what no crash may cost."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=MEMORY))
        self.running: dict[int, int] = {}
        self.ended: dict[int, TrialResult] = {}
        self.attempts: dict[int, int] = {}  # at those that were begun more than once
        self.told: list[events.Event] = []
        self.synced, self.synced_bytes = 0, 0

    @initialize()
    def open_a_new_run(self) -> None:
        self.path = create_run(self.root, "x", DAY)
        self.writer = RunWriter(self.path)
        self.writer.write_run({"run": "x"})
        self._append(events.RunPreparing(run="x", step="begin"))

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
        shutil.rmtree(self.root)

    def _append(self, event: events.Event, *, durable: bool = False) -> None:
        self.writer.append(event)
        self.told.append(event)
        if durable:
            self.synced, self.synced_bytes = len(self.told), (self.path / "events.jsonl").stat().st_size

    @rule()
    def start(self) -> None:
        number = len(self.running) + len(self.ended)
        self.running[number] = 0
        self._append(begin(result(number, "complete")))

    @precondition(lambda self: any(count < 2 for count in self.running.values()))
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, count in self.running.items() if count < 2]))
        self.running[number] += 1
        self._append(epoch(result(number, "complete"), self.running[number]))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from(["complete", "pruned", "failed", "interrupted"]))
    def end(self, data: st.DataObject, state: State) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        epochs = self.running.pop(number)
        self.ended[number] = result(number, "failed" if state == "complete" and not epochs else state, epochs)
        self.writer.write_trial(self.ended[number])
        self._append(end_event(self.ended[number]), durable=True)

    @rule(part=st.floats(0, 1))
    def crash(self, part: float) -> None:
        """The power fails: of what was not flushed, a beginning of any length is on the disk."""
        self._close()
        stream = self.path / "events.jsonl"
        whole = stream.read_bytes()
        kept = whole[: self.synced_bytes + round(part * (len(whole) - self.synced_bytes))]
        stream.write_bytes(kept)
        assert faults(self.path) == []
        survivors = [stamped.event for stamped in read_events(self.path)]
        assert len(survivors) >= self.synced
        assert survivors == self.told[: len(survivors)]
        self.told = survivors
        self._go_on()

    def _close(self) -> None:
        self.writer.close()
        del self.writer

    @rule()
    def close_and_reopen(self) -> None:
        self._close()
        self._go_on()

    def _go_on(self) -> None:
        """Open the run again, as a later driver does, which begins the trials anew that had not ended."""
        self.writer = RunWriter(self.path)
        self._append(events.RunPreparing(run="x", step="go on"))
        for number in self.running:
            self.running[number] = 0
            self.attempts[number] = self.attempts.get(number, 1) + 1
            self._append(replace(begin(result(number, "complete")), attempt=self.attempts[number]))

    @rule()
    def second_opener(self) -> None:
        with pytest.raises(RunDirectoryError, match="is in use by process"):
            RunWriter(self.path)

    @invariant()
    def everything_is_there_once(self) -> None:
        if not hasattr(self, "writer"):
            return
        stream = list(read_events(self.path))
        assert [stamped.event for stamped in stream] == self.told
        assert [stamped.seq for stamped in stream] == list(range(1, len(stream) + 1))
        assert {one.number: one for one in read_run(self.path).trials} == self.ended
        assert faults(self.path) == []


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=12, stateful_step_count=20, deadline=None, derandomize=True)


@pytest.mark.chaos
class TestStoreMachineAtLength(StoreMachine.TestCase):
    settings = settings(TestStoreMachine.settings, max_examples=400)
