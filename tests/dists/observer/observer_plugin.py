"""It looks at trials that have ended."""

from __future__ import annotations

from mnistlab.api import hookimpl

seen = []


@hookimpl
def mnistlab_trial_finished(trial):
    seen.append(trial.trial)
