"""What a run has left undone, and the commands that resume it or that help after what has failed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from mnistlab.console.state import ViewState
from mnistlab.errors import ExitCode
from mnistlab.training.causes import cause_named
from mnistlab.util.text import by_executor, resume_command

# After these there is nothing to be gone on with as it was: the search has come to its end, or was given up.
_ENDS = frozenset({ExitCode.DONE, ExitCode.NO_TRIAL_SUCCEEDED, ExitCode.TOO_MANY_FAILURES})


def left_undone(state: ViewState, path: Path | str = "") -> list[str]:
    """Return the commands that go on with what a run has left undone, the most important first.

    `path` is its directory; without one it is where its own driver found it.
    """
    if state.start is None:
        return []
    run = shlex.quote(str(path or state.start.directory))
    resume, more = resume_command(path or state.start.directory, state.start.executor), _more(state)
    found: list[str] = []
    if state.end is None or state.end.exit_code not in _ENDS:
        found.append(resume)
    elif _time_was_up(state):
        found.append(f"{resume}{more}")
    if state.failed:
        found += _after_failures(state, run, more)
    return found


# What the same plan with the same seed needs, to end otherwise than by this cause: options of `retry`, and a remark.
# Of any other cause, once what caused it is gone, a second try is all that it needs.
_NEEDS: Mapping[str, tuple[str, str]] = {
    "timeout": (" --set search.trial_timeout=TIME", "with a longer TIME"),
    "hang": (" --set search.stall_timeout=TIME", "with a longer TIME"),
    "memory": (" --set resources.max_parallel=1", ""),
    "version": ("", "with the plugins' versions of this run installed"),
}


def _after_failures(state: ViewState, run: str, more: str) -> Iterator[str]:
    """Yield the commands that can help after what has failed; none that can't."""
    assert state.start is not None
    by = by_executor(state.start.executor)
    of_files = sum(state.file_failures.values())
    causes = [one for one, count in state.failures.items() if count > (of_files if one == "plugin" else 0)]
    if causes := [one for one in causes if not cause_named(one).fixed]:
        needs = [_NEEDS.get(cause, ("", "")) for cause in causes]
        remarks = ", ".join(dict.fromkeys(remark for _, remark in needs if remark))
        options = "".join(dict.fromkeys(option for option, _ in needs))
        yield f"mnistlab retry {run} --failed{options}{more}{by}" + f"  # {remarks}" * bool(remarks)
    for name in state.file_failures:
        yield f"mnistlab search FILE --plugin {name}{by}  # mend it first: this run keeps the source that failed"


def time_is_up(budget: float, seconds: float) -> bool:
    """Return whether a run that took so long, its confirmation included, may start no trials any more; 0: no budget."""
    return 0 < budget <= seconds


def more_time(budget: float, seconds: float, least: float = 0.0) -> str:
    """Return a larger budget as `--time-budget` takes it: the next multiple that leaves half of it, and `least`."""
    return _duration(math.ceil(budget * math.ceil((seconds + least) / budget + 0.5)))


def _more(state: ViewState) -> str:
    assert state.start is not None
    budget = state.start.time_budget
    if not time_is_up(budget, state.t):
        return ""
    return f" --time-budget {more_time(budget, state.t, 0.0 if state.finished else _whole_trial(state))}"


def _whole_trial(state: ViewState) -> float:
    """Return the seconds that a trial's whole budget takes from the start of its worker, as far as any epoch tells."""
    assert state.start is not None
    starting = state.warm_up or state.t - state.began  # where no worker came up, all of the time went there
    return starting + state.start.epochs * state.pace


def _time_was_up(state: ViewState) -> bool:
    """Return whether the search had more to try when its time budget was spent: what came after it does not count."""
    assert state.start is not None
    return time_is_up(state.start.time_budget, state.searched or state.t) and state.finished < state.total


def _duration(seconds: int) -> str:
    """Return a time as `--time-budget` takes it: `90s`, `4m` or `2h`."""
    size, unit = next(one for one in ((3600, "h"), (60, "m"), (1, "s")) if seconds % one[0] == 0)
    return f"{seconds // size}{unit}"
