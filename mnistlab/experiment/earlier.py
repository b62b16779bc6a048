"""What earlier runs lend to a search: plans that fit its space, and how each of them did among those of its own run.

Values of two runs are never compared: another dataset, another number of images or another budget makes other values
of the same plan. What carries over is the order, so a result is the share of its run's trials that it beats (D. Salinas
and others 2020, "A quantile-based approach for hyperparameter transfer learning").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from pydantic import TypeAdapter

from mnistlab.api import Choice, Domain, Scalar
from mnistlab.errors import short
from mnistlab.experiment.points import normalized
from mnistlab.experiment.space import Branch, Parameter, Space, defaults, suggest
from mnistlab.util.text import counted

GOOD = 1 / 3  # share of a run's trials out of which the plans are that are looked at first
APART = 0.25  # distance between two plans that are unlike each other, in one setting at least; 1 is from end to end
WEIGHT = 0.5  # of a result whose dataset, number of images or budget is another one


@dataclass(frozen=True)
class Result:
    """A plan of an earlier run, as a point of the space that it starts, and the share of its run that it `beats`."""

    trial: str
    point: Mapping[str, Scalar]
    beats: float
    whole: bool  # whether it had its run's full budget


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What was taken of an earlier run; `sha256` is that of its results, `plans` how many it had tried.

    `alike` says whether it had the same images to train on, as many of them, and the same budget. `looks` names the
    trials whose plans are looked at first.
    """

    run: str
    created: str
    sha256: str
    dataset: str
    images_sha256: str
    images: int
    epochs: int
    plans: int
    alike: bool = False
    looks: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()

    def weighed(self) -> Iterator[tuple[Mapping[str, Scalar], float]]:
        """Yield each point with its share, which lies nearer to the middle where the run is not alike."""
        weight = 1.0 if self.alike else WEIGHT
        yield from ((one.point, 0.5 + weight * (one.beats - 0.5)) for one in self.results)


def from_json(entries: object) -> tuple[Earlier, ...]:
    """Return the runs that a record holds under `like`; unknown keys are skipped.

    Raises:
        ValidationError: if something is missing, or is not what it has to be.
    """
    return TypeAdapter(tuple[Earlier, ...]).validate_python(entries)


def text(earlier: Earlier) -> str:
    """Return for example `cnn-2026-11-22-1 on digits: 60 of 64 plans fit, 3 are looked at first; another task`."""
    fit = f"{len(earlier.results)} of {counted(earlier.plans, 'plan')} fit"
    other = "" if earlier.alike else "; other images or another budget, so they count less"
    return f"{earlier.run} on {earlier.dataset}: {fit}, {len(earlier.looks)} of them looked at first{other}"


def compared(earlier: Sequence[Earlier], images_sha256: str, images: int, epochs: int) -> tuple[Earlier, ...]:
    """Return the runs with whether they are alike, now that it is known on what a search trains."""
    wanted = (images_sha256, images, epochs)
    return tuple(replace(one, alike=(one.images_sha256, one.images, one.epochs) == wanted) for one in earlier)


# --- an earlier plan in another space -----------------------------------------------------------------------------


class MisfitError(Exception):
    """A plan that has no place in a space, with the reason in words."""


def fitted(space: Space, plan: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the point of a space that a plan of another one stands for: the active parameters.

    What the space fixes is as the space has it; what the plan lacks (a setting that is new, a transform) is at its
    default.

    Raises:
        MisfitError: if the space has not its model or optimizer, or holds another value of a setting that it searches.
    """
    if plan.get("changes"):
        raise MisfitError("its settings were changed while it was trained")
    model, optimizer = _same("model", space.models, plan), _same("optimizer", space.optimizers, plan)
    names = {"model": model.name, "optimizer": optimizer.name}
    point: dict[str, Scalar] = {choice.path: names[choice.path] for choice in space.choices()}
    transforms = {one["plugin"]: one["config"] for one in plan["transforms"]}
    parts = [(model, plan["model"]["config"]), (optimizer, plan["optimizer"]["config"])]
    parts += [(branch, transforms.get(branch.source["plugin"], {})) for branch in space.transforms]
    for branch, config in [*parts, (space.training, plan["training"])]:
        point |= {one.path: _value(one, config) for one in branch.parameters}
    return point


def _same(kind: str, branches: Sequence[Branch], plan: Mapping[str, Any]) -> Branch:
    part = plan[kind]
    found = next((one for one in branches if one.source["plugin"] == part["plugin"]), None)
    if found is None:
        raise MisfitError(f"{kind} {part['name']} is none of {', '.join(one.name for one in branches)}")
    return found


def _value(parameter: Parameter, config: Mapping[str, Any]) -> Scalar:
    if parameter.field not in config:
        return parameter.default
    found = normalized(parameter.domain, config[parameter.field])
    if found is None:
        value = short(config[parameter.field])
        raise MisfitError(f"{parameter.path} = {value} is not in {parameter.domain}")
    return found


def refitted(earlier: Sequence[Earlier], before: Space, after: Space) -> tuple[Earlier, ...]:
    """Return the runs with their points in a space to which something was added."""

    def moved(one: Result) -> Result:
        return replace(one, point=fitted(after, suggest(before, lambda parameter: one.point[parameter.path])))

    return tuple(replace(run, results=tuple(map(moved, run.results))) for run in earlier)


# --- the plans to look at first -----------------------------------------------------------------------------------


def looked_at(space: Space, earlier: Sequence[Earlier], most: int) -> tuple[Earlier, ...]:
    """Return the runs with the plans that are looked at first, so many at `most`.

    They are the best of each run in turn, unlike the plan of all defaults and those before.
    """
    domains = {one.path: one.domain for one in space.parameters()}
    seen: list[Mapping[str, Scalar]] = [defaults(space)]
    looks: list[tuple[Earlier, str]] = []
    for turn in zip_longest(*([(run, one) for one in _best(run.results)] for run in earlier)):
        for run, one in filter(None, turn):
            if len(looks) < most and all(_distance(domains, one.point, other) >= APART for other in seen):
                seen.append(one.point)
                looks.append((run, one.trial))
    return tuple(replace(run, looks=tuple(trial for of, trial in looks if of is run)) for run in earlier)


def points(earlier: Sequence[Earlier]) -> Iterator[dict[str, Scalar]]:
    """Yield the plans of earlier runs that are looked at first, of one run after the other in turn."""
    known = [{one.trial: dict(one.point) for one in run.results} for run in earlier]
    for turn in zip_longest(*(run.looks for run in earlier)):
        yield from (found[trial] for found, trial in zip(known, turn, strict=True) if trial is not None)


def _best(results: Iterable[Result]) -> list[Result]:
    """Return the best third of a run's results of full budget, but at least one, best first."""
    ordered = sorted(results, key=lambda one: (-one.whole, -one.beats, one.trial))
    return [one for place, one in enumerate(ordered) if not place or (one.whole and one.beats >= 1 - GOOD)]


def _distance(domains: Mapping[str, Domain], one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> float:
    """Return the distance of two points in the setting in which they are the farthest apart."""
    if one.keys() != other.keys():  # of another model or optimizer
        return 1.0
    return max((_apart(domains[path], one[path], other[path]) for path in one), default=0.0)


def _apart(domain: Domain, one: Scalar, other: Scalar) -> float:
    if isinstance(domain, Choice) or isinstance(one, str) or isinstance(other, str):
        return float(one != other)
    ends = (float(domain.low), float(domain.high), float(one), float(other))
    low, high, here, there = map(math.log, ends) if domain.log else ends
    return abs(here - there) / (high - low) if high > low else 0.0
