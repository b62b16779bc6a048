"""The hooks: questions that plugins answer with data. Nothing that a hook is given may be changed by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from mnistlab.api import Dataset, Model, Optimizer, Transform, TrialRecord

hookspec = pluggy.HookspecMarker("mnistlab")


@hookspec
def mnistlab_models() -> Iterable[Model[Any]]:
    """Which model families do you offer?  Asked once, when the plugin is loaded."""
    return ()


@hookspec
def mnistlab_optimizers() -> Iterable[Optimizer[Any]]:
    """Which optimizers do you offer?  Asked once, when the plugin is loaded."""
    return ()


@hookspec
def mnistlab_transforms() -> Iterable[Transform[Any]]:
    """Which data transforms do you offer?  Asked once, when the plugin is loaded."""
    return ()


@hookspec
def mnistlab_datasets() -> Iterable[Dataset[Any]]:
    """Which datasets do you offer?  Asked once, when the plugin is loaded."""
    return ()


@hookspec
def mnistlab_trial_finished(trial: TrialRecord) -> None:
    """A trial has ended, in whatever way.  Look, do not touch; your error is logged and the search goes on."""
