"""The plans that a search looks at before it proposes any: defaults, and what plugins know to be good.

A portfolio is a few plans that are good and unlike each other, found on other tasks: one of them is often close to
what a search would find (M. Feurer and others 2022, "Auto-sklearn 2.0", section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product, zip_longest

from mnistlab.api import Choice, Scalar
from mnistlab.experiment.earlier import Earlier, points
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.points import closest, normalized
from mnistlab.experiment.space import Branch, Parameter, Space, defaults, suggest
from mnistlab.experiment.spec import SearchSpec

SHARE = 3  # of so many trials one, at most, is a look at what is known


def looks_of(search: SearchSpec, earlier: Sequence[Earlier] = ()) -> int:
    """Return how many trials of a search look at what is known.

    It is the plan of all defaults, then those of earlier runs, and with `auto` more.
    """
    return most_looks(search) if search.algorithm == "auto" else 1 + sum(len(run.looks) for run in earlier)


def most_looks(search: SearchSpec) -> int:
    """Return how many trials of a search may look at what is known."""
    return max(1, search.trials // SHARE)


def first_looks(space: Space, earlier: Sequence[Earlier] = ()) -> Iterator[dict[str, Scalar]]:
    """Yield points of a space, each once: the active parameters of each.

    First all defaults, and the best plans of earlier runs; then, in turn, a plan that a plugin offers and the defaults
    of the next model; then the defaults of each model with each other optimizer. In turn, because few plans can be
    looked at early, and both do well (measured: docs/decisions/0034).
    """
    seen: set[str] = set()
    pairs = [defaults(_only(space, *pair)) | _chosen(space, *pair) for pair in product(space.models, space.optimizers)]
    step = len(space.optimizers)
    in_turn = chain.from_iterable(zip_longest(_offered(space), pairs[step::step]))
    for point in chain(pairs[:1], points(earlier), filter(None, in_turn), pairs):
        if (key := canonical(point)) not in seen:
            seen.add(key)
            yield point


def _only(space: Space, model: Branch, optimizer: Branch) -> Space:
    return replace(space, models=(model,), optimizers=(optimizer,))


def _chosen(space: Space, model: Branch, optimizer: Branch) -> dict[str, Scalar]:
    names = {"model": model.name, "optimizer": optimizer.name}
    return {choice.path: names[choice.path] for choice in space.choices()}


def _offered(space: Space) -> Iterator[dict[str, Scalar]]:
    """Yield the points of the plugins' own plans: the first of each plugin, then the second of each, and so on.

    Those of a model or an optimizer that the space lacks come last: little of them is left.
    """
    names = {"model": {one.name for one in space.models}, "optimizer": {one.name for one in space.optimizers}}

    def lacks(wish: Mapping[str, Scalar]) -> bool:
        return any(wish.get(kind, "") not in {"", *known} for kind, known in names.items())

    offers = [
        [_point(space, kind, one, wish) for wish in sorted(one.portfolio, key=lacks)] for kind, one in _branches(space)
    ]
    for turn in zip_longest(*offers):
        yield from (point for point in turn if point)


def _branches(space: Space) -> Iterator[tuple[str, Branch]]:
    yield from (("model", one) for one in space.models)
    yield from (("optimizer", one) for one in space.optimizers)


def _point(space: Space, kind: str, branch: Branch, wish: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the point of a space that is the nearest to what a plugin wishes: it may name what the space lacks."""
    wished, point = {**wish, kind: branch.name}, dict[str, Scalar]()

    def ask(parameter: Parameter) -> Scalar:
        point[parameter.path] = _nearest(parameter, wished.get(parameter.path))
        return point[parameter.path]

    suggest(space, ask)
    return point


def _nearest(parameter: Parameter, value: Scalar | None) -> Scalar:
    """Return the value of a parameter that is the nearest to a wish, its default where nothing is near."""
    domain = parameter.domain
    found = None if value is None else normalized(domain, value)
    if found is not None:
        return found
    if isinstance(domain, Choice) or isinstance(value, (bool, str)) or value is None:
        return parameter.default
    return closest(domain, value)
