"""`mnistlab fsck RUN`: whether a run directory is sound."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, Runs

if TYPE_CHECKING:
    from mnistlab.store.fsck import Report


def fsck(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run directory, or its name in --runs.", show_default=False)
    ],
    mend: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without any loss.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
    runs: Runs = RUNS,
) -> None:
    """Check every file of RUN, and all of them against each other; exit with 1 where something is wrong."""
    import json

    from mnistlab.errors import ExitCode
    from mnistlab.store.fsck import check, repair

    path = _find(run, runs)
    done = repair(path) if mend else ()
    report = check(path)
    if as_json:
        typer.echo(json.dumps({**report.to_json(), "repairs": done}, indent=1))
    else:
        for line in _lines(report, done):
            typer.echo(line)
    if not report.sound:
        raise typer.Exit(int(ExitCode.NO_TRIAL_SUCCEEDED))


def _find(name: str, runs: Path) -> Path:
    """Return the run directory of that name; one that has lost its `run.json` or its events is one, too."""
    from mnistlab import store
    from mnistlab.store import follow

    try:
        return store.find_run(name, runs)
    except store.NoSuchRunError:
        return follow.find_stream(name, runs)


def _lines(report: Report, done: tuple[str, ...]) -> list[str]:
    from mnistlab.util.text import visible

    seen = f"{report.files} files, {report.events} events, {report.results} results, {report.weights} weights"
    faults = sum(one.level == "fault" for one in report.findings)
    verdict = "sound" if report.sound else f"{faults} fault{'s' * (faults != 1)}"
    lines = [f"mended: {visible(one)}" for one in done] + [visible(str(one)) for one in report.findings]
    if report.holder:
        lines.append(f"note: {report.holder} is writing now; what it is in the middle of may stand above")
    lines.append(f"{visible(report.run)}: {verdict} ({seen} looked at)")
    if any(one.mend for one in report.findings) and not report.holder:
        lines.append(f"Next: mnistlab fsck {visible(shlex.quote(report.run))} --repair")
    return lines
