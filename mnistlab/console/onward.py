"""What a run has left undone, and the commands that go on with it."""

from __future__ import annotations

import shlex
from pathlib import Path

from mnistlab.console.state import ViewState
from mnistlab.errors import ExitCode

# After these there is nothing to be gone on with as it was: the search has come to its end, or was given up.
_ENDS = frozenset({ExitCode.DONE, ExitCode.NO_TRIAL_SUCCEEDED, ExitCode.TOO_MANY_FAILURES})


def left_undone(state: ViewState, path: Path | str = "") -> list[str]:
    """Return the commands that go on with what a run has left undone, the most important first.

    `path` is its directory; without one it is where its own driver found it.
    """
    if state.start is None:
        return []
    run = shlex.quote(str(path or state.start.directory))
    found: list[str] = []
    if state.end is None or state.end.exit_code not in _ENDS:
        found.append(f"mnistlab resume {run}")
    elif _time_was_up(state):
        found.append(f"mnistlab resume {run} --time-budget {_duration(2 * state.start.time_budget)}")
    if state.failed:
        found.append(f"mnistlab retry {run} --failed")
    return found


def _time_was_up(state: ViewState) -> bool:
    """Return whether the search had more to try when its time budget was spent."""
    assert state.start is not None
    budget = state.start.time_budget
    return 0 < budget <= state.t and state.finished < state.total


def _duration(seconds: float) -> str:
    """Return a time as `--time-budget` takes it: `90s`, `4m` or `2h`."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
