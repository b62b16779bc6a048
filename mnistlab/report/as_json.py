"""What a report shows, as data: the same numbers for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mnistlab.report import facts
from mnistlab.store import results

if TYPE_CHECKING:
    from mnistlab.report.run_page import RunPage

SCHEMA = "mnistlab.report/1"
LEFT_OUT = frozenset({"val_correct", "test_correct"})  # an outcome for every image: the run directory has them


def as_data(pages: Sequence[RunPage]) -> dict[str, Any]:
    """Return a JSON object: of each run its record, ranking, trials, replicates and so on; NaN as null.

    `confirmations` says which plans were to get how many fresh seeds, and which left the race.
    """
    return {"schema": SCHEMA, "runs": [_finite(_run(page)) for page in pages]}


def _run(page: RunPage) -> dict[str, Any]:
    run = dict(page.record.run)
    run["dataset"] = {key: value for key, value in run["dataset"].items() if not key.endswith("_indices")}
    return {
        "run": run,
        "verdict": page.verdict,
        "test_openings": page.board.test_openings,
        "runs_before": page.board.runs_before,
        "ranking": [asdict(row) for row in page.board.rows],
        "trials": [results.to_json(trial) for trial in page.record.trials],
        "replicates": [_without(results.to_json(one)) for one in page.record.replicates],
        "refits": [_without(results.to_json(one)) for one in page.record.refits],
        "ensemble": asdict(page.board.ensemble) if page.board.ensemble else None,
        "confirmations": [dict(entry) for entry in page.record.confirmations],
        "rungs": [asdict(rung) for rung in facts.rungs(page.stream)],
    }


def _without(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in LEFT_OUT}


def _finite(value: Any) -> Any:
    """Return nested data in which numbers that JSON has not are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
