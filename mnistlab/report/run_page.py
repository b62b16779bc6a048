"""One run as it stands in a report: everything that a page shows of it, worked out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnistlab import store
from mnistlab.events import Stamped
from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.report import charts, facts, prose, space_charts
from mnistlab.report import page_columns as columns
from mnistlab.report.evaluation import Evaluated
from mnistlab.report.mistakes import Mistakes, mistakes
from mnistlab.report.page_columns import Column, Ranked
from mnistlab.report.prose import TrialPage
from mnistlab.report.redact import places_of, public, without_folders
from mnistlab.report.rerun import search_command
from mnistlab.report.vega import STATES, Figure
from mnistlab.store.layout import RUN
from mnistlab.store.results import RunRecord

Ask = Callable[[RunRecord, Leaderboard], Evaluated | str]
"""What asks a run's models again: predictions, or in words why there are none."""

NOT_ASKED = "The models were not asked again for this report (--no-predictions)."


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """A run as a page shows it; `key` begins every id of it. `mistakes` says in words why there are none.

    `record`, and all that was made of it, names no folder of a machine.
    """

    key: str
    record: RunRecord
    board: Leaderboard
    stream: tuple[Stamped, ...]
    verdict: str
    command: str
    overview: prose.Pairs
    columns: tuple[Column, ...]
    rows: tuple[Ranked, ...]
    states: tuple[str, ...]
    anchors: dict[str, str]
    course: tuple[Figure, ...]
    settings: tuple[Figure, ...]
    costs: tuple[Figure, ...]
    mistakes: Mistakes | str
    trials: tuple[TrialPage, ...]
    failures: str
    methods: tuple[str, ...]

    @property
    def failed(self) -> tuple[TrialPage, ...]:
        """Return the trials that came to nothing."""
        return tuple(trial for trial in self.trials if trial.state == "failed")


def read(paths: Sequence[Path], ask: Ask | None = None) -> list[RunPage]:
    """Return the runs that lie in `paths`; `ask` is asked for each run's predictions.

    Raises:
        RunDirectoryError: if one of them is no run directory, or of a format that this version does not read.
    """
    return [
        page(f"r{number}", store.read_run(path), tuple(store.read_events(path)), ask, began=_began(path))
        for number, path in enumerate(paths)
    ]


def _began(path: Path) -> str:
    """Return the command that began a run, whatever has amended it since."""
    return str((store.read_json(str(path / RUN), store.RUN_SCHEMA) or {}).get("command", ""))


def page(
    key: str, record: RunRecord, stream: tuple[Stamped, ...], ask: Ask | None = None, *, began: str = ""
) -> RunPage:
    """Return a run as a page shows it; `began` is the command that started it."""
    found = _asked(record, ask)  # who is asked needs the paths
    record = public(record)
    board = rank(record)
    measure = facts.measure(board.metric, int(record.run["dataset"].get("validation") or 0))
    shown = columns.shown(board)
    return RunPage(
        key=key,
        record=record,
        board=board,
        stream=stream,
        verdict=verdict(board),
        command=search_command(record, stream, began),
        overview=prose.overview(record, board),
        columns=shown,
        rows=tuple(columns.table(board, shown)),
        states=tuple(state for state in STATES if any(row.state == state for row in board.rows)),
        anchors={trial.trial: prose.trial_id(key, trial.number) for trial in record.plans},
        course=_course(key, record, board, stream, measure),
        settings=_settings(key, record, measure),
        costs=tuple(charts.pareto_fronts(key, board, measure)),
        mistakes=found if isinstance(found, str) else mistakes(key, found),
        trials=tuple(prose.trial_pages(key, record, board)),
        failures=prose.failures_text(board),
        methods=tuple(prose.methods(record, board)),
    )


def _asked(record: RunRecord, ask: Ask | None) -> Evaluated | str:
    """Return what the models say, or in words that name no folder why they say nothing."""
    found = ask(record, rank(record)) if ask else NOT_ASKED
    return without_folders(found, places_of(record)) if isinstance(found, str) else found


def _course(
    key: str, record: RunRecord, board: Leaderboard, stream: Sequence[Stamped], measure: facts.Measure
) -> tuple[Figure, ...]:
    """Return how the search went."""
    drawn = (
        charts.best_so_far(key, board, facts.endings(record, stream, board.metric), measure),
        charts.learning_curves(key, record, board, measure),
        charts.rung_flow(key, facts.rungs(stream)),
        charts.early_and_late(key, facts.forecast(record, board.metric)),
    )
    return tuple(one for one in drawn if one)


def _settings(key: str, record: RunRecord, measure: facts.Measure) -> tuple[Figure, ...]:
    """Return which settings mattered."""
    compared = facts.comparison(record, measure.metric)
    if not compared.values:
        return ()
    drawn = (
        *space_charts.importance(key, record, compared, measure),
        space_charts.slices(key, record, compared, measure),
        space_charts.parallel(key, record, compared, measure),
    )
    return tuple(one for one in drawn if one)
