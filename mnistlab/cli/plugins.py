"""`mnistlab plugins`: what is installed, and what could not be loaded."""

from __future__ import annotations


def plugins() -> None:
    """List every model, optimizer, transform and dataset, and every plugin that could not be loaded."""
    from rich.table import Table
    from rich.text import Text

    from mnistlab.console.summary import result_console
    from mnistlab.registry import installed

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("kind", "name", "summary", "distribution", "version", "status"):
        table.add_column(title, overflow="fold", no_wrap=title != "summary")
    for plugin in installed().plugins:
        where = (plugin.found.distribution, plugin.found.version)
        for offer in plugin.offers:
            table.add_row(offer.kind, offer.name, Text(offer.record.summary), *where, plugin.status)
        if not plugin.offers:  # an observer, or one that could not be loaded
            kind = "observer" if plugin.status == "ok" else "-"
            table.add_row(kind, plugin.found.entry_point, Text(plugin.reason), *where, plugin.status)
    result_console().print(table)
