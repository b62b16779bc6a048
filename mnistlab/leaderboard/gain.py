"""What a search has gained over the plan of all defaults: the champion and that plan, compared on fresh seeds.

That is asked in advance, at a level of its own (`question`), and the family takes the answer in, so that no rank says
otherwise. The interval is as wide as that level asks, and holds 0 just where no gain is claimed. Where the plans of the
best standing have unlike seeds, one may be surely better than the plan with the best mean, about which was asked. Then
that one is the champion, and the family alone decides about its gain, at the level of its other pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mnistlab.leaderboard.entries import Entry, difference_of
from mnistlab.leaderboard.family import Standings
from mnistlab.leaderboard.power import POWER
from mnistlab.leaderboard.racing import difference
from mnistlab.leaderboard.statistics import Difference, Interval
from mnistlab.leaderboard.ties import FEWEST, Tie, reference_of, size_text, tie_of
from mnistlab.store.metric import FIXED, Metric
from mnistlab.util.text import ACCURACIES, counted

UNCORRECTED = 2  # the best of so many has the usual interval (see `Question.level`)

Kind = Literal["gained", "tied", "defaults", "behind", "unknown", "failed"]


@dataclass(frozen=True)
class Gain:
    """What came of comparing the champion with `trial`, which had the plan of all defaults.

    `gained`: it is surely better; `tied`: they can't be told apart; `defaults`: it is that plan; `behind`: that plan
    did better, but lacks seeds; `unknown`: fewer than two seeds are shared; `failed`: that plan has no good seed.
    `difference` is by how much the champion is better, of a loss by how much it is lower, over the `seeds` that both
    have; None of `defaults` and `failed`. `detectable` is the smallest gain that would have been seen with a chance of
    80 %, None where that is not known. The interval is corrected for the best of `best_of` plans; 0 of them: as those
    of all pairs are. `others` of the search are surely better than the defaults where the champion is not.
    """

    kind: Kind
    trial: str
    seeds: int
    difference: Difference | None = None
    detectable: float | None = None
    best_of: int = 0
    others: int = 0


def gain_of(judged: Standings, metric: str) -> Gain | None:
    """Return what the search of the champion's run has gained, or None where no fresh seeds of the defaults tell."""
    champion = judged.found[0]
    name = champion.record.baseline
    places = [i for i, one in enumerate(judged.found) if one.record is champion.record and one.trial.trial == name]
    if champion.state != "confirmed" or not places:
        return None
    defaults = judged.found[places[0]]
    if places[0] == 0:
        return Gain("defaults", name, len(defaults.replicates))
    if defaults.state != "confirmed":
        return Gain("failed", name, defaults.lost) if defaults.lost else None
    return _compared(judged, champion, places[0], metric)


def _compared(judged: Standings, champion: Entry, place: int, metric: str) -> Gain:
    family, defaults = judged.family, judged.found[place]
    asked, level = family.asked_of(0, place), family.level_of(0, place)
    seeds = len({r.seed for r in champion.replicates} & {r.seed for r in defaults.replicates})
    gap = difference(champion.replicates, defaults.replicates, metric, 1 - level)
    gap = gap if Metric(metric).higher_is_better else _turned(gap)
    gain = Gain("gained", defaults.trial.trial, seeds, gap, best_of=asked.best_of if asked else 0)
    if place in family.below[0]:
        return gain
    gain = replace(gain, others=sum(judged.found[i].record is champion.record for i in family.above[place]))
    if (place, 0) in family.overruled:
        return replace(gain, kind="behind")
    if (seeds < 2 and metric not in FIXED) or champion.left or defaults.left:
        return replace(gain, kind="unknown")
    return replace(gain, kind="tied", detectable=_tie((champion, defaults), metric, level).detectable)


def _turned(gap: Difference) -> Difference:
    return replace(gap, mean=-gap.mean, interval=Interval(-gap.interval.high, -gap.interval.low))


def _tie(pair: tuple[Entry, Entry], metric: str, level: float) -> Tie:
    return tie_of(*pair, metric, difference_of(*pair, metric), level, reference_of(pair, metric))


# --- in words -----------------------------------------------------------------------------------------------------


def gain_text(metric: str, gain: Gain) -> str:
    """Return what searching has gained, in a sentence."""
    if gain.kind == "defaults":
        return "The defaults themselves won: searching gained nothing."
    if gain.kind == "failed":
        each = "their only fresh seed" if gain.seeds == 1 else f"each of {counted(gain.seeds, 'fresh seed')}"
        return f"The defaults came to nothing with {each}: what searching gained has no number."
    if gain.others:
        return _of_others(gain)
    if gain.kind == "behind":
        return "Searching gained nothing: the defaults did better on the seeds they share with the champion."
    if gain.kind == "unknown":
        return _too_few(metric, gain)
    return _gained(metric, gain) if gain.kind == "gained" else _nothing(metric, gain)


def _gained(metric: str, gain: Gain) -> str:
    assert gain.difference is not None
    found, interval = gain.difference, gain.difference.interval
    said = f"Searching gained {_amount(metric, found.mean)}{_unit(metric)} over the defaults"
    if found.exact:
        return f"{said}, whatever the seed."
    if found.tied:  # the family knows of a plan between them
        return f"{said}, which the other plans tell."
    where = "" if found.images else ", of other seeds on the same images"
    ends = f"{_amount(metric, interval.low)} to {_amount(metric, interval.high)}"
    return f"{said} (95 % interval{_corrected(gain)} {ends}{where})."


def _corrected(gain: Gain) -> str:
    """Return for what the interval is wider than that of a single pair."""
    if not gain.best_of:
        return ", corrected for all pairs:"
    return f", corrected for the best of {gain.best_of}:" if gain.best_of > UNCORRECTED else ""


def _nothing(metric: str, gain: Gain) -> str:
    if gain.difference is not None and gain.difference.exact:
        return f"Searching gained nothing in {metric}: the champion has what the defaults have."
    said = f"Searching gained nothing that {counted(gain.seeds, 'seed')} could show"
    if gain.detectable is None:
        few = f"{gain.seeds} are too few to say" if gain.seeds < FEWEST else "it is not known"
        return f"{said}; {few} how large a gain would have been seen."
    if metric in ACCURACIES and gain.detectable >= 1:
        return f"{said}; they could hardly show any gain."
    seen = f"a gain above {size_text(metric, gain.detectable)}{'' if metric in ACCURACIES else _unit(metric)}"
    return f"{said}; {seen} would have been seen ({100 * POWER:.0f} % power)."


def _of_others(gain: Gain) -> str:
    better = f"{counted(gain.others, 'other plan')} of the search {'is' if gain.others == 1 else 'are'} surely better"
    if gain.kind == "behind":
        return f"The defaults did better than the champion on the seeds they share, but {better}."
    return f"{counted(gain.seeds, 'shared seed')} can't tell the champion from the defaults, but {better}."


def _too_few(metric: str, gain: Gain) -> str:
    said = f"{counted(gain.seeds, 'shared seed')} can't tell what searching gained over the defaults"
    if gain.difference is None or not gain.seeds:
        return f"{said}."
    ahead = "ahead" if gain.difference.mean >= 0 else "behind"
    return f"{said}: there the champion was {_amount(metric, abs(gain.difference.mean))}{_unit(metric)} {ahead}."


def _amount(metric: str, value: float) -> str:
    """Return a difference without its unit, of accuracies in points."""
    if metric in ACCURACIES:
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if metric in {"parameters", "images_per_second"} else f"{value:.3g}"


def _unit(metric: str) -> str:
    return " points" if metric in ACCURACIES else f" in {metric}"
