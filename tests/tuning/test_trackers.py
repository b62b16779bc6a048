"""Other programs' records of a search: read back with their own readers, and never in the way of the search."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ray.tune.logger import LoggerCallback

from mnistlab import events
from mnistlab.errors import SpecError
from mnistlab.events import Event, Stamped
from mnistlab.tuning import trackers
from mnistlab.tuning.trackers import Tracking, check_trackers, tracking

PLAN = {
    "model": {"name": "mlp", "config": {"depth": 2}},
    "optimizer": {"name": "sgd", "config": {"lr": 0.1}},
    "training": {"epochs": 2},
}


def trial(name: str = "0000", end: type[Event] = events.TrialFinished) -> Iterator[Event]:
    yield events.TrialStarted(trial=name, number=int(name), seed=5, label="mlp", plan=PLAN)
    for epoch in (1, 2):
        metrics = {"val_accuracy": epoch / 10, "val_loss": float("nan")}
        yield events.TrialEpoch(trial=name, epoch=epoch, epochs=2, metrics=metrics)
    if end is events.TrialFailed:
        yield events.TrialFailed(trial=name, epoch=2, cause="nan", message="val_loss is nan", log="log.txt")
    else:
        yield events.TrialFinished(trial=name, epoch=2, metrics={"val_accuracy": 0.2}, seconds=1.0)


def replicate() -> Iterator[Event]:
    about = {"trial": "0000", "replicate": 1}
    yield events.ReplicateStarted(**about, seed=9)
    yield events.ReplicateEpoch(**about, epoch=1, epochs=1, metrics={"val_accuracy": 0.7})
    yield events.ReplicateFinished(**about, seed=9, metrics={"val_accuracy": 0.7}, seconds=1.0)


def feed(track: Tracking, *streams: Iterable[Event]) -> list[str]:
    said: list[str] = []
    for seq, event in enumerate((event for stream in streams for event in stream), 1):
        said += track(Stamped(seq=seq, time=datetime.now(UTC), t=0.0, event=event))
    return [*said, *track.finish()]


class Kept(LoggerCallback):
    """Keeps what it is told; fails at the result of `fails_at`."""

    def __init__(self, fails_at: str = "") -> None:
        self.told: list[tuple[str, str]] = []
        self._fails_at = fails_at

    def log_trial_start(self, trial: Any) -> None:
        self.told.append(("start", trial.name))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if trial.name == self._fails_at:
            raise ConnectionError("the server\nhas gone")
        self.told.append((f"epoch {iteration}", trial.name))

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self.told.append(("failed" if failed else "end", trial.name))


@pytest.fixture
def opened_as(monkeypatch: pytest.MonkeyPatch):
    """Let a name stand for this callback."""

    def use(name: str, callback: LoggerCallback) -> None:
        monkeypatch.setattr(trackers, "_OPENERS", {**trackers._OPENERS, name: lambda path, experiment: callback})

    return use


def test_what_is_unknown_or_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError) as caught:
        check_trackers(["tensorbord", "mlflow"])
    text = str(caught.value)
    assert "did you mean 'tensorboard'?" in text
    assert "needs the package mlflow: pip install 'mnistlab[trackers]'" in text


def test_a_tracker_named_twice_is_written_once() -> None:
    assert check_trackers(["tensorboard", "tensorboard"]) == ("tensorboard",)


def test_one_that_fails_is_given_up_and_the_other_goes_on(opened_as, tmp_path: Path) -> None:
    good, bad = Kept(), Kept(fails_at="0001")
    opened_as("tensorboard", good)
    opened_as("mlflow", bad)
    with tracking(("mlflow", "tensorboard"), tmp_path, "x") as track:
        said = feed(track, trial("0000"), trial("0001", events.TrialFailed), trial("0002"))
    assert said == ["--log mlflow: ConnectionError: the server has gone; nothing more is written there"]
    assert good.told[4:8] == [("start", "0001"), ("epoch 1", "0001"), ("epoch 2", "0001"), ("failed", "0001")]
    assert ("end", "0002") in good.told
    assert bad.told[-1] == ("start", "0001")


def test_epochs_of_a_trial_that_is_trained_anew_at_each_rung_are_counted_on(opened_as, tmp_path: Path) -> None:
    opened_as("tensorboard", kept := Kept())
    start, first, *_ = trial()
    again = events.TrialStarted(trial="0000", number=0, seed=5, label="mlp", plan=PLAN, rung=1, waited="paused")
    paused = events.TrialPaused(trial="0000", rung=0, budget=0.5, metrics={}, seconds=1.0)
    with tracking(("tensorboard",), tmp_path, "x") as track:
        feed(track, [start, first, paused, again, *list(trial())[1:]])
    assert [what for what, _ in kept.told if what.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]


def test_one_that_cannot_be_opened_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path, experiment: str) -> LoggerCallback:
        raise OSError("no such server")

    monkeypatch.setattr(trackers, "_OPENERS", {"mlflow": refuse})
    with tracking(("mlflow",), tmp_path, "x") as track:
        assert feed(track, trial()) == ["--log mlflow: OSError: no such server; nothing more is written there"]


def test_one_that_hangs_delays_neither_the_search_nor_its_end_for_long(opened_as, tmp_path: Path) -> None:
    release, ticks = threading.Event(), []

    class Hanging(Kept):
        def log_trial_start(self, trial: Any) -> None:
            release.wait(60)

    opened_as("mlflow", Hanging())
    try:
        with tracking(("mlflow",), tmp_path, "x") as track:
            for seq, event in enumerate(trial(), 1):
                assert not list(track(Stamped(seq=seq, time=datetime.now(UTC), t=0.0, event=event)))
            (said,) = track.finish(wait=0.3, tick=lambda: ticks.append(1))
            assert "still writing after 0.3 s" in said
            assert ticks
    finally:
        release.set()


def test_without_trackers_there_is_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with tracking((), tmp_path, "x") as track:
        assert feed(track, trial()) == []
        assert threading.active_count() == before


def test_the_thread_ends_with_the_run_even_where_nobody_waits_for_it(opened_as, tmp_path: Path) -> None:
    opened_as("mlflow", Kept())
    with tracking(("mlflow",), tmp_path, "x") as track:
        thread = track._thread
        assert thread is not None
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a TensorBoard folder: the records' own format, read with tensorboardX's messages."""
    from tensorboardX.proto.event_pb2 import Event as Record

    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            record = Record.FromString(data[12 : 12 + length])
            for value in record.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((record.step, round(value.simple_value, 6)))
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_epoch_of_trials_and_replicates(tmp_path: Path) -> None:
    with tracking(("tensorboard",), tmp_path, "x") as track:
        assert feed(track, trial(), replicate()) == []
    assert scalars(tmp_path / "tensorboard" / "0000")["ray/tune/val_accuracy"] == [(1, 0.1), (2, 0.2)]
    assert scalars(tmp_path / "tensorboard" / "0000-replicate-1")["ray/tune/val_accuracy"] == [(1, 0.7)]


@pytest.mark.simulated  # it imports a lot, and has a database
def test_mlflow_gets_settings_metrics_and_how_it_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow.tracking", reason="needs the extra mnistlab[trackers]").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address := f"sqlite:///{tmp_path / 'there.db'}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    with tracking(("mlflow",), tmp_path / "x-1", "x") as track:
        assert feed(track, trial(), trial("0001", events.TrialFailed)) == []
    there = client(tracking_uri=address)
    experiment = there.get_experiment_by_name("x")
    runs = {run.info.run_name: run for run in there.search_runs([experiment.experiment_id])}
    first = runs["x-1/0000"]
    assert first.data.params["model.mlp.depth"] == "2"
    assert first.data.params["seed"] == "5"
    assert first.data.tags["mnistlab_run"] == "x-1"
    assert [(m.step, m.value) for m in there.get_metric_history(first.info.run_id, "val_accuracy")] == [
        (1, 0.1),
        (2, 0.2),
    ]
    assert {name: run.info.status for name, run in runs.items()} == {"x-1/0000": "FINISHED", "x-1/0001": "FAILED"}


def test_a_tracker_does_not_write_where_a_link_leads(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / "tensorboard").mkdir(parents=True)
    (run / "tensorboard/0000").symlink_to(elsewhere)
    with tracking(("tensorboard",), run, "tiny") as track:
        (said,) = feed(track, trial())
    assert "tensorboard/0000: it is a symbolic link; nothing more is written there" in said
    assert list(elsewhere.iterdir()) == []


def test_a_tracker_that_fails_tells_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_path: Path, _experiment: str) -> LoggerCallback:
        raise ConnectionError("nobody answers at https://ann:pa55@example.invalid/api")

    monkeypatch.setattr(trackers, "_OPENERS", {"mlflow": refuses})
    with tracking(("mlflow",), tmp_path, "tiny") as track:
        said = feed(track, trial())
    (only,) = said
    assert only.startswith("--log mlflow: ConnectionError: nobody answers at https://***@example.invalid/api; nothing")
