"""How a mistake of the user's, or a run that is not as it was written, is told: in a message, never a traceback."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from mnistlab.errors import DamagedError, MnistlabError
from mnistlab.store.layout import EVENTS, RUN


def tell(error: MnistlabError) -> None:
    """Say on standard error what went wrong, and of a run that is damaged what to type next."""
    typer.echo(f"mnistlab: {_harmless(str(error))}", err=True)
    run = _run_of(error.path) if isinstance(error, DamagedError) else None
    if run is not None:
        typer.echo(f"Next: mnistlab fsck {_harmless(shlex.quote(str(run)))}", err=True)


def _run_of(path: Path) -> Path | None:
    """Return the run directory that a file lies in."""
    return next((one for one in path.parents if (one / RUN).is_file() or (one / EVENTS).is_file()), None)


def _harmless(text: str) -> str:
    """Return a message with the control characters of whatever it quotes written out: a terminal obeys none of them."""
    from mnistlab.util.text import visible

    return "\n".join(visible(line) for line in text.split("\n"))
