"""The charts of the space that was searched: which settings mattered, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mnistlab.report import facts
from mnistlab.report.charts import LABEL, WIDE, WIDTH
from mnistlab.report.vega import BLUE, GREY, ORANGE, Figure, data, figure, ladder
from mnistlab.store.results import RunRecord
from mnistlab.tuning.importance import RESAMPLES, Importance, importances
from mnistlab.util.text import Scalar, counted, listed, scalar_text, shortened

COLUMNS = 4  # of slices
SLICES = 12  # settings drawn one by one
LEAST_TRIALS = 8  # that have a setting which is drawn: with fewer a picture says nothing
AXES = 8  # of the parallel coordinates
BARS = 12
BEST = 0.25  # the share of the trials that stands out

Points = Mapping[str, Mapping[str, Scalar]]


# --- importance ---------------------------------------------------------------------------------------------------


def importance(key: str, record: RunRecord, compared: facts.Comparison, measure: facts.Measure) -> list[Figure]:
    """Return how much each setting explains, for all plans and within the commonest kinds of plan."""
    points = facts.points(record)
    drawn = [
        _bars(f"{key}-importance-{number}", title, trials, points, compared, measure)
        for number, (title, trials) in enumerate(facts.branches(record, compared.values))
        if len(trials) >= facts.JUDGED
    ]
    return [one for one in drawn if one]


def _bars(
    name: str, title: str, trials: Sequence[str], points: Points, compared: facts.Comparison, measure: facts.Measure
) -> Figure | None:
    keys, mine = facts.shared_points(points, trials)
    values = [measure.of(compared.values[trial]) for trial in trials]
    if len(keys) < 2 or len(set(values)) < 2:
        return None
    found = importances(mine, [math.log(value) if measure.log and value > 0 else value for value in values])
    shown = found[:BARS]
    rows = [(one.setting, *(f"{100 * x:.0f} %" for x in (one.mean, one.low, one.high))) for one in shown]
    return figure(
        name,
        _importance_chart(shown),
        title=f"Importance: {title}",
        caption=f"fANOVA over {counted(len(trials), 'trial')} after epoch {compared.epoch}, on the settings that all "
        f"of them have. The bar is the mean over {RESAMPLES} resamples of the trials, the line their range: where "
        "lines overlap, the order means little.",
        text=f"The setting that explains most is {rows[0][0]} with {rows[0][1]} ({rows[0][2]} to {rows[0][3]}).",
        header=("setting", "share of the variance", "lowest", "highest"),
        rows=rows,
    )


def _importance_chart(shown: Sequence[Importance]) -> alt.TopLevelMixin:
    values = [
        {"setting": shortened(one.setting, LABEL), "mean": one.mean, "low": one.low, "high": one.high} for one in shown
    ]
    order = [str(value["setting"]) for value in values]
    y = alt.Y("setting:N", sort=order, title=None, axis=alt.Axis(labelLimit=190))
    shares = alt.Axis(format=".0%")
    base = alt.Chart(data(values))
    tooltip = ["setting:N", *(alt.Tooltip(f"{field}:Q", format=".1%") for field in ("mean", "low", "high"))]
    bars = base.mark_bar(color=BLUE, opacity=0.75, height=12).encode(
        y=y, x=alt.X("mean:Q", title="share of the variance explained", axis=shares), tooltip=tooltip
    )
    spread = base.mark_rule(strokeWidth=2).encode(y=y, x="low:Q", x2="high:Q")
    return alt.layer(bars, spread).properties(width=WIDTH - 180, height=alt.Step(24))


# --- slices -------------------------------------------------------------------------------------------------------


def slices(key: str, record: RunRecord, compared: facts.Comparison, measure: facts.Measure) -> Figure | None:
    """Return the metric against each setting that varied, over the trials that have the setting."""
    points = {trial: point for trial, point in facts.points(record).items() if trial in compared.values}
    counts = {name: sum(name in point for point in points.values()) for point in points.values() for name in point}
    kinds = {name: len({str(point[name]) for point in points.values() if name in point}) for name in counts}
    varied = sorted((name for name in counts if kinds[name] > 1), key=lambda name: -counts[name])
    enough = [name for name in varied if counts[name] >= LEAST_TRIALS]
    several = enough[:SLICES]
    drawn = [
        _slice(name, points, compared, measure, titled=number % COLUMNS == 0) for number, name in enumerate(several)
    ]
    if not drawn:
        return None
    hidden = _left_out([name for name in varied if name not in enough], enough[SLICES:])
    return figure(
        f"{key}-slices",
        alt.concat(*drawn, columns=COLUMNS, spacing=20),
        wide=True,
        title="Each setting alone",
        caption=f"Every trial that reached epoch {compared.epoch}, by one setting at a time; the best quarter in "
        f"orange. Other settings vary too, so a pattern may be theirs.{hidden}",
        text=f"{measure.title} after epoch {compared.epoch} against {counted(len(drawn), 'setting')}: "
        f"{', '.join(several)}.",
    )


def _left_out(few: Sequence[str], more: Sequence[str]) -> str:
    """Return which settings that varied are not drawn, and why."""
    names = listed([shortened(name, LABEL) for name in few])
    said = f" Not drawn, because fewer than {LEAST_TRIALS} trials have them: {names}." if few else ""
    return said + (f" {counted(len(more), 'more setting')} can be read in the trials' records." if more else "")


def _slice(name: str, points: Points, compared: facts.Comparison, measure: facts.Measure, *, titled: bool) -> alt.Chart:
    have = {trial: point[name] for trial, point in points.items() if name in point}
    best = _best(compared, measure)
    text = any(isinstance(value, (str, bool)) for value in have.values())
    values: list[dict[str, Any]] = [
        {
            "value": shortened(scalar_text(value), LABEL) if text else value,
            "error": measure.of(compared.values[trial]),
            "best": trial in best,
            "trial": trial,
        }
        for trial, value in have.items()
    ]
    errors = ladder([measure.of(value) for value in compared.values.values()], log=measure.log)
    return (
        alt.Chart(data(values))
        .mark_circle(size=34, opacity=0.8)
        .encode(
            x=_setting_axis(name, text, [float(v) for v in have.values() if not isinstance(v, str)]),
            y=alt.Y("error:Q", title=measure.title if titled else None, **errors),
            color=alt.when("datum.best").then(alt.value(ORANGE)).otherwise(alt.value(GREY)),
            tooltip=["trial:N", alt.Tooltip(f"value:{'N' if text else 'Q'}", title=shortened(name, LABEL)), "error:Q"],
        )
        .properties(width=200, height=150)
    )


def _setting_axis(name: str, text: bool, numbers: Sequence[float]) -> alt.X:
    title = shortened(name, LABEL)
    if text:
        return alt.X("value:N", title=title, axis=alt.Axis(labelAngle=-30, labelLimit=90))
    log = bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > 30
    if log:
        return alt.X("value:Q", title=title, **ladder(numbers, log=True, steps=(1,)))
    return alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4, format="~r"))


def _best(compared: facts.Comparison, measure: facts.Measure) -> set[str]:
    """Return the best quarter of the trials, one at least."""
    order = sorted(compared.values, key=lambda trial: (measure.cost(compared.values[trial]), trial))
    return set(order[: max(1, round(BEST * len(order)))])


# --- parallel coordinates -----------------------------------------------------------------------------------------


def parallel(key: str, record: RunRecord, compared: facts.Comparison, measure: facts.Measure) -> Figure | None:
    """Return one line a trial across the settings that all trials have, the best quarter in front."""
    points, trials = facts.points(record), list(compared.values)
    keys, mine = facts.shared_points(points, trials)
    if len(keys) < 2 or len(trials) < 3:
        return None
    keys = keys[:AXES]
    result = measure.title
    rows: list[dict[str, Scalar]] = [
        {**point, result: measure.of(compared.values[trial])} for trial, point in zip(trials, mine, strict=True)
    ]
    names = _short_names([*keys, result])
    places = {name: _places([row[name] for row in rows], log=measure.log or name != result) for name in [*keys, result]}
    best = _best(compared, measure)
    values = [
        {
            "trial": trial,
            "setting": short,
            "place": places[name][number],
            "value": scalar_text(row[name])[:LABEL],
            "best": trial in best,
        }
        for number, (trial, row) in enumerate(zip(trials, rows, strict=True))
        for name, short in zip([*keys, result], names, strict=True)
    ]
    return figure(
        f"{key}-parallel",
        _parallel_chart(values, names, [_ends(rows, name) for name in [*keys, result]]),
        wide=True,
        title="Plans across settings",
        caption=f"One line a trial, the best quarter after epoch {compared.epoch} in orange; every axis runs from the "
        "lowest value that was tried to the highest.",
        text=f"{counted(len(trials), 'trial')} across {', '.join(keys)} and {result}.",
    )


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the last word of each dotted name where that is one name's alone, and else the name."""
    last = [name.rpartition(".")[2] for name in names]
    return [shortened(word if last.count(word) == 1 else name, LABEL) for name, word in zip(names, last, strict=True)]


def _places(values: Sequence[Scalar], *, log: bool) -> list[float]:
    """Return where each value lies on its axis from 0 to 1: numbers by size (or its logarithm), words in order."""
    if any(isinstance(value, (str, bool)) for value in values):
        words = sorted({str(value) for value in values})
        return [words.index(str(value)) / max(1, len(words) - 1) for value in values]
    numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    if log and low > 0 and high / low > 30:
        numbers, low, high = [math.log(number) for number in numbers], math.log(low), math.log(high)
    return [(number - low) / (high - low) if high > low else 0.5 for number in numbers]


def _ends(rows: Sequence[Mapping[str, Scalar]], name: str) -> tuple[str, str]:
    """Return the lowest and the highest value of an axis as text."""
    values = [row[name] for row in rows]
    if any(isinstance(value, (str, bool)) for value in values):
        words = sorted({str(value) for value in values})
        return shortened(words[0], 16), shortened(words[-1], 16)
    return scalar_text(min(values, key=float)), scalar_text(max(values, key=float))


def _parallel_chart(
    values: Sequence[Mapping[str, Any]], names: Sequence[str], ends: Sequence[tuple[str, str]]
) -> alt.TopLevelMixin:
    hover = alt.selection_point(name="trial_shown", fields=["trial"], on="pointerover", empty=False)
    axis = alt.Axis(labelAngle=0, domain=False, ticks=False, labelLimit=WIDE // len(names) - 6, labelPadding=6)
    x = alt.X("setting:N", sort=list(names), title=None, axis=axis, scale=alt.Scale(type="point", padding=0.4))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.1, 1.1], nice=False))
    tooltip = ["trial:N", "setting:N", "value:N"]
    base = alt.Chart(data(values)).encode(x=x, y=y, detail="trial:N", tooltip=tooltip)
    colour = alt.when("datum.best").then(alt.value(ORANGE)).otherwise(alt.value(GREY))
    opacity = alt.when(hover).then(alt.value(1.0)).when("datum.best").then(alt.value(0.9)).otherwise(alt.value(0.3))
    width = alt.when(hover).then(alt.value(4)).otherwise(alt.value(1.6))
    lines = base.mark_line().encode(color=colour, opacity=opacity, strokeWidth=width)
    words = [
        {"setting": name, "place": place, "word": word}
        for name, (low, high) in zip(names, ends, strict=True)
        for place, word in ((-0.07, low), (1.07, high))
    ]
    rules = alt.Chart(data([{"setting": name, "place": 0.0, "top": 1.0} for name in names]))
    axes = rules.mark_rule(opacity=0.5).encode(x=x, y=y, y2="top:Q")
    ends_drawn = alt.Chart(data(words)).mark_text(fontSize=11).encode(x=x, y=y, text="word:N")
    plans = lines.properties(name="plans").add_params(hover)
    return alt.layer(axes, plans, ends_drawn).properties(width=WIDE, height=280)
