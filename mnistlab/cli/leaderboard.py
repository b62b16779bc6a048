"""`mnistlab leaderboard [RUN ...]`: the ranking of one run, or of all, on the screen or as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, Runs
from mnistlab.cli.output import write_output

if TYPE_CHECKING:
    from mnistlab.errors import MnistlabError
    from mnistlab.leaderboard import Leaderboard
    from mnistlab.report.tables import Section
    from mnistlab.store.results import RunRecord

SHOWN = 100  # rows of a ranking on the screen, unless --top says otherwise


def leaderboard(
    run: Annotated[
        list[str] | None, typer.Argument(help="Run directories, or names in --runs; all runs if none is given.")
    ] = None,
    runs: Runs = RUNS,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Only runs on this dataset.", show_default=False)
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", metavar="COLUMN", help="Order by a column of --format csv; -COLUMN turns it.", show_default=False
        ),
    ] = "",
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Only rows that no other beats in all metrics, or in metric and size.")
    ] = False,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Show this many rows a ranking.", show_default=False)
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="table, md, csv, json, latex or parquet (needs -o).")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here.", show_default=False)
    ] = None,
) -> None:
    """Print the ranking of the RUNs given, or of every run in the folder of runs.

    Runs of the same dataset, split and metric are ranked together.
    """
    import gc

    from mnistlab.cli.errors import tell
    from mnistlab.leaderboard import group, rank_together

    gc.disable()  # ten thousand records that all stay to the end: looking through them takes a third of the time
    _check_format(format_, output)
    records, troubles = _read(run, runs, dataset)
    boards = [rank_together(records) for records in group(records)]
    if format_ == "table" and output is None:
        _print(boards, sort, top, front=pareto)
    else:
        _export(boards, sort, top, format_, output, front=pareto)
    for error in troubles:
        tell(error)
    if troubles:
        raise typer.Exit(int(troubles[0].exit_code))


def _check_format(name: str, output: Path | None) -> None:
    """Refuse a format that is not known, or that can't be written where it is to go."""
    from mnistlab.errors import nearest
    from mnistlab.report.tables import FORMATS

    if name not in FORMATS:
        raise typer.BadParameter(f"'{name}' is none of {', '.join(FORMATS)}. {nearest(name, FORMATS)}".strip())
    if name == "parquet" and output is None:
        raise typer.BadParameter("parquet is no text: say with -o FILE where to write it.")


def _read(names: Sequence[str] | None, runs: Path, dataset: str | None) -> tuple[list[RunRecord], list[MnistlabError]]:
    """Return the runs that could be read, each once, and what was wrong with the others."""
    from mnistlab import store
    from mnistlab.errors import MnistlabError, nearest

    found = [store.find_run(name, runs) for name in names] if names else store.find_runs(runs)
    if not found:
        raise store.NoSuchRunError(f"no runs in {runs}; start one with: mnistlab search experiments/quick.toml")
    records, troubles = list["RunRecord"](), list[MnistlabError]()
    for path in {path.resolve(): path for path in found}.values():
        try:
            records.append(store.read_run(path))
        except MnistlabError as error:  # one damaged run must not hide the others
            troubles.append(error)
    if dataset is None:
        return records, troubles
    there = sorted({str(record.run["dataset"]["name"]) for record in records})
    if dataset not in there and not troubles:
        hint = nearest(dataset, there) or f"there are runs on {', '.join(there)}"
        raise store.NoSuchRunError(f"no run is on '{dataset}'; {hint}")
    return [record for record in records if record.run["dataset"]["name"] == dataset], troubles


def _print(boards: Sequence[Leaderboard], sort: str, top: int | None, *, front: bool) -> None:
    from mnistlab.console.ranking import print_leaderboard, result_console
    from mnistlab.report.tables import section

    console = result_console()
    for board in boards:
        rows = section(board, sort=sort, front=front).rows
        ended, commands = _without_champion(board)
        print_leaderboard(board, console, top=top or SHOWN, rows=rows, ended=ended, commands=commands)
        console.print()


def _without_champion(board: Leaderboard) -> tuple[str, list[str]]:
    """Return of a run in which no trial succeeded how and why it ended, and what may be typed next; else nothing."""
    from functools import reduce

    from mnistlab import store
    from mnistlab.console.next_steps import left_undone
    from mnistlab.console.ranking import ended_text
    from mnistlab.console.state import ViewState, advance

    if board.champion is not None or not board.path:
        return "", []
    state = reduce(advance, store.read_events(Path(board.path)), ViewState())
    return (ended_text(state.end), left_undone(state, board.path)) if state.end else ("", [])


def _export(
    boards: Sequence[Leaderboard], sort: str, top: int | None, format_: str, output: Path | None, *, front: bool
) -> None:
    from dataclasses import replace

    from mnistlab.console.ranking import notes
    from mnistlab.report.tables import TEXTS, parquet_bytes, section

    parts: list[Section] = []
    for board in boards:
        part = section(board, sort=sort, front=front, top=top)
        parts.append(replace(part, notes=tuple(notes(board, top=len(part.rows)))))
    if format_ == "parquet" and output is not None:
        write_output(output, parquet_bytes(parts))
        return
    text = _table_text(boards, sort, top, front=front) if format_ == "table" else TEXTS[format_](parts)
    _write(text, output)


def _table_text(boards: Sequence[Leaderboard], sort: str, top: int | None, *, front: bool) -> str:
    import io

    from rich.console import Console

    from mnistlab.console.ranking import PIPE_WIDTH, print_leaderboard
    from mnistlab.report.tables import section

    console = Console(file=io.StringIO(), width=PIPE_WIDTH, color_system=None, markup=False)
    for board in boards:
        print_leaderboard(board, console, top=top, rows=section(board, sort=sort, front=front).rows)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _write(text: str, output: Path | None) -> None:
    """Write text as it is, line ends included: CSV has its own."""
    import sys

    data = text.encode()
    if output is not None:
        write_output(output, data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
