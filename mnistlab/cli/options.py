"""The arguments that several commands share, and what they come to."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mnistlab.util.credentials import without_credentials

File = Annotated[Path, typer.Argument(help="The experiment file (TOML).", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any key, for example --set training.epochs=4."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="A folder that holds the dataset's files (also MNISTLAB_DATA).", show_default=False
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="The folder of all runs.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The same as --set seed=N.", show_default=False)]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Load this Python file as a plugin; may be repeated."),
]
View = Annotated[str, typer.Option("--ui", help="auto, live, full, plain, json or quiet (also MNISTLAB_UI).")]
Color = Annotated[str, typer.Option("--color", help="auto, always or never (also NO_COLOR, FORCE_COLOR).")]
RunName = Annotated[
    str | None, typer.Argument(metavar="RUN", help="A run directory, or its name in --runs.", show_default=False)
]
Like = Annotated[
    list[str] | None,
    typer.Option("--like", metavar="RUN", help="Start from this earlier run, by its folder or name; may be repeated."),
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load no installed plugins but mnistlab's own.")]

Log = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="TRACKER", help="Write to tensorboard or mlflow as well; may be repeated."),
]

Address = Annotated[
    str | None,
    typer.Option("--address", help="Join this Ray cluster; without it a private Ray is used.", show_default=False),
]
Executor = Annotated[
    str,
    typer.Option("--executor", help="ray, or local: trials in this process, one after the other, without Ray."),
]

RUNS = Path("runs")


def overrides(given: list[str] | None, **shortcuts: object) -> list[str]:
    """Return the overrides of --set followed by those of shortcut options that were given (`a__b` stands for a.b)."""
    named = {key.replace("__", "."): value for key, value in shortcuts.items() if value is not None}
    return [*(given or []), *(f"{key}={value}" for key, value in named.items())]


def listed(runs: list[str] | None) -> str | None:
    """Return the value of an override that names these runs, or None where none was given."""
    return json.dumps(runs) if runs else None


def command_line() -> str:
    """Return what was typed, for the run's record: as a shell takes it, without names and passwords in URLs."""
    return shlex.join(["mnistlab", *map(without_credentials, sys.argv[1:])])
