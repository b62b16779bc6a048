"""What a run has left undone, and the commands that go on with it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from mnistlab.causes import cause_named
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
    more = _more(state.start.time_budget, state.t)
    found: list[str] = []
    if state.end is None or state.end.exit_code not in _ENDS:
        found.append(f"mnistlab resume {run}")
    elif _time_was_up(state):
        found.append(f"mnistlab resume {run}{more}")
    if state.failed and not all(cause_named(cause).fixed for cause in state.failures):
        found.append(f"mnistlab retry {run} --failed{more}")
    return found


def time_is_up(budget: float, seconds: float) -> bool:
    """Return whether a run that took so long, its confirmation included, may start no trials any more; 0: no budget."""
    return 0 < budget <= seconds


def more_time(budget: float, seconds: float) -> str:
    """Return a larger budget as `--time-budget` takes it: the next multiple that leaves at least half of `budget`."""
    return _duration(math.ceil(budget * math.ceil(seconds / budget + 0.5)))


def _more(budget: float, seconds: float) -> str:
    return f" --time-budget {more_time(budget, seconds)}" if time_is_up(budget, seconds) else ""


def _time_was_up(state: ViewState) -> bool:
    """Return whether the search had more to try when its time budget was spent: what came after it does not count."""
    assert state.start is not None
    return time_is_up(state.start.time_budget, state.searched) and state.finished < state.total


def _duration(seconds: int) -> str:
    """Return a time as `--time-budget` takes it: `90s`, `4m` or `2h`."""
    size, unit = next(one for one in ((3600, "h"), (60, "m"), (1, "s")) if seconds % one[0] == 0)
    return f"{seconds // size}{unit}"
