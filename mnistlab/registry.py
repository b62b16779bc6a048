"""Entry points -> isolated plugins -> records, with where each came from.

Discovery reads metadata only. Each plugin is then loaded alone, with a plugin manager of its own, all or nothing: a
plugin that is broken in whatever way is listed with the reason and hurts nobody else. A name offered twice is refused
only where the bare name is used; `distribution:name` always works.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from typing import Any, Literal

import pluggy
from pydantic import ValidationError

from mnistlab import hooks
from mnistlab.api import (
    ENTRY_POINT_GROUP,
    Config,
    Dataset,
    Model,
    Optimizer,
    Record,
    Transform,
    TrialRecord,
    domains,
)
from mnistlab.errors import PluginError, near_miss, short

Kind = Literal["model", "optimizer", "transform", "dataset"]
Status = Literal["ok", "failed", "disabled", "other API"]

_KINDS: dict[Kind, tuple[str, type[Any]]] = {
    "model": ("mnistlab_models", Model),
    "optimizer": ("mnistlab_optimizers", Optimizer),
    "transform": ("mnistlab_transforms", Transform),
    "dataset": ("mnistlab_datasets", Dataset),
}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_GROUP = re.compile(r"mnistlab\.v\d+")


@dataclass(frozen=True)
class Found:
    """A plugin as its metadata describe it, before anything of it is imported."""

    distribution: str
    version: str
    entry_point: str
    module: str
    group: str
    load: Callable[[], object]


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
    """All plugins of this installation, sorted by distribution and entry point."""

    plugins: tuple[Plugin, ...]

    def offers(self, kind: Kind | None = None) -> Iterator[Offer]:
        """Yield every offer (of one kind)."""
        for plugin in self.plugins:
            yield from (offer for offer in plugin.offers if kind in (None, offer.kind))

    def find(self, kind: Kind, name: str) -> Offer:
        """Return the offer that `name` or `distribution:name` stands for.

        Raises:
            PluginError: if there is none, or several under the bare name; the message says what would do.
        """
        distribution, _, bare = name.rpartition(":")
        source = canonical(distribution)
        matches = [o for o in self.offers(kind) if o.name == bare and source in ("", o.distribution)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = ", ".join(sorted(o.qualified for o in matches))
            raise PluginError(f"{kind} '{name}' is offered by {len(matches)} plugins; write one of: {choices}")
        raise PluginError(self._unknown(kind, name))

    def _unknown(self, kind: Kind, name: str) -> str:
        """Say what is near, then which plugins failed or are disabled: that is the usual real cause."""
        known = [o.qualified if ":" in name else o.name for o in self.offers(kind)]
        missing = [
            f"{p.title} is {p.status}: {p.reason}"
            for p in self.plugins
            if p.status in ("failed", "disabled", "other API")
        ]
        parts = (f"no installed plugin offers {kind} '{name}'", near_miss(name, known), *missing)
        return "; ".join(filter(None, parts))

    def versions(self) -> dict[str, str]:
        """Return the version of every distribution that offers something."""
        return {p.found.distribution: p.found.version for p in self.plugins if p.status == "ok"}

    def notify(self, trial: TrialRecord) -> list[str]:
        """Tell every observer of a trial that has ended; return what went wrong with those that failed."""
        troubles: list[str] = []
        for plugin in self.plugins:
            if plugin.manager is None:
                continue
            try:
                plugin.manager.hook.mnistlab_trial_finished(trial=trial)
            except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - a stranger's code: any error is its own
                troubles.append(f"{plugin.title}: mnistlab_trial_finished raised {_say(error)}")
        return troubles


# --- discovery: metadata only -------------------------------------------------------------------------------------


def discover() -> list[Found]:
    """Return the plugins of the installed distributions, of whatever API version, importing none of them.

    A distribution that stands twice on the path counts once: the first one is the one that gets imported.
    """
    seen: dict[str, Distribution] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # what an interrupted installation leaves behind has none
            seen.setdefault(canonical(name), distribution)
    found = [
        Found(name, distribution.version or "unknown", entry.name, entry.value, entry.group, entry.load)
        for name, distribution in seen.items()
        for entry in distribution.entry_points
        if _GROUP.fullmatch(entry.group)
    ]
    return sorted(found, key=lambda f: (f.distribution, f.entry_point))


def canonical(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it: `My_Plugin` and `my.plugin` are `my-plugin`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def disabled_distributions() -> frozenset[str]:
    """Return what the environment variable MNISTLAB_DISABLE names (distributions, separated by commas)."""
    words = os.environ.get("MNISTLAB_DISABLE", "").split(",")
    return frozenset(canonical(word.strip()) for word in words if word.strip())


# --- loading: one at a time, all or nothing -----------------------------------------------------------------------


@cache
def installed() -> Registry:
    """Return the registry of this process, loaded once."""
    return load(discover(), disabled=disabled_distributions())


def load(found: Iterable[Found], disabled: frozenset[str] = frozenset()) -> Registry:
    """Load each plugin alone."""
    return Registry(tuple(_load_one(f, disabled) for f in found))


def _load_one(found: Found, disabled: frozenset[str]) -> Plugin:
    if found.group != ENTRY_POINT_GROUP:
        return Plugin(found, "other API", f"written for {found.group}; this mnistlab speaks {ENTRY_POINT_GROUP}")
    if found.distribution in disabled:
        return Plugin(found, "disabled", "named in MNISTLAB_DISABLE")
    try:
        manager = _register(found.load())
        offers = tuple(_gather(found, manager))
    except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - a stranger's code may raise anything
        return Plugin(found, "failed", _say(error))
    return Plugin(found, "ok", offers=offers, manager=manager)


def _say(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _register(module: object) -> pluggy.PluginManager:
    """Give the module a manager of its own, so that whatever is wrong with it stays with it."""
    manager = pluggy.PluginManager("mnistlab")
    manager.add_hookspecs(hooks)
    manager.register(module)
    known = [name for name in vars(hooks) if name.startswith("mnistlab_")]
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
            yield Offer(kind, record, found.distribution, found.version)


def _answers(results: Sequence[Iterable[Any]]) -> Iterator[Any]:
    for result in results:
        yield from result


def _check_record(record: Any, hook: str, record_type: type[Any]) -> None:
    if not isinstance(record, record_type):
        raise PluginError(f"{hook} returned {type(record).__name__}, not {record_type.__name__}")
    if not _NAME.fullmatch(record.name):
        raise PluginError(f"{hook}: name {record.name!r} must be lower-case letters, digits and '-'")
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
            reasons = "; ".join(details["msg"] for details in error.errors(include_url=False))
            raise PluginError(f"{name}: its defaults are refused by its own config: {reasons}") from None
