"""The charts of a run: from facts to figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from mnistlab.leaderboard import Leaderboard, Row
from mnistlab.report import facts
from mnistlab.report.page_columns import latency
from mnistlab.report.vega import BLUE, GREY, ORANGE, STATES, Figure, by_state, data, figure, ladder
from mnistlab.store.results import RunRecord
from mnistlab.util.text import counted, metric_text, shortened

WIDTH, WIDE, HEIGHT = 430, 960, 250  # of a chart, of one that has a row for itself; and how high both are
LABEL = 40  # characters of a name inside a chart


def _axis(measure: facts.Measure, values: Sequence[Mapping[str, Any]]) -> alt.Y:
    return alt.Y("error:Q", title=measure.title, **ladder([value["error"] for value in values], log=measure.log))


def _state_legend(states: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    colours, shapes = by_state(states)
    legend = alt.Legend(title=None, orient="top")
    return alt.Color("state:N", scale=colours, legend=legend), alt.Shape("state:N", scale=shapes, legend=legend)


# --- the course of the search -------------------------------------------------------------------------------------


def best_so_far(key: str, board: Leaderboard, ended: Sequence[facts.Ending], measure: facts.Measure) -> Figure | None:
    """Return every trial where it ended, and the line of the best trial at its full budget until then."""
    values = _ended(board, ended, measure)
    if not values:
        return None
    line = [{"order": one.order, "error": measure.of(one.best)} for one in ended if one.best is not None]
    colour, shape = _state_legend([str(value["state"]) for value in values])
    ends = alt.Scale(domain=[0, len(ended) + 1], nice=False)
    x = alt.X("order:Q", title="trials that have ended", scale=ends, axis=alt.Axis(tickMinStep=1, format="d"))
    y = _axis(measure, values)
    dots = (
        alt.Chart(data(values))
        .mark_point(filled=True, size=55, opacity=0.85)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=["trial:N", "state:N", "value:N", "minutes:Q"])
    )
    steps = alt.Chart(data(line)).mark_line(interpolate="step-after", strokeWidth=2, color=BLUE)
    chart = alt.layer(steps.encode(x=x, y=y), dots).properties(width=WIDTH, height=HEIGHT)
    changes = [one for a, one in zip([None, *ended], ended, strict=False) if one.best != (a.best if a else None)]
    rows = [(str(one.order), one.trial, metric_text(measure.metric, one.best)) for one in changes]
    return figure(
        f"{key}-best",
        chart,
        title="Best so far",
        caption="Each mark is a trial where it ended; the line is the best of those at their full budget. "
        f"{_down(measure)}",
        text=_best_text(rows, measure),
        header=("after trials", "trial", f"best {measure.metric}"),
        rows=rows,
    )


def _ended(board: Leaderboard, ended: Sequence[facts.Ending], measure: facts.Measure) -> list[dict[str, Any]]:
    """Return a mark for every trial that ended with a value."""
    states = facts.states(board)
    return [
        {
            "order": one.order,
            "error": measure.of(one.value),
            "state": states.get(one.trial, one.state),
            "trial": one.trial,
            "value": metric_text(measure.metric, one.value),
            "minutes": one.minutes if one.minutes is None else round(one.minutes, 2),
        }
        for one in ended
        if one.value is not None
    ]


def _best_text(rows: Sequence[tuple[str, ...]], measure: facts.Measure) -> str:
    if not rows:
        return "No trial has used its full budget."
    changed = counted(len(rows), "time")
    return f"The best {measure.metric} changed {changed}; it ended at {rows[-1][2]} (trial {rows[-1][1]})."


def _down(measure: facts.Measure) -> str:
    return "Lower is better." if measure.log else "Higher is better."


def learning_curves(key: str, record: RunRecord, board: Leaderboard, measure: facts.Measure) -> Figure | None:
    """Return the metric of every trial after every epoch; those that were pruned faint."""
    states = facts.states(board)
    values = [
        {
            "trial": trial.trial,
            "epoch": epoch,
            "error": measure.of(value),
            "state": states[trial.trial],
            "value": metric_text(measure.metric, value),
        }
        for trial in record.trials
        for epoch in range(1, len(trial.history) + 1)
        if (value := facts.value_at(trial, measure.metric, epoch)) is not None
    ]
    if not values:
        return None
    present = [state for state in STATES if any(value["state"] == state for value in values)]
    colour, _ = _state_legend(present)
    pick = alt.selection_point(name="state_shown", fields=["state"], bind="legend")
    full = alt.FieldOneOfPredicate(field="state", oneOf=["confirmed", "complete"])
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"))
    base = alt.Chart(data(values)).encode(x=x, y=_axis(measure, values), color=colour, detail="trial:N")
    opacity: Any = alt.when(~pick).then(alt.value(0.04)).when(full).then(alt.value(0.9)).otherwise(alt.value(0.28))
    tooltip = ["trial:N", "state:N", "epoch:Q", "value:N"]
    lines = base.mark_line(strokeWidth=1.6).encode(opacity=opacity).properties(name=f"{key}-lines").add_params(pick)
    dots = base.mark_circle(size=18).encode(opacity=opacity, tooltip=tooltip)
    chart = alt.layer(lines, dots).properties(width=WIDTH, height=HEIGHT)
    full_ones = sum(trial.state == "complete" for trial in record.trials)
    return figure(
        f"{key}-curves",
        chart,
        title="Learning curves",
        caption=f"One line a trial; those that ended early are faint. {_down(measure)} "
        "A click on the legend shows one kind.",
        text=f"{counted(len(record.trials), 'trial')}, of which {full_ones} used the full budget; "
        "each epoch of each of them is in its record below.",
    )


def rung_flow(key: str, found: Sequence[facts.Rung]) -> Figure | None:
    """Return how many trials reached each rung of the scheduler and how many went on."""
    if not found:
        return None
    several = len({rung.bracket for rung in found}) > 1
    names = [f"bracket {r.bracket}, epoch {r.epoch}" if several else f"epoch {r.epoch}" for r in found]
    values = [
        {"rung": name, "what": what, "trials": count}
        for name, rung in zip(names, found, strict=True)
        for what, count in (("went on", rung.kept), ("stopped", rung.reached - rung.kept))
    ]
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=["went on", "stopped"], range=[BLUE, ORANGE]),
        legend=alt.Legend(title=None, orient="top"),
    )
    chart = (
        alt.Chart(data(values))
        .mark_bar()
        .encode(
            y=alt.Y("rung:N", sort=names, title=None),
            x=alt.X("trials:Q", title="trials", axis=alt.Axis(tickMinStep=1, format="d")),
            color=colour,
            order=alt.Order("what:N", sort="descending"),
            tooltip=["rung:N", "what:N", "trials:Q"],
        )
        .properties(width=WIDTH - 70, height=alt.Step(26))
    )
    rows = [(name, str(r.reached), str(r.kept), f"{r.cutoff:.4g}") for name, r in zip(names, found, strict=True)]
    return figure(
        f"{key}-rungs",
        chart,
        title="Rungs",
        caption="How many trials the scheduler has judged at each rung, and how many of them went on.",
        text="; ".join(f"{name}: {kept} of {reached} went on" for name, reached, kept, _ in rows) + ".",
        header=("rung", "reached", "went on", "cutoff at the end"),
        rows=rows,
    )


def early_and_late(key: str, found: facts.Forecast) -> Figure | None:
    """Return the trials' ranks after the first epoch, or at the first rung, against those after the last."""
    if len(found.pairs) < 3:
        return None
    values = [{"trial": trial, "early": early, "late": late} for trial, early, late in found.pairs]
    limits = alt.Scale(domain=[0.5, len(values) + 0.5], nice=False)
    even = alt.Chart(data([{"early": end, "late": end} for end in (1, len(values))]))
    line = even.mark_line(color=GREY, strokeDash=[4, 4]).encode(x="early:Q", y="late:Q")
    ticks = alt.Axis(tickMinStep=1, format="d")
    dots = (
        alt.Chart(data(values))
        .mark_circle(size=60, color=BLUE, opacity=0.85)
        .encode(
            x=alt.X("early:Q", title=f"rank {found.early}", scale=limits, axis=ticks),
            y=alt.Y("late:Q", title="rank at the end", scale=limits, axis=ticks),
            tooltip=["trial:N", "early:Q", "late:Q"],
        )
    )
    told = "cannot be said" if found.rho is None else f"is {found.rho:.2f}"
    return figure(
        f"{key}-early",
        alt.layer(line, dots).properties(width=320, height=320),
        title="Does the early score predict the late one?",
        caption=f"Spearman's correlation of the two rankings {told} over {len(values)} trials that used their full "
        "budget; 1 would be the dashed line. Trials that were stopped early are missing, so the truth may be another.",
        text=f"Spearman's rank correlation {told}, over {len(values)} trials.",
        header=("trial", f"rank {found.early}", "rank at the end"),
        rows=[(trial, f"{early:g}", f"{late:g}") for trial, early, late in found.pairs],
    )


# --- costs --------------------------------------------------------------------------------------------------------

Cost = Callable[[Row], float | None]

COSTS: tuple[tuple[str, str, Cost], ...] = (
    ("parameters", "parameters", lambda row: row.parameters),
    ("seconds", "training time (s)", lambda row: row.seconds),
    ("macs", "multiply-accumulates", lambda row: row.macs),
    ("latency", "latency of one image (s)", lambda row: latency(row, 1)),
)
"""What a plan costs: name, title and what gives it of a row; one more is one more line."""


def pareto_fronts(key: str, board: Leaderboard, measure: facts.Measure) -> list[Figure]:
    """Return error against each cost that is known of two plans or more."""
    drawn = (_pareto(f"{key}-{field}", board, measure, cost, title) for field, title, cost in COSTS)
    return [one for one in drawn if one]


def _pareto(name: str, board: Leaderboard, measure: facts.Measure, cost_of: Cost, title: str) -> Figure | None:
    done = [row for row in board.rows if row.state in {"confirmed", "complete"} and row.validation]
    found = [(row, float(cost)) for row in done if (cost := cost_of(row)) and row.validation]
    if len({cost for _, cost in found}) < 2:
        return None
    drawn = [(cost, measure.of(row.validation.mean)) for row, cost in found if row.validation]
    # Means over the same outcomes in another order differ in their last digit.
    front = facts.pareto([(cost, round(measure.cost(row.validation.mean), 9)) for row, cost in found if row.validation])
    values = [
        {
            "cost": cost,
            "error": error,
            "state": row.state,
            "trial": row.trial,
            "model": shortened(row.model, LABEL),
            "on the front": "yes" if best else "no",
            "value": metric_text(measure.metric, row.validation.mean if row.validation else None),
        }
        for (row, _), (cost, error), best in zip(found, drawn, front, strict=True)
    ]
    best_ones = [value for value in values if value["on the front"] == "yes"]
    colour, shape = _state_legend([row.state for row, _ in found])
    x = alt.X("cost:Q", title=title, **ladder([cost for cost, _ in drawn], log=True, steps=(1, 3)))
    y = _axis(measure, values)
    line = alt.Chart(data(best_ones)).mark_line(color=GREY, strokeDash=[4, 3], interpolate="step-after")
    dots = (
        alt.Chart(data(values))
        .mark_point(filled=True, size=70)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            opacity=alt.when("datum['on the front'] == 'yes'").then(alt.value(1.0)).otherwise(alt.value(0.4)),
            tooltip=["trial:N", "model:N", "value:N", alt.Tooltip("cost:Q", title=title, format=",.4~g")],
        )
    )
    chart = alt.layer(line.encode(x=x, y=y), dots).properties(width=WIDTH, height=HEIGHT)
    return figure(
        name,
        chart,
        title=f"Accuracy against {title}" if measure.log else f"{measure.title} against {title}",
        caption="The dashed line joins the plans that no other one beats in both; the others are faint.",
        text=f"{len(best_ones)} of {len(values)} plans are on the front: "
        + ", ".join(f"trial {value['trial']}" for value in best_ones[:10])
        + ".",
        header=("trial", measure.metric, title),
        rows=[(str(v["trial"]), str(v["value"]), f"{v['cost']:,.4g}") for v in best_ones],
    )
