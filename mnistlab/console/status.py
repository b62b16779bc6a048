"""Where a run stands, once: as text for people and as a record for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mnistlab.console.eta import estimate
from mnistlab.console.frame import frame
from mnistlab.console.look import Look
from mnistlab.console.signs import signs_for
from mnistlab.console.state import ViewState

SCHEMA = "mnistlab.status/1"
WIDTH, HEIGHT = 120, 200


def as_text(state: ViewState, now: float, *, encoding: str | None = "utf-8") -> list[str]:
    """Return the dashboard's lines without colour, wide and tall enough for everything."""
    look = Look(WIDTH, HEIGHT, signs_for(encoding), hint="")
    return [line.plain.rstrip() for line in frame(state, now, look, estimate(state, now))]


def as_record(state: ViewState, now: float, *, running: bool) -> dict[str, Any]:
    """Return what the dashboard knows, as a JSON object; what is not known is null."""
    eta = estimate(state, now)
    return {
        "schema": SCHEMA,
        "run": state.start.run if state.start else None,
        "driven": running,
        "phase": state.phase,
        "seconds": round(state.end.seconds if state.end else now, 3),
        "exit_code": state.end.exit_code if state.end else None,
        "trials": {
            "total": state.total,
            "complete": state.complete,
            "pruned": state.pruned,
            "failed": state.failed,
            "running": [asdict(trial) for trial in state.running.values()],
        },
        "metric": state.metric,
        "best": asdict(state.best) if state.best else None,
        "eta_seconds": {"median": round(eta.median - now, 1), "p90": round(eta.late - now, 1)} if eta else None,
        "confirmation": {"plans": list(state.confirming), "seeds": state.seeds, "ended": state.replicated},
        "failures": dict(state.failures),
        "warnings": state.warned,
        "test_openings": state.openings,
    }
