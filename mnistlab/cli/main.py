"""`mnistlab`: the commands, and what an error looks like."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Annotated

import typer

from mnistlab import __version__
from mnistlab.cli import plugins
from mnistlab.cli.check import check
from mnistlab.cli.compare import compare
from mnistlab.cli.confirm import confirm
from mnistlab.cli.export import export
from mnistlab.cli.fsck import fsck
from mnistlab.cli.leaderboard import leaderboard
from mnistlab.cli.predict import predict
from mnistlab.cli.report import report
from mnistlab.cli.reproduce import reproduce
from mnistlab.cli.resume import resume, retry
from mnistlab.cli.search import search
from mnistlab.cli.train import train
from mnistlab.cli.watch import replay, status, watch
from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.util.seal import sealed
from mnistlab.util.signals import hear_early

# Plain help: it is read by people, pipes and screen readers alike, and needs nothing heavy to be imported.
app = typer.Typer(
    name="mnistlab",
    help="Search models, optimizers and transforms for MNIST-like images, and trust the winner.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # the commands inherit it
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` saying that it was interrupted: typer itself ends without a word."""

    @wraps(command)
    def run(**arguments: object) -> None:
        try:
            command(**arguments)
        except KeyboardInterrupt:
            typer.echo("mnistlab: interrupted", err=True)
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None

    return run


COMMANDS = (
    search,
    resume,
    retry,
    confirm,
    check,
    train,
    leaderboard,
    compare,
    report,
    watch,
    replay,
    status,
    fsck,
    reproduce,
    export,
    predict,
)
# These run the code of plugins on a run's data, and none of them opens the test set.
SEALED = (reproduce, export, predict, report)
for each in COMMANDS:
    app.command()(_interruptible(sealed()(each) if each in SEALED else each))
for name, command in plugins.COMMANDS.items():
    plugins.app.command(name)(_interruptible(command))
app.add_typer(plugins.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mnistlab {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Search models, optimizers and transforms for MNIST-like images, and trust the winner."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A mistake of the user's is one message and an exit code, never a traceback."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # started without one of them, as by `2>&-`
        from mnistlab.console.redirect import open_what_is_closed

        open_what_is_closed()
    if arguments is None:
        hear_early()
    try:
        _run(arguments)
    except KeyboardInterrupt:  # once more, on the way out
        sys.exit(int(ExitCode.INTERRUPTED))
    finally:
        if arguments is None:
            _leave()


def _run(arguments: list[str] | None) -> None:
    try:
        app(arguments, prog_name="mnistlab")
    except MnistlabError as error:
        from mnistlab.cli.errors import tell

        tell(error)
        sys.exit(int(error.exit_code))
    except Exception:  # noqa: BLE001, RUF100 - the last resort: our own fault, with all there is to know
        traceback.print_exc()
        typer.echo(
            "mnistlab: internal error; this is a fault of mnistlab, please report it with the text above", err=True
        )
        sys.exit(int(ExitCode.INTERNAL))


def _leave() -> None:
    """Make sure that the exit code stays what it is: nothing is left to interrupt, and nobody has to read the rest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reader of the pipe has gone, or the terminal
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
