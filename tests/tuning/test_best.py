"""Which trial is announced as the best so far."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mnistlab import events
from tests.tuning.test_recorder import recorder


def test_of_losses_the_smallest_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnistlab.tuning.recorder.discard_checkpoints", lambda *_: None)
    emitted: list[events.Event] = []
    made = recorder(lambda _: None, [], emitted)
    made._spec.search.metric = ("val_loss",)  # type: ignore[misc]
    made._store.path = Path()
    for name, loss in (("0001", 0.3), ("0002", 0.4), ("0003", 0.2)):
        history, last = [{"val_loss": loss}], {"epoch": 1, "epochs": 1, "val_loss": loss}
        made._open[name] = replace(made._open["t"], name=name, history=history, last=last)
        made._end(name)
    assert [one.value for one in emitted if isinstance(one, events.BestChanged)] == [0.3, 0.2]
