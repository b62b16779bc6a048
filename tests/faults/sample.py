"""A small run written through every way into a run directory, and what a reader may find of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mnistlab import events
from mnistlab.store import RunWriter, create_run, pack_per_image
from mnistlab.store.checkpoints import discard_checkpoints, write_checkpoint
from mnistlab.store.ends import end_event
from mnistlab.store.fsck import Finding, check
from mnistlab.store.layout import trial_name
from mnistlab.store.results import ReplicateResult, State, TestScore, TrialResult

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DAY = datetime(2026, 11, 25, tzinfo=UTC)
WEIGHTS = b"not really weights, but what has a sha256" * 4
STATES: tuple[State, ...] = ("complete", "pruned", "failed", "interrupted")


def history(epochs: int) -> tuple[dict[str, float], ...]:
    return tuple({"val_accuracy": 0.5 + epoch / 100, "val_loss": 1.0 / epoch} for epoch in range(1, epochs + 1))


def result(number: int, state: State, epochs: int = 2) -> TrialResult:
    return TrialResult(
        trial=trial_name(number),
        number=number,
        state=state,
        seed=7 + number,
        plan={"width": number},
        label=f"mlp width={number}",
        history=history(epochs),
        metrics={**history(epochs)[-1], "parameters": 10} if epochs else {},
        seconds=0.25,
        cause="nan" if state == "failed" else "",
        message={"failed": "val_loss is nan", "interrupted": "Ctrl-C"}.get(state, ""),
    )


def begin(one: TrialResult) -> events.TrialStarted:
    return events.TrialStarted(trial=one.trial, number=one.number, seed=one.seed, label=one.label, plan=one.plan)


def epoch(one: TrialResult, number: int) -> events.TrialEpoch:
    return events.TrialEpoch(trial=one.trial, epoch=number, epochs=2, metrics=one.history[number - 1])


def write_trial(writer: RunWriter, one: TrialResult) -> None:
    """As the recorder of a search does it: the result first, then the event."""
    writer.append(begin(one))
    for number in range(1, len(one.history) + 1):
        writer.append_log(one.trial, f"epoch {number}\n")
        writer.append(epoch(one, number))
        if one.number == 0:
            write_checkpoint(writer, one.trial, number, "val_accuracy", 0.5, b"state" * number)
    writer.write_trial(one)
    writer.append(end_event(one))
    discard_checkpoints(writer.path, one.trial)


def write_run(writer: RunWriter) -> None:
    """Write all kinds of files of a run."""
    writer.append(events.RunPreparing(run="sample", step="writing"))
    writer.write_plugin("tiny.py", "# a plugin\n")
    writer.write_run({"run": "sample", "metric": "val_accuracy", "experiment": {"search": {"scheduler": "asha"}}})
    writer.append(events.Warned(message="begun"))
    for number, state in enumerate(STATES):
        write_trial(writer, result(number, state))
    writer.append_confirmation({"type": "planned", "trials": ["0000"], "seeds": 1})
    _confirm(writer)
    writer.append(events.RunFinished(outcome="done", exit_code=0, counts={"complete": 1}, seconds=1.0))


def _confirm(writer: RunWriter) -> None:
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    about: dict[str, Any] = {"trial": "0000", "replicate": 1, "seed": 99}
    losses, per_image = pack_per_image({"val_loss": np.array([0.25, 1.75])})
    one = ReplicateResult(**about, metrics=history(1)[0], history=history(1), weights_sha256=sha256, val_correct="01")
    one = replace(one, per_image=per_image)
    writer.append(events.ReplicateStarted(**about))
    writer.write_replicate(one, WEIGHTS, losses)
    writer.append(events.ReplicateFinished(**about, metrics=one.metrics, seconds=one.seconds))
    writer.append_ledger({"type": "opened", "models": [about]})
    writer.append_ledger({"type": "evaluated", **about, "correct": 1})
    score = TestScore(correct=1, images=2, loss=0.5)
    writer.write_replicate(ReplicateResult(**{**vars(one), "test": score, "test_correct": "01"}))


def whole_run(root: Path) -> Path:
    path = create_run(root, "sample", DAY)
    writer = RunWriter(path)
    write_run(writer)
    writer.close()
    return path


def faults(run: Path) -> list[Finding]:
    return [one for one in check(run).findings if one.level == "fault"]


def attempt(path: Path, work: Callable[[RunWriter], None]) -> None:
    """Open, work and close; closing lets go of the lock whatever happens."""
    writer = RunWriter(path)
    try:
        work(writer)
    finally:
        writer.close()
