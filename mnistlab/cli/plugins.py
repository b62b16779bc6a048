"""`mnistlab plugins`: what is installed, what a record can be set to, what is wrong, and how to begin one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from mnistlab.cli.options import NoPlugins, Plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from mnistlab.plugins.discovery import Found
    from mnistlab.plugins.registry import Offer, Plugin, Registry

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Kind = Literal["model", "optimizer", "transform", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def list_(json_: Json = False) -> None:
    """List the installed plugins from their metadata. Nothing of them is imported."""
    import json

    from mnistlab.console.ranking import result_console
    from mnistlab.plugins.discovery import discover, selection
    from mnistlab.plugins.registry import judge

    wanted = selection()
    rows = [_described(found, *judge(found, wanted)) for found in discover()]
    if json_:
        typer.echo(json.dumps(rows, indent=2))
        return
    out = result_console()
    columns = ("distribution", "version", "entry_point", "module", "api", "status", "reason")
    out.print(_table(columns, [[row[column] for column in columns] for row in rows]))
    out.print("\nWhat each of them offers: mnistlab plugins check", soft_wrap=True)


def _described(found: Found, status: str, reason: str) -> dict[str, str]:
    """Return a plugin's metadata; its status is `found` where nothing speaks against importing it."""
    return {
        "distribution": found.distribution,
        "version": found.version,
        "entry_point": found.entry_point,
        "module": found.module,
        "api": found.group,
        "licence": found.licence,
        "summary": found.summary,
        "status": "found" if status == "ok" else status,
        "reason": reason,
    }


def info(
    name: Annotated[
        str, typer.Argument(help="A record (cnn, or mnistlab:cnn in full), or a distribution.", show_default=False)
    ],
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    json_: Json = False,
) -> None:
    """Show what a model, optimizer, transform or dataset can be set to, and where it comes from.

    Of a distribution, show what it offers.
    """
    import json

    from packaging.utils import canonicalize_name as canonical

    from mnistlab.console.ranking import result_console

    registry = _registry(plugin, only_built_in=no_plugins)
    source, _, bare = name.rpartition(":")
    wanted = [o for o in registry.offers() if o.name == bare and canonical(source) in ("", canonical(o.distribution))]
    whole = [p for p in registry.plugins if canonical(p.found.distribution) == canonical(name)] if not wanted else []
    if not wanted and not whole:
        raise _unknown(name, registry)
    if json_:
        offers = wanted or [offer for p in whole for offer in p.offers]
        typer.echo(json.dumps([_facts(offer, registry) for offer in offers], indent=2))
        return
    out = result_console()
    if whole:
        out.print(_offers_table(whole))
        out.print("\nWhat each of them can be set to: mnistlab plugins info NAME", soft_wrap=True)
    for offer in wanted:
        facts = _facts(offer, registry)
        settings: list[dict[str, str]] = facts.pop("settings")
        out.print(_table((), [[f"{key}:", str(value)] for key, value in facts.items()]))
        out.print()
        if settings:
            out.print(_table(tuple(settings[0]), [list(setting.values()) for setting in settings]))
            out.print()


def _unknown(name: str, registry: Registry) -> Exception:
    from mnistlab.errors import PluginError, near_miss

    known = [o.qualified if ":" in name else o.name for o in registry.offers()]
    known += [p.found.distribution for p in registry.plugins if ":" not in name]
    missing = [f"{p.title} is {p.status}: {p.reason}" for p in registry.plugins if p.status != "ok"]
    hint = near_miss(name, known, "mnistlab plugins check")
    return PluginError("; ".join([f"no installed plugin offers '{name}'", hint, *missing]))


def _facts(offer: Offer, registry: Registry) -> dict[str, Any]:
    """Return everything that is known of a record."""
    import inspect

    found = next(p.found for p in registry.plugins if offer in p.offers)
    return {
        "name": offer.qualified,
        "kind": offer.kind,
        "summary": offer.record.summary,
        "distribution": f"{offer.distribution} {offer.version}",
        "licence": found.licence or "not named",
        "source": inspect.getmodule(offer.record.config).__name__,  # type: ignore[union-attr]
        "settings": list(_settings(offer)),
    }


def _settings(offer: Offer) -> Iterator[dict[str, str]]:
    from mnistlab.api import domains
    from mnistlab.util.text import unbroken

    inside = domains(offer.record.config)
    for field, about in offer.record.config.model_fields.items():
        kind = getattr(about.annotation, "__name__", str(about.annotation))
        domain = str(inside[field]) if field in inside else f"{kind}, not searched"
        yield {
            "setting": field,
            "domain": domain,
            "default": "required" if about.is_required() else _toml(about.get_default(call_default_factory=True)),
            "meaning": unbroken(about.description or ""),
        }


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def check(
    dist: Annotated[str | None, typer.Argument(help="Only this distribution.", show_default=False)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Doubts are faults too.")] = False,
    plugin: Plugins = None,
) -> None:
    """Import the plugins and validate what they offer; exit with 5 if one is broken.

    Doubts are told apart from faults: another API version, a name that two plugins use, metadata that let in the next
    major version of mnistlab or name no licence.
    """
    from mnistlab.console.ranking import result_console
    from mnistlab.errors import ExitCode
    from mnistlab.plugins.audit import doubts

    registry = _registry(plugin)
    chosen = _chosen(registry, dist)
    out = result_console()
    out.print(_offers_table(chosen))
    failed = [p for p in chosen if p.status == "failed"]
    doubtful = [(p, doubt) for p in chosen for doubt in doubts(p, registry)]
    for p in failed:
        typer.echo(f"mnistlab: {p.title} failed: {_harmless(p.reason)}", err=True)
    for p, doubt in doubtful:
        typer.echo(f"mnistlab: {p.title}: {'' if strict else 'doubtful: '}{_harmless(doubt)}", err=True)
    if failed or (strict and doubtful):
        raise typer.Exit(int(ExitCode.DATA_OR_PLUGIN))


def _chosen(registry: Registry, dist: str | None) -> list[Plugin]:
    from packaging.utils import canonicalize_name as canonical

    from mnistlab.errors import PluginError, near_miss

    names = {canonical(p.found.distribution) for p in registry.plugins}
    if dist is not None and canonical(dist) not in names:
        hint = near_miss(canonical(dist), names)
        raise PluginError(f"no installed distribution '{dist}' offers plugins; {hint}")
    return [p for p in registry.plugins if dist is None or canonical(p.found.distribution) == canonical(dist)]


def _offers_table(plugins: list[Plugin]) -> Table:
    return _table(("kind", "name", "summary", "distribution", "version", "status"), list(_rows(plugins)))


def _rows(plugins: list[Plugin]) -> Iterator[list[str]]:
    for p in plugins:
        where = [p.found.distribution, p.found.version]
        for offer in p.offers:
            yield [offer.kind, offer.name, offer.record.summary, *where, p.status]
        if not p.offers:  # an observer, or one that could not be loaded
            kind = "observer" if p.status == "ok" else "-"
            yield [kind, p.found.entry_point, p.reason, *where, p.status]


def new(
    name: Annotated[str, typer.Argument(help="The record's name, for example tiny-net.", show_default=False)],
    kind: Annotated[str, typer.Option("--kind", metavar=f"<{'|'.join(KINDS)}>", help="What it offers.")] = "model",
    folder: Annotated[Path, typer.Option("--in", help="Where to make the package's folder.")] = Path(),
) -> None:
    """Write a complete plugin package that passes its own contract test: module, entry point, test, README, CI."""
    from mnistlab.errors import SpecError, must_be_one_of
    from mnistlab.plugins.scaffold import create

    if kind not in KINDS:
        raise SpecError("plugins new", [must_be_one_of("--kind", kind, KINDS)])
    for path in create(name, kind, folder):
        typer.echo(str(path))


def _registry(files: list[Path] | None, *, only_built_in: bool = False) -> Registry:
    from mnistlab.plugins.discovery import selection
    from mnistlab.plugins.registry import select

    return select(selection(files or (), only_built_in=only_built_in))


def _harmless(text: str) -> str:
    from mnistlab.util.text import visible

    return visible(text)


def _table(titles: tuple[str, ...], rows: list[list[str]]) -> Table:
    """Return a table whose cells are shown as they are: markup and control characters in metadata take no effect."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(titles))
    for title in titles or ("", ""):
        table.add_column(title, overflow="fold", no_wrap=title in {"kind", "name", "setting", "status"})
    for row in rows:
        table.add_row(*(Text(_harmless(cell)) for cell in row))
    return table


app = typer.Typer(
    name="plugins", help="List, describe, check and begin plugins.", no_args_is_help=True, rich_markup_mode=None
)
COMMANDS = {"list": list_, "info": info, "check": check, "new": new}
