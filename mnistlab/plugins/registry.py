"""Discovered plugins -> isolated plugins -> records, with where each came from.

Each plugin is loaded alone, with a plugin manager of its own, all or nothing: a
plugin that is broken in whatever way is listed with the reason and hurts nobody else. A name offered twice is refused
only where the bare name is used; `distribution:name` always works.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, cast

import pluggy
from packaging.utils import canonicalize_name as canonical
from pydantic import ValidationError

from mnistlab.api import (
    ENTRY_POINT_GROUP,
    Config,
    Dataset,
    Model,
    Optimizer,
    Record,
    Transform,
    domains,
)
from mnistlab.errors import MissingPluginError, PluginError, near_miss, short
from mnistlab.plugins import hookspecs
from mnistlab.plugins.discovery import EVERYTHING, Found, Selection, discover, fault_of, selection
from mnistlab.util.seal import guarded
from mnistlab.util.text import error_text

Kind = Literal["model", "optimizer", "transform", "dataset"]
Status = Literal["ok", "failed", "disabled", "other API"]

_KINDS: dict[Kind, tuple[str, type[Any]]] = {
    "model": ("mnistlab_models", Model),
    "optimizer": ("mnistlab_optimizers", Optimizer),
    "transform": ("mnistlab_transforms", Transform),
    "dataset": ("mnistlab_datasets", Dataset),
}
_ARTICLES: dict[Kind, str] = {"model": "a model", "optimizer": "an optimizer", "transform": "a transform"}
NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Offer:
    """A record with where it came from."""

    kind: Kind
    record: Record
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """Return the bare name."""
        return self.record.name

    @property
    def qualified(self) -> str:
        """Return `distribution:name`, which is never ambiguous."""
        return f"{self.distribution}:{self.record.name}"


@dataclass(frozen=True)
class Plugin:
    """A plugin after the attempt to load it: its offers, or why there are none."""

    found: Found
    status: Status
    reason: str = ""
    offers: tuple[Offer, ...] = ()
    manager: pluggy.PluginManager | None = None

    @property
    def title(self) -> str:
        """Return `distribution version (module)`."""
        return f"{self.found.distribution} {self.found.version} ({self.found.module})"


@dataclass(frozen=True)
class Registry:
    """All plugins of this installation, sorted by distribution and entry point, and which of them were wanted."""

    plugins: tuple[Plugin, ...]
    selection: Selection = EVERYTHING

    def offers(self, kind: Kind | None = None) -> Iterator[Offer]:
        """Yield every offer (of one kind)."""
        for plugin in self.plugins:
            yield from (offer for offer in plugin.offers if kind in (None, offer.kind))

    def find(self, kind: Kind, name: str) -> Offer:
        """Return the offer that `name` or `distribution:name` stands for.

        Raises:
            PluginError: if there is none (MissingPluginError), or several under the bare name; the message says what
                would do.
        """
        distribution, _, bare = name.rpartition(":")
        source = canonical(distribution)
        matches = [o for o in self.offers(kind) if o.name == bare and source in ("", canonical(o.distribution))]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise PluginError(self._clash(kind, name, matches))
        raise MissingPluginError(self._unknown(kind, name))

    def offers_one(self, kind: Kind, name: str) -> bool:
        """Return whether a plugin offers the bare `name`, or `distribution:name`."""
        return name in self.names(kind)

    def names(self, kind: Kind) -> list[str]:
        """Return every name that stands for an offer of a kind: its bare name, and `distribution:name`."""
        return [name for offer in self.offers(kind) for name in (offer.name, offer.qualified)]

    def _clash(self, kind: Kind, name: str, matches: Sequence[Offer]) -> str:
        """Say what to write into the experiment instead, and whether leaving the installed plugins out would do."""
        full = sorted(offer.qualified for offer in matches)
        words = [f'dataset = "{one}"' if kind == "dataset" else f'[{kind}."{one}"]' for one in full]
        without = replace(self.selection, only_built_in=True)
        staying = [o for p in self.plugins for o in p.offers if o in matches and not without.refusal(p.found)]
        other = f"; with --no-plugins only {staying[0].qualified} is there" if len(staying) == 1 else ""
        return f"{kind} '{name}' is offered by {len(matches)} plugins; write one of: {', '.join(words)}{other}"

    def _unknown(self, kind: Kind, name: str) -> str:
        """Say what is near, then which plugins failed or are disabled: that is the usual real cause."""
        known = [o.qualified if ":" in name else o.name for o in self.offers(kind)]
        missing = [
            f"{p.title} is {p.status}: {p.reason}"
            for p in self.plugins
            if p.status in ("failed", "disabled", "other API")
        ]
        hint = self._of_another_kind(kind, name) or near_miss(name, known, "mnistlab plugins check")
        parts = (f"no installed plugin offers {kind} '{name}'", hint, *missing)
        return "; ".join(filter(None, parts))

    def _of_another_kind(self, kind: Kind, name: str) -> str:
        """Return how a name is written that is known, but of another kind: an optimizer among the models, say."""
        for other, words in _ARTICLES.items():
            if other != kind and self.offers_one(other, name):
                return f"it is {words}: write [{other}.{name}]"
        return ""

    def versions(self) -> dict[str, str]:
        """Return the version of every distribution that offers something."""
        return {p.found.distribution: p.found.version for p in self.plugins if p.status == "ok"}


# --- loading: one at a time, all or nothing -----------------------------------------------------------------------


def installed() -> Registry:
    """Return the registry that the environment asks for."""
    return select(selection())


@cache
def select(wanted: Selection) -> Registry:
    """Return the registry of a selection, loaded once per process.

    Raises:
        PluginError: if a file of the selection can't be loaded: somebody asked for just this one.
    """
    registry = load((*discover(), *(file.found() for file in wanted.files)), wanted)
    paths = {file.path for file in wanted.files}
    broken = [p for p in registry.plugins if p.found.module in paths and p.status != "ok"]
    if broken:
        raise PluginError("\n".join(f"--plugin {p.found.module}: {p.reason}" for p in broken))
    return registry


def load(found: Iterable[Found], wanted: Selection = EVERYTHING) -> Registry:
    """Load each plugin alone."""
    return Registry(tuple(_load_one(f, wanted) for f in found), wanted)


def _load_one(found: Found, wanted: Selection) -> Plugin:
    status, reason = judge(found, wanted)
    if reason:
        return Plugin(found, status, reason)
    try:
        manager = _register(found.load())
        offers = tuple(_gather(found, manager))
    except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - a stranger's code may raise anything
        return Plugin(found, "failed", say(error))
    return Plugin(found, "ok", offers=offers, manager=manager)


def judge(found: Found, wanted: Selection) -> tuple[Status, str]:
    """Return what can be said of a plugin before it is imported, and why it will not be; "" if it may be imported."""
    if found.group != ENTRY_POINT_GROUP:
        return "other API", f"written for {found.group}; this mnistlab speaks {ENTRY_POINT_GROUP}"
    if reason := wanted.refusal(found):
        return "disabled", reason
    if reason := fault_of(found):
        return "failed", reason
    return "ok", ""


def say(error: BaseException) -> str:
    """Return what a plugin has raised, with its kind unless it is an error of ours, on one line."""
    return str(error) if isinstance(error, PluginError) else error_text(error)


def _register(module: object) -> pluggy.PluginManager:
    """Give the module a manager of its own, so that whatever is wrong with it stays with it."""
    manager = pluggy.PluginManager("mnistlab")
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    known = [name for name in vars(hookspecs) if name.startswith("mnistlab_")]
    for name in dir(module):
        if hasattr(getattr(module, name, None), "mnistlab_impl") and name not in known:
            raise PluginError(f"implements unknown hook '{name}'; {near_miss(name, known)}")
    if not manager.get_hookcallers(module):
        raise PluginError(f"implements no hook: a hook is a function marked @hookimpl; known: {', '.join(known)}")
    return manager


def _gather(found: Found, manager: pluggy.PluginManager) -> Iterator[Offer]:
    for kind, (hook, record_type) in _KINDS.items():
        names: set[str] = set()
        for record in _answers(getattr(manager.hook, hook)()):
            _check_record(record, hook, record_type)
            if record.name in names:
                raise PluginError(f"{hook} offers two records named '{record.name}'")
            names.add(record.name)
            sealed = isinstance(record, Dataset)
            kept = replace(record, load=guarded(record.name, record.load)) if sealed else record
            yield Offer(kind, kept, found.distribution, found.version)


def _answers(results: Sequence[Iterable[Any]]) -> Iterator[Any]:
    for result in results:
        yield from result


def _check_record(record: Any, hook: str, record_type: type[Any]) -> None:
    if not isinstance(record, record_type):
        raise PluginError(f"{hook} returned {type(record).__name__}, not {record_type.__name__}")
    if not (isinstance(record.name, str) and NAME.fullmatch(record.name)):
        rule = "must be 1 to 64 lower-case letters, digits and '-', beginning with a letter"
        raise PluginError(f"{hook}: name {short(record.name)} {rule}")
    if not (isinstance(record.summary, str) and record.summary.isprintable() and record.summary.strip()):
        raise PluginError(f"{record.name}: its summary {short(record.summary)} must be one line of plain text")
    for part in fields(record):
        value = getattr(record, part.name)
        if part.name == "portfolio":
            _check_portfolio(record.name, value)
        elif part.name not in {"name", "config", "summary"} and not callable(value) and value is not part.default:
            raise PluginError(f"{record.name}: its {part.name} {short(value)} must be a function")
    config = record.config
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise PluginError(f"{record.name}: its config must be a subclass of mnistlab.api.Config")
    if not config.model_config.get("frozen"):
        raise PluginError(f"{record.name}: its config {config.__name__} must stay frozen")
    _check_defaults(record.name, config)


def _check_defaults(name: str, config: type[Config]) -> None:
    """Every field that can be searched needs a default inside its domain: the first trial is made of defaults."""
    for field, domain in domains(config).items():
        info = config.model_fields[field]
        if info.is_required():
            raise PluginError(f"{name}.{field} has a domain but no default")
        if not domain.contains(info.default):
            raise PluginError(f"{name}.{field} = {short(info.default)} lies outside its own domain: {domain}")
    if not any(info.is_required() for info in config.model_fields.values()):
        try:
            config()
        except ValidationError as error:
            reasons = "; ".join(details["msg"].removeprefix("Value error, ") for details in error.errors())
            raise PluginError(f"{name}: its defaults are refused by its own config: {reasons}") from None


def _check_portfolio(name: str, plans: Any) -> None:
    """Let plans be mappings of dotted keys to settings; whether a space has them is not asked here.

    Raises:
        PluginError: if one is not.
    """
    good = isinstance(plans, (tuple, list)) and all(map(_is_plan, cast("Sequence[object]", plans)))
    if not good:
        rule = 'must be plans such as {"optimizer": "adamw", "optimizer.adamw.lr": 0.003}'
        raise PluginError(f"{name}: its portfolio {short(plans)} {rule}")


def _is_plan(plan: object) -> bool:
    if not isinstance(plan, dict):
        return False
    pairs = cast("dict[object, object]", plan).items()
    return all(isinstance(key, str) and isinstance(value, (bool, int, float, str)) for key, value in pairs)
