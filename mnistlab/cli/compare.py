"""`mnistlab compare A B`: two trials in pairs, over the same seeds and the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, Runs

if TYPE_CHECKING:
    from mnistlab.leaderboard.compare import Comparison, OnImages
    from mnistlab.leaderboard.statistics import Interval
    from mnistlab.store.results import RunRecord

PAIR = (
    "This judges one pair, named beforehand. A ranking compares all pairs, so a plan must differ by more there to be "
    "told apart."
)


def compare(
    a: Annotated[str, typer.Argument(help="A run, of which the champion is taken, or RUN:TRIAL.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    runs: Runs = RUNS,
) -> None:
    """Compare two confirmed trials, of one run or of two, over the same seeds and images."""
    from mnistlab.console.ranking import result_console
    from mnistlab.leaderboard.compare import compare as compared
    from mnistlab.util.text import encodable, visible

    first, trial_a = _open(a, runs)
    second, trial_b = _open(b, runs, other=(a.removesuffix(f":{trial_a}"), first))
    console = result_console()
    for line in _lines(compared(first, second, trial_a, trial_b)):
        console.print(encodable(visible(line), console.encoding), soft_wrap=True)


def _open(name: str, runs: Path, other: tuple[str, RunRecord] | None = None) -> tuple[RunRecord, str]:
    """Return the run that `name` stands for and the trial in it, "" for the champion.

    Raises:
        NoSuchRunError: if there is none; of a trial that was named alone it says how to name it. `other` is the run
            that it may be of, as it was typed, and its record.
    """
    from mnistlab import store
    from mnistlab.errors import closest

    run, colon, trial = name.rpartition(":")
    try:
        return store.read_run(store.find_run(name, runs)), ""
    except store.NoSuchRunError:
        typed, there = (other[0], [one.trial for one in other[1].plans]) if other else ("", [])
        if name.isdecimal() and (near := closest(name, there)):
            text = f"no run '{name}'; a trial is named with its run: did you mean '{typed}:{near}'?"
            raise store.NoSuchRunError(text) from None
        if not colon:
            raise
    return store.read_run(store.find_run(run, runs)), trial


def _lines(found: Comparison) -> list[str]:
    seeds = ", ".join(map(str, found.seeds))
    lines = [f"A: {found.a}", f"B: {found.b}", f"On {found.dataset}, by {found.metric}; shared seeds: {seeds}", ""]
    for part in found.parts:
        lines += [*_part_lines(part), ""]
    return [*lines, found.sentence(), *([] if found.difference.exact else [PAIR])]


def _part_lines(part: OnImages) -> list[str]:
    """Return the accuracy's difference on one set of images, then each seed's test."""
    lines = [
        f"{part.part} accuracy on {part.images:,} images, A - B: {_points(part.difference.mean)}",
        f"  95 % interval over other seeds and images: {_interval(part.difference.interval)}",
        *_bootstrap_lines(part),
        "  McNemar's exact test of each seed's two models, p after Holm's correction:",
    ]
    for one in part.by_seed:
        test = one.test
        lines.append(
            f"    seed {one.seed}: {test.only_a} images only A got right, {test.only_b} only B; "
            f"p {_p(test.p)}, corrected {_p(one.corrected)}"
        )
    return lines


def _bootstrap_lines(part: OnImages) -> list[str]:
    if part.bootstrap is None:
        return ["  each seed drew its own split: its validation images are others than those of the other seeds"]
    few = " (not to be relied on with so few seeds)" * (len(part.by_seed) < 10)
    return [f"  bootstrap over seeds and images: {_interval(part.bootstrap.interval)}{few}"]


def _interval(interval: Interval) -> str:
    return f"{100 * interval.low:+.2f} to {_points(interval.high)}" if interval.known else "not known"


def _points(value: float) -> str:
    return f"{100 * value:+.2f} points"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
