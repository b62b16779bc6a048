"""`mnistlab report RUN [RUN ...]`: runs as one file that can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, DataDir, NoPlugins, Plugins, Runs
from mnistlab.cli.output import is_device, write_output
from mnistlab.errors import ExitCode, MnistlabError, nearest

if TYPE_CHECKING:
    from mnistlab.leaderboard import Leaderboard
    from mnistlab.report.evaluation import Evaluated
    from mnistlab.report.run_page import Ask, RunPage
    from mnistlab.store.results import RunRecord

FORMATS = ("html", "md", "csv", "json", "parquet", "latex")
ENDINGS = {"tex": "latex"}  # endings that are not the format's own name
Names = Annotated[list[str], typer.Argument(metavar="RUN", help="Run directories, or names in --runs.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The file to write; its ending says the format.", show_default=True)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help=f"{', '.join(FORMATS)} or all: one file of each beside --output.", show_default=False
    ),
]
Predictions = Annotated[
    bool, typer.Option("--predictions/--no-predictions", help="Ask the confirmed models about the validation images.")
]


class UsageError(MnistlabError):
    """A format that there is not."""

    exit_code = ExitCode.USAGE


def report(
    run: Names,
    output: Output = Path("report.html"),
    format_: Format = None,
    runs: Runs = RUNS,
    data_dir: DataDir = None,
    predictions: Predictions = True,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
) -> None:
    """Write the RUNs as one file that can be sent: ranking, charts, mistakes, every trial. Nothing is fetched."""
    files = _files(output, format_)
    from mnistlab import store
    from mnistlab.report.run_page import read

    paths = [store.find_run(name, runs) for name in run]
    pages = read(paths, _asker(data_dir, plugin or (), no_plugins) if predictions else None)
    for kind, path in files:
        _write(kind, path, pages)
        typer.echo(f"Written: {path}", err=is_device(path))  # there it would be a part of what was written


def _files(output: Path, wanted: str | None) -> list[tuple[str, Path]]:
    """Return (format, file) of what is to be written."""
    ending = output.suffix.removeprefix(".").lower()
    kind = wanted or ENDINGS.get(ending, ending)
    if kind == "all":
        own = {format_: ending for ending, format_ in ENDINGS.items()}
        return [(each, output.with_suffix(f".{own.get(each, each)}")) for each in FORMATS]
    if kind not in FORMATS:
        named = f"--format {kind}" if wanted else f"--output {output}"
        rule, hint = f"{named}: the format is one of {', '.join(FORMATS)} or all", nearest(kind, [*FORMATS, "all"])
        raise UsageError("; ".join(filter(None, [rule, hint])))
    return [(kind, output)]


def _asker(data_dir: Path | None, files: Sequence[Path], only_built_in: bool) -> Ask:
    """Return what asks a run's models again, with the plugins that are installed here."""
    from mnistlab.data import default_place
    from mnistlab.plugins.discovery import selection

    wanted, place = selection(files, only_built_in=only_built_in), default_place(data_dir)

    def ask(record: RunRecord, board: Leaderboard) -> Evaluated | str:
        from mnistlab.report.predictions import evaluated

        return evaluated(record, board, wanted, place)

    return ask


def _write(kind: str, path: Path, pages: Sequence[RunPage]) -> None:
    """Write a page, or the table of the ranking in a format for programs and papers."""
    from mnistlab.report.tables import parquet_bytes, section

    if kind == "parquet":
        write_output(path, parquet_bytes([section(page.board) for page in pages]))
    else:
        write_output(path, _text(kind, pages).encode())


def _text(kind: str, pages: Sequence[RunPage]) -> str:
    from mnistlab.report import page
    from mnistlab.report.tables import TEXTS, section

    if kind in {"html", "md"}:
        return page.html(pages) if kind == "html" else page.markdown(pages)
    return TEXTS[kind]([section(one.board) for one in pages])
