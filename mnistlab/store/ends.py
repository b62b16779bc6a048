"""How a result is told as an event: one rule for whoever ends a trial and for whoever mends a stream."""

from __future__ import annotations

from typing import Any

from mnistlab import events
from mnistlab.store.results import TrialResult, epochs_of


def end_event(result: TrialResult) -> events.Event:
    """Return the event that tells the end of a trial."""
    about: dict[str, Any] = {"trial": result.trial, "epoch": len(result.history)}
    if result.state == "failed":
        log = f"trials/{result.trial}/log.txt"
        return events.TrialFailed(**about, cause=result.cause, message=result.message, log=log)
    about |= {"metrics": result.metrics, "seconds": result.seconds}
    if result.state == "complete":
        return events.TrialFinished(**about)
    about["epochs"] = epochs_of(result)
    if result.state == "interrupted":
        return events.TrialInterrupted(**about, reason=result.message)
    return events.TrialPruned(**about)
