"""Earlier runs, read so that a search can start from them: their plans in its space, ranked within each run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnistlab.errors import Fault, MnistlabError
from mnistlab.experiment.earlier import Earlier, MisfitError, Result, fitted
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.space import Space
from mnistlab.store import find_run, read_events, read_run
from mnistlab.store.metric import Metric
from mnistlab.store.results import RunRecord, TrialResult, to_json
from mnistlab.training.causes import cause_named
from mnistlab.tuning.history import past_of
from mnistlab.tuning.scores import scores
from mnistlab.util.text import counted

PLACE = "search.like"
KEPT = 256  # results of a run, at most; of more, those at even distances in their order
REASONS = 3  # why plans do not fit, at most, in an error


def taken(
    root: Path, names: Sequence[str], space: Space | None, metric: str
) -> tuple[tuple[Earlier, ...], list[Fault]]:
    """Return what fits a space of the runs that are named, as paths or in the folder `root`, and what is wrong there.

    Without a space, because that has faults of its own, they are only looked for.
    """
    found, faults = dict[Path, Earlier](), list[Fault]()
    for name in names:
        try:
            record = _read(find_run(name, root))
            path = Path(record.path).resolve()
            if path in found:
                faults.append(Fault(PLACE, "must name each run once", name))
            elif space is not None:
                found[path], misfits = earlier_of(record, space, metric)
                faults += _useless(name, found[path], misfits, metric)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            faults.append(Fault(PLACE, f"its record or a plan of it lacks what a search needs: {error}", name))
        except MnistlabError as error:
            faults.append(Fault(PLACE, error.reason, name))
    return tuple(found.values()), faults


def _read(path: Path) -> RunRecord:
    """Return a run with the trials that wait at a rung, which have no result before its search is over."""
    record = read_run(path)
    there = {trial.trial for trial in record.trials}
    waiting = (one for one in past_of(read_events(path)).waiting if one.name not in there)
    found = [
        TrialResult(
            trial=one.name, number=one.number, state="pruned", seed=one.seed, plan=one.plan, label="", rungs=one.rungs
        )
        for one in waiting
    ]
    return replace(record, trials=(*record.trials, *found))


def _useless(name: str, earlier: Earlier, misfits: Counter[str], metric: str) -> Iterator[Fault]:
    """Yield why a run has nothing for a search, if that is so."""
    if earlier.results:
        return
    why = [f"{reason} ({count})" for reason, count in misfits.most_common(REASONS)]
    why += [f"and {len(misfits) - REASONS} reasons more"] * (len(misfits) > REASONS)
    fits = earlier.plans - misfits.total()
    why += [f"{counted(fits, 'plan')} that would fit came to no {metric}"] * bool(fits)
    rule = f"none of the {earlier.plans} plans of the run fits this space: {'; '.join(why)}"
    yield Fault(
        PLACE,
        rule if earlier.plans else "no trial of the run has ended",
        name,
        "name a run on the same space or an overlapping one",
    )


def earlier_of(record: RunRecord, space: Space, metric: str) -> tuple[Earlier, Counter[str]]:
    """Return what fits a space of a run, best first, and how many of its plans do not fit for which reason."""
    beaten, results, misfits = _beaten(record, metric), list[Result](), Counter[str]()
    for trial in record.trials:
        try:
            point = fitted(space, trial.plan)
        except MisfitError as error:
            misfits[str(error)] += 1
            continue
        if trial.number in beaten:
            results.append(Result(trial.trial, point, beaten[trial.number], trial.state == "complete"))
    results.sort(key=lambda one: (-one.beats, one.trial))
    data = record.run["dataset"]
    found = Earlier(
        run=str(record.run.get("run") or Path(record.path).name),
        created=str(record.run.get("created", "")),
        sha256=_digest(record.trials),
        dataset=str(data["name"]),
        images_sha256=str(data.get("images_sha256", "")),
        images=int(data["train"]),
        epochs=int(record.run["experiment"]["training"].get("epochs", 8)),
        plans=len(record.trials),
        results=tuple(results[:: -(-len(results) // KEPT) or 1]),
    )
    return found, misfits


def _digest(trials: Sequence[TrialResult]) -> str:
    whole = hashlib.sha256()
    for trial in trials:
        whole.update(canonical(to_json(trial)).encode() + b"\n")
    return whole.hexdigest()


def _beaten(record: RunRecord, metric: str) -> Mapping[int, float]:
    """Return by number which share of its run each trial beats, by the search's own metric."""
    top = len(record.run.get("rungs", ())) - 1
    told = [_told(trial, Metric(metric), top) for trial in record.trials]
    return {number: value for number, (value,) in scores(told, [StudyDirection.MAXIMIZE]).items()}


def _told(trial: TrialResult, metric: Metric, top: int) -> FrozenTrial:
    """Return a trial with what its values are worth, by rung, or where there are none by epoch."""
    history = dict(enumerate(trial.history, 1))
    if top >= 0:
        history = {rung.rung: rung.metrics for rung in trial.rungs}
        history |= {top: trial.metrics} if trial.state == "complete" else {}
    infeasible = trial.state == "failed" and cause_named(trial.cause).infeasible
    broken = trial.state == "failed" and not infeasible  # by the machine: it says nothing of the plan
    values = {at: metric.worth(one[metric.name]) for at, one in history.items() if metric.name in one}
    found = create_trial(
        state=TrialState.FAIL if broken else TrialState.PRUNED,
        intermediate_values={} if broken else values,
        constraints={trial.cause: 1.0} if infeasible else None,
    )
    found.number = trial.number
    return found
