"""The driver of a search: who proposes, who judges, who writes down, within trial, time and failure budgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import optuna

from mnistlab.errors import MachineError
from mnistlab.events import Warned
from mnistlab.experiment.identity import comparable
from mnistlab.store.checkpoints import newest_checkpoint
from mnistlab.store.layout import STUDY
from mnistlab.store.metric import Metric
from mnistlab.store.results import TrialResult
from mnistlab.store.schedulers import traits_of
from mnistlab.tuning.context import Parts, Search
from mnistlab.tuning.history import NOTHING, Past, PastTrial
from mnistlab.tuning.outcome import Interruptions, Outcome, given_up, machine_failure
from mnistlab.tuning.recorder import Recorder
from mnistlab.tuning.retries import Retries
from mnistlab.tuning.schedulers import scheduler
from mnistlab.tuning.schedulers.common import Wanted
from mnistlab.tuning.schedulers.halving import Ladder, factor_of
from mnistlab.tuning.searcher import Bridge, SearcherOptions
from mnistlab.tuning.study import open_study
from mnistlab.tuning.tune_compat import Refusals
from mnistlab.tuning.usage import DiskLowError, shortage
from mnistlab.util.seeds import Stream, derive
from mnistlab.util.signals import signals_held


def run_search(search: Search, ended: list[TrialResult], past: Past = NOTHING) -> None:
    """Run the trials of `search` by its executor; add to `ended` how each of them ended, in that order.

    The list is the caller's, so that it holds what there is even if the search is cut short by an exception. Where the
    run has a `past`, the list holds what ended in it; trials that did not end go on from their checkpoints.
    """
    before, states = len(search.verdicts), _states(search, past)
    past = past.going_on_from({name: epoch for name, (epoch, _) in states.items()})
    parts = _parts(search, ended, past)
    parts.bridge.take_up(past, {name: state for name, (_, state) in states.items()})
    parts.recorder.take_up(past)
    try:
        search.executor.run(search, parts)
    except Exception as error:
        refused = parts.refusals.first
        if refused and error is not refused:  # Tune has wrapped it in one of its own
            raise refused from error
        raise
    finally:
        with signals_held():  # all trials get their end, whoever insists on leaving, and if Ray is found gone only now
            parts.recorder.close()
            parts.bridge.close()
    _check_end(search, parts, search.verdicts[before:])


def _check_end(search: Search, parts: Parts, ended: Sequence[Outcome]) -> None:
    """Find out whether the search ended for want of something; `ended` are the trials that ended in it.

    Raises:
        MachineError: saying of what, if so.
    """
    if (why := machine_failure(ended)) and not search.stopping():
        raise MachineError(f"{why}: mend that, then `{search.again}`")
    if parts.bridge.short and not parts.stopping():
        if search.nodes.shortage():
            raise search.nodes.error()
        raise DiskLowError(f"{parts.bridge.short}, and nothing is running any more: free some, then `{search.again}`")


def _parts(search: Search, ended: list[TrialResult], past: Past) -> Parts:
    """Return who decides and who writes down in a search that goes on from `past`."""
    why = _reasons(search, past)

    def stopping() -> bool:
        return bool(why())

    cut, refusals = Interruptions(why), Refusals()
    bridge = Bridge(_fresh_study(search), search.space, search.spec, _options(search, cut, refusals, stopping))
    recorder = Recorder(
        search.spec,
        bridge,
        search.store,
        search.emit,
        search.registry,
        ended,
        cut,
        search.tick,
        retries=Retries(more_room=search.room is not None, nodes=search.nodes),
        leftover=search.executor.leftover,
        refusals=refusals,
        larger=search.room,
        verdicts=search.verdicts,
    )
    np.random.seed(derive(search.spec.seed, Stream.SAMPLER))  # from there Ray draws a trial's bracket
    judge = scheduler(Wanted(search.spec, search.space, stopping, search.emit, past))
    return Parts(bridge, judge, recorder, cut, refusals, stopping, past.drivers)


def _options(
    search: Search, interruptions: Interruptions, refusals: Refusals, stopping: Callable[[], bool]
) -> SearcherOptions:
    """Return how plans of a search are handed out, and whom its searcher asks and tells."""
    parallel = search.share.parallel
    return SearcherOptions(
        interruptions=interruptions,
        # A population is alive as a whole; otherwise no trial is proposed before there is a worker for it, so that
        # each proposal knows of every result there is.
        parallel=None if traits_of(search.spec.search.scheduler).all_at_once else parallel,
        stopping=stopping,
        shortage=_shortage(search),
        away_from=search.nodes.away_from,
        put=search.executor.put,
        say=lambda text: search.emit(Warned(message=text)),
        emit=search.emit,
        refusals=refusals,
        ladder=Ladder(search.rungs, factor_of(search.spec), parallel) if search.rungs else None,
        earlier=search.earlier,
    )


def _shortage(search: Search) -> Callable[[], str]:
    """Return what says of what there is too little for another trial, or ""; it warns where a disk becomes short.

    Of nodes that lack something, each has been named already.
    """
    before = ""

    def short() -> str:
        nonlocal before
        disk = shortage(search.store.path)
        if disk and not before:
            search.emit(Warned(message=f"{disk}: no trial is started until there is more"))
        before = disk
        return search.nodes.shortage() or disk

    return short


def _reasons(search: Search, past: Past) -> Callable[[], str]:
    """Return what says in words why trials have to end now, or "" while they may go on."""
    budget = search.spec.search.time_budget
    deadline = time.monotonic() + budget - past.seconds if budget else None
    ended = search.verdicts
    before = len(ended)  # what failed under earlier drivers is not this machine's fault now

    def why() -> str:
        if search.stopping():
            return search.reason()
        if _time_is_up(deadline):
            return "time budget"
        return "search given up" if given_up(search.spec, ended) or machine_failure(ended[before:]) else ""

    return why


def _time_is_up(deadline: float | None) -> bool:
    """Return whether the monotonic clock has passed `deadline`."""
    return deadline is not None and time.monotonic() >= deadline


def _fresh_study(search: Search) -> optuna.Study:
    """Return an empty study in `study.db`; one that an earlier driver has left is made anew from the events."""
    path = search.store.path / STUDY
    for old in (path, *(path.with_name(f"{path.name}-{kind}") for kind in ("journal", "wal", "shm"))):
        old.unlink(missing_ok=True)
    return open_study(path, search.spec, search.space, search.earlier, search.looks)


def _states(search: Search, past: Past) -> dict[str, tuple[int, bytes]]:
    """Return epoch and state of the newest whole checkpoint of each trial that goes on and has one.

    The last epoch is trained again: whether the scheduler has judged it, and how, nobody has written down. A population
    keeps it: an older state may be from before the trial took over another one's weights and settings.
    """
    again = 0 if traits_of(search.spec.search.scheduler).copies_states else 1

    def newest(one: PastTrial) -> tuple[int, bytes] | None:
        said = max(one.history, default=0) - again
        return newest_checkpoint(search.store.path, one.name, said, lambda text: search.emit(Warned(message=text)))

    found = {one.name: newest(one) for one in past.unended}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint}


def best_trials(results: Sequence[TrialResult], metric: str, top: int) -> list[TrialResult]:
    """Return the `top` best of the trials that used their full budget, best first; equal ones by their number.

    A plan that was tried several times counts once, by its best trial: its fresh seeds would be the same ones twice.
    """
    cost = Metric(metric).cost
    complete = [result for result in results if result.state == "complete"]
    ordered = sorted(complete, key=lambda r: (cost(r.metrics[metric]), r.number))
    distinct: dict[str, TrialResult] = {}
    for result in ordered:
        distinct.setdefault(comparable(result.plan), result)
    return list(distinct.values())[:top]
