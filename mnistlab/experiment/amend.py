"""What an amended experiment file adds to the experiment of a run, or a refusal.

A run that goes on may search a larger space, not another one: what has been tried has to stay a part of it, trained and
judged alike. So options may be added to a list, and tables of models, optimizers and transforms to the file. Both sides
are compared as experiments, with every default filled in, not as texts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from mnistlab.api import Choice, Domain, Scalar
from mnistlab.errors import Fault, PluginError, SpecError, short
from mnistlab.experiment.loader import DatasetChoice, Experiment, allowed_by, judge
from mnistlab.experiment.points import normalized, same
from mnistlab.experiment.space import Branch, Space
from mnistlab.experiment.spec import OLD_DEFAULTS, Draft, ExperimentSpec, Table, spec_json, validate
from mnistlab.plugins.discovery import Selection, canonical
from mnistlab.plugins.registry import Kind, Registry, select

Added = dict[str, Any]
"""By dotted key: the options that a list has more, or the settings of an additional table."""

# What a run that goes on may have more of anyway.
GROWING = ("search.trials", "search.time_budget", "search.trial_timeout", "search.stall_timeout", "resources.")
_KINDS: tuple[Kind, ...] = ("model", "optimizer", "transform")
_COMPARED = {"name", "seed", "data", "search", "confirm"}
_FIXED = "can't be changed once a run has begun"
_KEPT = "must keep what it had: trials were made of it"


def read_amended(
    draft: Draft, before: Experiment, wanted: Selection, loaded: Iterable[str]
) -> tuple[Experiment, Registry, Added]:
    """Return the experiment of an amended file, with its plugins, and what it adds to that of a run.

    The plugins are those that the run has `loaded` and those that additional tables name, no others: one that was
    installed meanwhile must not make a name of the run ambiguous, nor watch trials that it did not watch before.

    Raises:
        SpecError: with every fault of the file, and everything in it that is no addition.
    """
    draft = replace(draft, table=_with_old_defaults(draft.table, before.spec))
    wide = select(replace(wanted, allowed=allowed_by(draft.table)))
    needed, unknown = _needed(draft.table, before.space, wide)
    registry = select(wanted.only([*loaded, *needed]))
    try:
        after = judge(draft, registry)
    except SpecError as error:
        faults = [replace(one, rule=unknown.get(one.place, one.rule)) for one in error.faults]
        raise SpecError(draft.source, [*faults, *_other_faults(draft, faults, before, registry)]) from None
    added, faults = additions(before, after)
    if faults:
        raise SpecError(draft.source, faults)
    return after, registry, added


def _with_old_defaults(table: Table, recorded: ExperimentSpec) -> Table:
    """Return a file's table with what a run of an earlier version took for granted, where the file says nothing."""
    had = recorded.model_dump()
    for section, defaults in OLD_DEFAULTS.items():
        given = table.get(section, {})
        if isinstance(given, dict):
            then = {key: value for key, value in defaults.items() if had[section][key] == value}
            # What was taken of earlier runs stays, also where an option named them.
            then |= {"like": list(recorded.search.like)} if section == "search" else {}
            table = {**table, section: {**then, **cast("Table", given)}}
    return table


def _other_faults(draft: Draft, found: Sequence[Fault], before: Experiment, registry: Registry) -> list[Fault]:
    """Return what else is no addition, judged with what the run has in the place of all that was `found` wrong."""
    mended = Draft(draft.source, _as_it_was(draft.table, found, spec_json(before.spec)))
    try:
        others = additions(before, judge(mended, registry))[1]
    except SpecError:  # what is wrong is no setting of a section
        spec, _ = validate(draft)
        others = list(_spec_faults(before.spec, spec)) if spec else []
    places = {fault.place for fault in found}
    return [fault for fault in others if fault.place not in places]


def _as_it_was(table: Table, found: Iterable[Fault], recorded: Mapping[str, Any]) -> Table:
    """Return a file's table with what is recorded in the place of each `section.key` that has a fault, or nothing."""
    mended: Table = copy.deepcopy(table)
    for fault in found:
        section, _, rest = fault.place.partition(".")
        key = rest.partition(".")[0]
        inner, had = mended.get(section), recorded.get(section)
        if not isinstance(inner, dict):
            continue
        was = cast("Table", had).get(key) if isinstance(had, dict) else None
        if was is None:
            cast("Table", inner).pop(key, None)
        else:  # in its own place: the order of transforms is compared too
            cast("Table", inner)[key] = was
    return mended


def additions(before: Experiment, after: Experiment) -> tuple[Added, list[Fault]]:
    """Return what `after` adds to `before`, and a fault for each difference that is no addition."""
    added: Added = {}
    faults = [*_spec_faults(before.spec, after.spec), *_data_faults(before, after), *_allowed(before, after, added)]
    for kind, old, new in _sections(before.space, after.space):
        faults += _tables(kind, old, new, getattr(after.spec, kind), added)
    faults += _settings("training", before.space.training, after.space.training, added)
    return added, faults


def grown(draft: Draft, recorded: ExperimentSpec, after: Experiment) -> dict[str, Any]:
    """Return what of trials, time budget and resources a file says otherwise than the run's record, as it says it.

    Where the file says nothing, or the same, what the run has by now stays; only a grid has all of its points.
    """
    resources = [f"resources.{key}" for key in type(after.spec.resources).model_fields]
    limits = ("search.trial_timeout", "search.stall_timeout")
    found = {
        key: _at(draft.table, key)
        for key in ("search.trials", "search.time_budget", *limits, *resources)
        if _at(draft.table, key) is not None and _setting(after.spec, key) != _setting(recorded, key)
    }
    for key in ("search.trials", "search.time_budget"):  # the command line has asked for more since: that stays
        if key in found and _less(_setting(after.spec, key), _setting(recorded, key)):
            del found[key]
    points = after.spec.search.trials
    if after.spec.search.algorithm == "grid" and _at(draft.table, "search.trials") is None:
        found |= {"search.trials": points} if points > recorded.search.trials else {}
    return found


def _less(one: object, other: object) -> bool:
    return isinstance(one, int | float) and isinstance(other, int | float) and one < other


def _at(table: Table, key: str) -> Any:
    section, _, name = key.partition(".")
    inner = table.get(section)
    return cast("Table", inner).get(name) if isinstance(inner, dict) else None


def _setting(spec: ExperimentSpec, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(spec, section), name)


def _needed(table: Table, space: Space, wide: Registry) -> tuple[list[str], dict[str, str]]:
    """Return the distributions that additional tables need, and by its place what is wrong with each unknown name."""
    needed: list[str] = []
    unknown: dict[str, str] = {}
    for kind, old, _ in _sections(space, space):
        named = table.get(kind)
        for name in cast("Table", named) if isinstance(named, dict) else ():
            try:
                needed += [] if name in {one.name for one in old} else [wide.find(kind, name).distribution]
            except PluginError as error:
                unknown[f"{kind}.{name}"] = str(error)
    return needed, unknown


def _sections(before: Space, after: Space) -> Iterator[tuple[Kind, tuple[Branch, ...], tuple[Branch, ...]]]:
    for kind in _KINDS:
        yield kind, getattr(before, f"{kind}s"), getattr(after, f"{kind}s")


# --- what must stay as it is --------------------------------------------------------------------------------------


def _spec_faults(before: ExperimentSpec, after: ExperimentSpec) -> Iterator[Fault]:
    """Yield a fault for each key of the fixed part that holds another value, but for those that may grow."""
    old, new = _flat(before), _flat(after)
    for key in old:
        if old[key] != new[key] and not key.startswith(GROWING):
            yield _changed(key, old[key], new[key])


def _flat(spec: ExperimentSpec) -> dict[str, Any]:
    body = spec.model_dump(mode="json", include=_COMPARED, exclude={"data": {"settings"}})
    for key in ("validation", "train"):
        body["data"][key] = _as_written(body["data"][key])
    flat: dict[str, Any] = {}
    for key, value in body.items():
        flat |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _as_written(images: float | None) -> float | None:
    """Return a number of images as a whole number, which a share of them is not."""
    return int(images) if images is not None and images >= 1 and float(images).is_integer() else images


def _data_faults(before: Experiment, after: Experiment) -> Iterator[Fault]:
    """Yield a fault for each setting of a dataset that holds another value."""
    pairs = ((before.dataset, after.dataset), (before.fallback, after.fallback))
    for old, new in pairs:
        if old is None or new is None or old.offer.qualified != new.offer.qualified:
            continue  # `_spec_faults` has named it
        was, now, place = _config(old), _config(new), f"data.{new.record.name}"
        yield from (_changed(f"{place}.{key}", was[key], now[key]) for key in was if was[key] != now[key])


def _config(choice: DatasetChoice) -> Mapping[str, Any]:
    return choice.config.model_dump(mode="json")


def _changed(place: str, was: object, now: object) -> Fault:
    return Fault(place, _FIXED, now, f"the run has {short(was)}" if was is not None else "the run has none")


def _allowed(before: Experiment, after: Experiment, added: Added) -> Iterator[Fault]:
    """Let `plugins.allow` grow: an additional table may be of a distribution that it did not name."""
    old, new = before.spec.plugins.allow, after.spec.plugins.allow
    if old is None or new is None:
        if old != new:
            hint = "the run allows every one" if old is None else f"the run allows {', '.join(old)}, and may name more"
            yield Fault("plugins.allow", _FIXED, new and list(new), hint)
        return
    names = {canonical(name) for name in new}
    if missing := [name for name in old if canonical(name) not in names]:
        yield Fault("plugins.allow", _KEPT, list(new), f"add {', '.join(missing)}")
    if more := [name for name in new if canonical(name) not in {canonical(one) for one in old}]:
        added["plugins.allow"] = more


# --- what may grow ------------------------------------------------------------------------------------------------


def _tables(
    kind: Kind, old: tuple[Branch, ...], new: tuple[Branch, ...], tables: Mapping[str, Table], added: Added
) -> Iterator[Fault]:
    """Note additional tables of a kind in `added`; yield what is wrong with those of before."""
    there, known = {one.name: one for one in new}, [one.name for one in old]
    added |= {f"{kind}.{name}": tables[name] for name in there if name not in known}
    for branch in old:
        if branch.name not in there:
            hint = f"write [{kind}.{branch.name}] with the settings that it had"
            yield Fault(f"{kind}.{branch.name}", "is missing: trials were made of it", hint=hint)
        else:
            yield from _settings(f"{kind}.{branch.name}", branch, there[branch.name], added)
    kept = [name for name in there if name in known]
    if kind == "transform" and kept != [name for name in known if name in kept]:
        rule = "must stay in their order, in which they are applied"
        yield Fault(kind, rule, ", ".join(kept), f"the run has {', '.join(known)}")


def _settings(place: str, old: Branch, new: Branch, added: Added) -> Iterator[Fault]:
    """Note additional options of a table in `added`; yield a fault for each other difference."""
    if old.source != new.source:
        here, there = (" ".join((one.get("plugin", ""), one.get("version", ""))) for one in (new.source, old.source))
        yield Fault(place, "must be of the plugin that it was", here, f"the run has {there}")
        return
    was, now = _values(old), _values(new)
    for field in was:
        found = _compared(f"{place}.{field}", was[field], now[field])
        if isinstance(found, Fault):
            yield found
        elif found:
            added[f"{place}.{field}"] = found


def _values(branch: Branch) -> dict[str, Any]:
    """Return each field's fixed value, or the domain in which it is searched."""
    return {**branch.fixed, **{p.path.rpartition(".")[2]: p.domain for p in branch.parameters}}


def _compared(place: str, was: Any, now: Any) -> Fault | list[Scalar]:
    """Return the options that a setting has more than before, none where it is the same, or what is wrong with it."""
    if _same(was, now):
        return []
    listed = isinstance(was, Choice) or isinstance(now, Choice)
    kept, options = (_options(was), _options(now)) if listed else (None, None)
    text = str(was) if isinstance(was, Domain) else short(was)
    value = str(now) if isinstance(now, Domain) else now
    if kept is None or options is None:
        more = "; only options of a list can be added" if isinstance(was, Domain) else ""
        return Fault(place, _FIXED, value, f"the run has {text}{more}")
    if missing := [short(one) for one in kept.options if normalized(options, one) is None]:
        return Fault(place, _KEPT, value, f"the run has {text}: add {', '.join(missing)}")
    return [option for option in options.options if normalized(kept, option) is None]


def _options(setting: Any) -> Choice | None:
    """Return what a setting chooses among; a fixed value is a choice of one. None of a range, a list or a table."""
    if isinstance(setting, Choice):
        return setting
    return Choice(setting) if isinstance(setting, Scalar) else None


def _same(was: Any, now: Any) -> bool:
    """Return whether two settings mean the same: options have no order, and a list is a list wherever it came from."""
    if isinstance(was, Choice) and isinstance(now, Choice):
        return len(was.options) == len(now.options) and all(normalized(now, one) is not None for one in was.options)
    if isinstance(was, Domain) or isinstance(now, Domain):
        return was == now
    return same(was, now) or json.dumps(was, default=str) == json.dumps(now, default=str)
