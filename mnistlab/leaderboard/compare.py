"""Two trials, perhaps of two runs, compared in pairs: the same seeds, the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnistlab.errors import MnistlabError, near_miss
from mnistlab.leaderboard.entries import Entry, difference_of
from mnistlab.leaderboard.family import standings
from mnistlab.leaderboard.racing import ALPHA, bits, own_splits
from mnistlab.leaderboard.rows import run_name, splits_of
from mnistlab.leaderboard.statistics import (
    Difference,
    McNemar,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_difference,
    paired_mean_difference,
)
from mnistlab.leaderboard.ties import Tie, reference_of, tie_of, tie_text
from mnistlab.store.metric import FIXED, Metric
from mnistlab.store.results import ReplicateResult, RunRecord
from mnistlab.util.text import ACCURACIES, counted, listed, metric_text

UNIT = " points"
SEED = 20_250_102  # of the bootstrap


class NotComparableError(MnistlabError):
    """Two trials that can't be compared in pairs; the message says why."""

    exit_code = MnistlabError.exit_code.USAGE


@dataclass(frozen=True)
class SeedTest:
    """McNemar's test of the two models of one seed; `corrected` is its p-value after Holm over the seeds."""

    seed: int
    test: McNemar
    corrected: float


@dataclass(frozen=True)
class OnImages:
    """What one set of images says: the difference of mean accuracies a - b, and each seed's test.

    `bootstrap` resamples seeds and images; with few seeds its interval is too narrow, so `difference` decides. It is
    None where each seed has drawn its own split: there no image is of all seeds.
    """

    part: str
    images: int
    difference: Difference
    bootstrap: Difference | None
    by_seed: tuple[SeedTest, ...]


@dataclass(frozen=True)
class Comparison:
    """Two trials over the `seeds` they share. `difference` is of the metric, a - b; `parts` hold what images say.

    `tie` says what a tie of these two could have shown, as a pair that was named beforehand.
    """

    a: str
    b: str
    dataset: str
    metric: str
    seeds: tuple[int, ...]
    difference: Difference
    parts: tuple[OnImages, ...]
    tie: Tie

    def sentence(self) -> str:
        """Return what the comparison comes to, in a sentence."""
        over = f"over {counted(len(self.seeds), 'shared seed')}"
        gain = f"{_signed(self.metric, self.difference.mean)} in {self.metric}"
        if self.difference.exact:
            return self._exactly(gain)
        if len(self.seeds) < 2:
            return f"{self.a} differs from {self.b} by {gain} {over}: one seed says nothing of others."
        interval = self.difference.interval
        if not interval.known:
            same = "the difference is the same with each of them, which says nothing of other seeds"
            return f"{self.a} is tied with {self.b}: {gain} {over}; {same}."
        low, high = _signed(self.metric, interval.low), _signed(self.metric, interval.high)
        about = f"(95 % interval {low.removesuffix(UNIT)} to {high}, {over}{self._claim()})"
        if self.difference.tied:
            return f"{self.a} is tied with {self.b}: {gain} {about}; {tie_text(self.metric, self.tie)}."
        first, second = self._better_first()
        return f"{first} is better than {second} by more than noise: {gain} {about}."

    def _better_first(self) -> tuple[str, str]:
        better = Metric(self.metric).worth(self.difference.mean) > 0
        return (self.a, self.b) if better else (self.b, self.a)

    def _exactly(self, gain: str) -> str:
        """Return the sentence of what the plans alone decide: there is no noise, and no interval."""
        if not self.difference.mean:
            return f"{self.a} and {self.b} are equal in {self.metric}, whatever the seed."
        first, second = self._better_first()
        return f"{first} is better than {second}: {gain}, whatever the seed."

    def _claim(self) -> str:
        """Return what narrows the claim: an interval that does not cover other images."""
        if self.difference.images or self.metric in FIXED:
            return ""
        return "; it covers other seeds only, not other images"


def compare(first: RunRecord, second: RunRecord, trial_a: str = "", trial_b: str = "") -> Comparison:
    """Compare two trials, the champions unless they are named, over the seeds and images that they share.

    Raises:
        NotComparableError: if that can't be done, saying why: other data, other metrics, no such trial, no shared seed.
    """
    _check_runs(first, second)
    metric = str(first.run["metric"])
    a, b = _find(first, trial_a, metric), _find(second, trial_b, metric)
    name_a, name_b = (f"{run_name(e.record)}:{e.trial.trial}" for e in (a, b))
    if name_a == name_b and first.path == second.path:
        raise NotComparableError(f"{name_a} can't be compared with itself")
    splits = {r.seed: r.split for r in b.replicates}
    seeds = sorted(r.seed for r in a.replicates if r.seed in splits and r.split == splits[r.seed])
    if not seeds:
        raise NotComparableError(
            f"{name_a} and {name_b} share no seed ({_seeds(a)} and {_seeds(b)}): only runs of the same `seed` confirm "
            "on the same seeds"
        )
    gap = difference_of(a, b, metric)
    return Comparison(
        a=name_a,
        b=name_b,
        dataset=str(first.run["dataset"]["name"]),
        metric=metric,
        seeds=tuple(seeds),
        difference=gap,
        parts=_parts(a, b, seeds),
        tie=tie_of(a, b, metric, gap, ALPHA, reference_of([a, b], metric)),
    )


def _check_runs(first: RunRecord, second: RunRecord) -> None:
    a, b = (str(record.run["metric"]) for record in (first, second))
    names = f"{run_name(first)} and {run_name(second)}"
    _check_data(names, first.run["dataset"], second.run["dataset"], same=first.path == second.path)
    if splits_of(first) != splits_of(second):
        raise NotComparableError(f"{names} can't be compared: in one of them each seed draws its own split")
    if a != b:
        raise NotComparableError(f"{names} can't be compared: one ranks by {a}, the other by {b}")


def _check_data(names: str, a: Mapping[str, Any], b: Mapping[str, Any], *, same: bool) -> None:
    if a["name"] != b["name"]:
        raise NotComparableError(f"{names} can't be compared: one is on {a['name']}, the other on {b['name']}")
    if _digests(a) != _digests(b):
        raise NotComparableError(f"{names} can't be compared: both are on {a['name']}, but not on the same files")
    if not same and (not a.get("split_sha256") or a.get("split_sha256") != b.get("split_sha256")):
        raise NotComparableError(
            f"{names} can't be compared: their validation images are not the same (another `seed`, or other "
            "settings of [data])"
        )


def _digests(dataset: Mapping[str, Any]) -> str:
    return json.dumps(dataset.get("sha256"), sort_keys=True)


def _find(record: RunRecord, name: str, metric: str) -> Entry:
    """Return the trial `name` of a run, or its champion; it must have been confirmed."""
    found, name = standings([record], metric).found, record.called(name)
    if not name:
        if not found or found[0].state != "confirmed":
            raise NotComparableError(
                f"{run_name(record)} has no confirmed trial: there are no fresh seeds to compare on"
            )
        return found[0]
    chosen = next((entry for entry in found if entry.trial.trial == name), None)
    if chosen is None:
        hint = near_miss(name, [entry.trial.trial for entry in found], f"mnistlab leaderboard {run_name(record)}")
        raise NotComparableError(f"{run_name(record)} has no trial '{name}'{'; ' + hint if hint else ''}")
    if chosen.state != "confirmed":
        confirmed = listed([entry.trial.trial for entry in found if entry.state == "confirmed"]) or "none"
        raise NotComparableError(
            f"trial {name} of {run_name(record)} was not confirmed on fresh seeds; these were: {confirmed}"
        )
    return chosen


def _seeds(entry: Entry) -> str:
    return listed([str(r.seed) for r in entry.replicates])


def _parts(a: Entry, b: Entry, seeds: Sequence[int]) -> tuple[OnImages, ...]:
    found = [_part(part, a, b, seeds) for part in ("validation", "test")]
    return tuple(part for part in found if part)


def _part(part: str, a: Entry, b: Entry, seeds: Sequence[int]) -> OnImages | None:
    """Return what the validation or the test images say, None where outcomes are not known image by image."""
    ours, theirs = ({r.seed: _outcome(r, part) for r in entry.replicates} for entry in (a, b))
    texts = [text for seed in seeds for text in (ours[seed], theirs[seed])]
    if not all(texts) or len({len(text) for text in texts}) != 1:
        return None
    right_a, right_b = bits([ours[seed] for seed in seeds]), bits([theirs[seed] for seed in seeds])
    tests = [mcnemar(x, y) for x, y in zip(right_a, right_b, strict=True)]
    corrected = holm([test.p for test in tests])
    own = own_splits(a.replicates) if part == "validation" else {}
    means = [right.mean(axis=1).tolist() for right in (right_a, right_b)]
    return OnImages(
        part=part,
        images=right_a.shape[1],
        difference=paired_mean_difference(*means, **own) if own else paired_difference(right_a, right_b),
        bootstrap=None if own else paired_bootstrap(right_a, right_b, np.random.default_rng(SEED)),
        by_seed=tuple(map(SeedTest, seeds, tests, corrected)),
    )


def _outcome(replicate: ReplicateResult, part: str) -> str:
    return replicate.val_correct if part == "validation" else replicate.test_correct


def _signed(metric: str, value: float) -> str:
    """Return a difference with its sign, of accuracies in points."""
    sign = "+" if value >= 0 else "-"
    if metric in ACCURACIES:
        return f"{sign}{100 * abs(value):.2f}{UNIT}"
    return f"{sign}{metric_text(metric, abs(value))}"
