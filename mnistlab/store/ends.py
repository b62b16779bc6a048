"""How the end of a trial is told as an event, and what such an event tells: one rule for all who write and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnistlab import events
from mnistlab.store.layout import LOG, in_trial
from mnistlab.store.results import State, TrialResult, epochs_of

TrialEnd = events.TrialFinished | events.TrialPruned | events.TrialInterrupted | events.TrialFailed
STATES: Mapping[type[events.Event], State] = {
    events.TrialFinished: "complete",
    events.TrialPruned: "pruned",
    events.TrialInterrupted: "interrupted",
    events.TrialFailed: "failed",
}
"""The state in which a trial has ended, by the event that tells its end."""


def end_event(result: TrialResult) -> events.Event:
    """Return the event that tells the end of a trial."""
    about: dict[str, Any] = {"trial": result.trial, "epoch": len(result.history)}
    if result.state == "failed":
        log = in_trial(result.trial, LOG)
        return events.TrialFailed(**about, cause=result.cause, message=result.message, log=log)
    about |= {"metrics": result.metrics, "seconds": result.seconds}
    if result.state == "complete":
        return events.TrialFinished(**about)
    about["epochs"] = epochs_of(result)
    if result.state == "interrupted":
        return events.TrialInterrupted(**about, reason=result.message)
    return events.TrialPruned(**about)
