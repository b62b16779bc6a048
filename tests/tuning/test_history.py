"""What earlier drivers have done, as their events tell it."""

from __future__ import annotations

from datetime import UTC, datetime

from mnistlab import events
from mnistlab.tuning.history import Past, past_of

PREPARING = events.RunPreparing(run="x", step="starting Ray")
FINISHED = events.RunFinished(outcome="done", exit_code=0, counts={}, seconds=1.0)


def told(*stream: events.Event) -> Past:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    return past_of(events.Stamped(seq=n, time=now, t=float(n), event=event) for n, event in enumerate(stream, 1))


def started(attempt: int = 1, epoch: int = 0) -> events.TrialStarted:
    return events.TrialStarted(trial="0000", number=0, seed=1, label="x", plan={}, attempt=attempt, epoch=epoch)


def ended_epoch(epoch: int, loss: float) -> events.TrialEpoch:
    return events.TrialEpoch(trial="0000", epoch=epoch, epochs=4, metrics={"val_loss": loss})


def test_a_run_that_a_driver_has_begun_to_prepare_anew_is_not_over() -> None:
    assert told(PREPARING, FINISHED).over
    assert not told(PREPARING, FINISHED, PREPARING).over


def test_epochs_after_the_one_from_which_a_trial_has_begun_again_are_forgotten() -> None:
    first = (started(), ended_epoch(1, 0.9), ended_epoch(2, 0.8), ended_epoch(3, 0.7))
    again = told(*first, started(attempt=2, epoch=1))
    assert again.trials["0000"].history == {1: {"val_loss": 0.9}}
    assert again.trials["0000"].attempts == 2
    assert [(step.kind, step.epoch) for step in again.steps] == [("started", 0), ("epoch", 1)]
    further = told(*first, started(attempt=2, epoch=1), ended_epoch(2, 0.6))
    assert further.trials["0000"].history == {1: {"val_loss": 0.9}, 2: {"val_loss": 0.6}}
