"""What is kept from Ray Tune."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import tune
from ray.air._internal import usage

from mnistlab.tuning.ray import executor as ours


class Seen(tune.Callback):
    pass


def test_tune_does_not_import_trackers_to_count_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[object] = []
    monkeypatch.setattr(usage, "_count_callbacks", counted.append)
    assert "air_usage.tag_callbacks(callbacks)" in Path(tune.tune.__file__).read_text()  # what is kept from it
    before = usage.tag_callbacks
    with ours._uncounted():
        usage.tag_callbacks([Seen()])
    assert (counted, usage.tag_callbacks) == ([], before)
