"""Which training of a run is meant, and its weights. Nothing here is chosen by what the test set said."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnistlab.errors import MnistlabError, near_miss
from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.store.results import ReplicateResult, RunRecord, TestScore, TrialResult
from mnistlab.util.text import listed


class NoSuchModelError(MnistlabError):
    """A trial or a replicate that was named, or is meant by naming none, and is not there."""

    exit_code = MnistlabError.exit_code.USAGE


@dataclass(frozen=True)
class Chosen:
    """One training of a run: a replicate of a trial's plan or, without one, the trial itself.

    Or an ensemble of several replicates, `members`.
    """

    record: RunRecord
    board: Leaderboard
    trial: TrialResult
    replicate: ReplicateResult | None
    members: tuple[ReplicateResult, ...] = ()

    @property
    def result(self) -> TrialResult | ReplicateResult:
        """Return what the run knows of this training."""
        return self.replicate or self.trial

    @property
    def plan(self) -> Mapping[str, Any]:
        """Return the plan that was trained."""
        return self.trial.plan

    @property
    def models(self) -> tuple[ReplicateResult, ...]:
        """Return the replicates whose weights are meant: one, or those of the ensemble."""
        return self.members or ((self.replicate,) if self.replicate else ())

    @property
    def test(self) -> TestScore | None:
        """Return what these models have scored in the opening of the test set."""
        if self.members:
            one = self.record.ensemble
            return one.test if one and one.weights_sha256 == tuple(m.weights_sha256 for m in self.members) else None
        return self.replicate.test if self.replicate else None

    @property
    def validated(self) -> bool:
        """Return whether none of these models was trained on a validation image of another one, as far as is known."""
        one = self.record.ensemble
        apart = any(other.split != self.models[0].split for other in self.models)
        return not (apart or (self.members and self.test and one and one.val_accuracy is None))

    @property
    def title(self) -> str:
        """Return for example `trial 0007, replicate 1`, or `trial 0007, replicates 1, 2 and 3 together`."""
        if self.members:
            return f"trial {self.trial.trial}, replicates {listed([str(m.replicate) for m in self.members])} together"
        number = f", replicate {self.replicate.replicate}" if self.replicate else ""
        return f"trial {self.trial.trial}{number}"


def training_of(record: RunRecord, trial: str | None, replicate: int | None) -> Chosen:
    """Return the training to do again: the champion's first replicate where no trial is named, else the trial itself.

    Of a plan of all defaults that no trial had, it is the first replicate too.

    Raises:
        NoSuchModelError: if there is none.
    """
    board = rank(record)
    found = _trial(record, board, trial)
    seeds = _replicates(record, found)
    itself = replicate is None and (not seeds or (trial is not None and found.number >= 0))
    one = Chosen(record, board, found, None if itself else _one_of(seeds, found, replicate))
    if not (one.result.history or one.result.cause):
        raise NoSuchModelError(f"{one.title}: no epoch of it has ended, so there is nothing to compare with")
    return one


def model_of(record: RunRecord, trial: str | None, replicate: int | None) -> Chosen:
    """Return a training whose weights the run kept: of the champion or the trial named, the first seed that succeeded.

    The first, not the one with the best score: the only scores left to go by are those of the test set.

    Raises:
        NoSuchModelError: if there is none.
    """
    board = rank(record)
    found = _trial(record, board, trial)
    return Chosen(record, board, found, _one_of(_kept(record, found), found, replicate))


def ensemble_of(record: RunRecord, trial: str | None) -> Chosen:
    """Return the models of all seeds of the champion, or of the trial named: those that were evaluated together.

    Where none were, they are all whose weights the run kept.

    Raises:
        NoSuchModelError: if there are fewer than two.
    """
    board = rank(record)
    found = _trial(record, board, trial)
    kept, scored = _kept(record, found), record.ensemble
    chosen = scored.replicates if scored and scored.trial == found.trial else tuple(sorted(kept))
    if missing := [str(number) for number in chosen if number not in kept]:
        raise NoSuchModelError(f"trial {found.trial}: of its ensemble replicate {listed(missing)} is missing")
    if len(chosen) < 2:
        more = f"mnistlab confirm {shlex.quote(record.path)} --seeds 5"
        raise NoSuchModelError(f"trial {found.trial} has one model, and an ensemble is made of two or more; {more}")
    return Chosen(record, board, found, None, tuple(kept[number] for number in chosen))


def _kept(record: RunRecord, found: TrialResult) -> Mapping[int, ReplicateResult]:
    """Return the replicates of a trial whose weights the run kept.

    Raises:
        NoSuchModelError: if there are none.
    """
    kept = {r.replicate: r for r in _replicates(record, found).values() if r.weights_sha256 and not r.cause}
    if not kept:
        others = sorted({r.trial for r in record.replicates if r.weights_sha256})
        hint = f"this run has those of trial {listed(others)}" if others else "this run confirmed none"
        raise NoSuchModelError(f"trial {found.trial}: weights are kept of confirmed plans only, and {hint}")
    return kept


def _trial(record: RunRecord, board: Leaderboard, name: str | None) -> TrialResult:
    if name is None:
        if board.champion is None:
            raise NoSuchModelError(f"{record.path}: no trial used its full budget, so there is no champion; name one")
        name = board.champion.trial
    name = record.called(name)
    for trial in record.plans:
        if trial.trial == name or (name.isdecimal() and trial.number == int(name)):
            return trial
    rest = f"mnistlab leaderboard {shlex.quote(record.path)}"
    hint = near_miss(name, [trial.trial for trial in record.plans], rest)
    raise NoSuchModelError(f"{record.path}: no trial '{name}' has ended" + (f"; {hint}" if hint else ""))


def _replicates(record: RunRecord, trial: TrialResult) -> dict[int, ReplicateResult]:
    return {r.replicate: r for r in record.replicates if r.trial == trial.trial}


def _one_of(seeds: Mapping[int, ReplicateResult], trial: TrialResult, number: int | None) -> ReplicateResult:
    wanted = min(seeds) if number is None else number
    if wanted not in seeds:
        there = listed([str(n) for n in sorted(seeds)]) or "none"
        raise NoSuchModelError(f"trial {trial.trial} has no replicate {wanted} that can be used; it has: {there}")
    return seeds[wanted]
