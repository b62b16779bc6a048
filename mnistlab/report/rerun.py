"""The commands that do a run, or one of its trials, again: on another machine too, where other data may be at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from mnistlab.events import RunResumed, Stamped
from mnistlab.experiment.spec import DataSpec
from mnistlab.report.redact import public_command
from mnistlab.store.layout import PLUGINS
from mnistlab.store.results import RunRecord, TrialResult


def search_command(record: RunRecord, stream: Sequence[Stamped], began: str = "") -> str:
    """Return what has to be typed for the same search: as it was typed, with all that was taken otherwise than asked.

    A run that fell back to another dataset names that one, because elsewhere the one it asked for may be there. `began`
    is the command of the run's first record: the newest record of an amended run has the command that amended it.
    """
    first = public_command(began) if record.number > 1 else str(record.run.get("command", ""))
    told = [one.event for one in stream if isinstance(one.event, RunResumed)]
    later = [public_command(one.command) for one in told if one.changes or one.amended]
    return " && ".join(filter(None, [_with(first, list(_overrides(record.run))), *later]))


def trial_command(run: str, trial: TrialResult, about: Mapping[str, Any]) -> str:
    """Return what has to be typed to train a trial of `run` again, with the plugin files that it needs.

    Those are the run's own copies, which lie in its directory; a newer file is another plugin.
    """
    files = cast("Mapping[str, Any]", about.get("plugin_files") or {})
    parts = [trial.plan.get("model"), trial.plan.get("optimizer"), *(trial.plan.get("transforms") or ())]
    sources = {str(part.get("distribution", "")) for part in parts if part}
    sources.add(str(about["dataset"].get("plugin", "")).rpartition(":")[0])
    needed = [f"--plugin {shlex.quote(f'runs/{run}/{PLUGINS}/{name}')}" for name in files if name in sources]
    return " ".join(["mnistlab reproduce", shlex.quote(run), shlex.quote(trial.trial), *needed])


def _overrides(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings with which the data of a run that fell back to another dataset are the same everywhere."""
    used, asked = run["dataset"], cast("Mapping[str, Any]", run.get("experiment", {}).get("data", {}))
    if not used.get("fallback"):
        return
    yield f"data.dataset={asked.get('offline_fallback') or used['name']}"
    if isinstance(asked.get(str(asked.get("dataset"))), Mapping):  # its table may stay if it is used in some way
        yield f"data.offline_fallback={asked['dataset']}"
    if asked.get("split", used["split"]) != used["split"]:
        yield f"data.split={used['split']}"
    wished, left_out = asked.get("validation", 0), used.get("left_out", 0)
    if (
        wished >= 1 and wished >= (used["train"] + used["validation"] + left_out) / 2
    ):  # as `mnistlab.experiment.dataset` decides
        yield f"data.validation={DataSpec().validation!r}"
    if asked.get("train") is not None and not left_out:  # it was more than the other dataset has
        yield f"data.train={used['train']}"


def _with(command: str, overrides: Sequence[str]) -> str:
    """Return a command line, or a call of `mnistlab.search`, with overrides that come last and so hold."""
    if command.startswith("mnistlab search ") and overrides:
        return f"{command} {shlex.join(word for one in overrides for word in ('--set', one))}"
    if command.startswith("mnistlab.search(") and command.endswith(")") and overrides:
        listed = ", ".join(map(repr, overrides))
        return f"{command[:-2]}, {listed}])" if command.endswith("])") else f"{command[:-1]}, set=[{listed}])"
    return command
