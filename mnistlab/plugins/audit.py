"""What a plugin that loads may still be blamed for: things that will hurt its users later. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mnistlab.plugins.discovery import BUILT_IN, Found
from mnistlab.plugins.registry import Plugin, Registry

NEXT_MAJOR = "2"


def doubts(plugin: Plugin, registry: Registry) -> list[str]:
    """Return what is doubtful about a plugin: other API, names that others use, loose or missing metadata."""
    if plugin.status == "other API":
        return [plugin.reason]
    if plugin.status != "ok" or plugin.found.distribution == BUILT_IN:
        return []
    return [*_clashes(plugin, registry), *_loose(plugin.found)]


def _clashes(plugin: Plugin, registry: Registry) -> Iterator[str]:
    for offer in plugin.offers:
        twins = [o.qualified for o in registry.offers(offer.kind) if o.name == offer.name and o != offer]
        if twins:
            others = ", ".join(twins)
            yield f"{offer.kind} '{offer.name}' is also offered as {others}: experiments must name one in full"


def _loose(found: Found) -> Iterator[str]:
    if not found.packaged:
        return
    ours = [r for r in map(Requirement, found.requires) if canonicalize_name(r.name) == BUILT_IN and not r.marker]
    if not ours:
        yield f"its metadata do not require {BUILT_IN}"
    elif any(r.specifier.contains(NEXT_MAJOR, prereleases=True) for r in ours):
        yield f"it requires '{ours[0]}', which lets in the next major version; write '{BUILT_IN}>=0.1,<{NEXT_MAJOR}'"
    if not found.licence:
        yield "its metadata name no licence"
