"""What the champion gets wrong, as it stands in a report: confusion, recall, calibration and the images themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from mnistlab.report import evaluation
from mnistlab.report.charts import LABEL, WIDTH
from mnistlab.report.evaluation import Digit, Evaluated
from mnistlab.report.vega import BLUE, GREY, ORANGE, Figure, data, figure, ladder
from mnistlab.util.text import counted, shortened

HEAT = 5  # shades of the confusion matrix


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix: how many, their share of the row and how dark (0 to `HEAT`)."""

    count: int
    share: float
    heat: int
    right: bool


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Everything that is told of a champion's mistakes on the validation images."""

    said: str
    classes: tuple[str, ...]
    matrix: tuple[tuple[Cell, ...], ...]
    common: tuple[tuple[str, str, int], ...]
    figures: tuple[Figure, ...]
    hardest: tuple[Digit, ...]
    surest: tuple[Digit, ...]
    voters: int
    lists: str  # how these two lists hang together


def mistakes(key: str, found: Evaluated) -> Mistakes:
    """Return what predictions come to; `key` begins the ids of the figures."""
    counts, hardest, surest = (
        evaluation.confusion(found),
        evaluation.hardest(found),
        evaluation.most_confidently_wrong(found),
    )
    return Mistakes(
        said=_said(found),
        classes=tuple(shortened(name, LABEL) for name in found.classes),
        matrix=_matrix(counts),
        common=tuple(evaluation.confusions(counts, found.classes)),
        figures=(
            _recall(f"{key}-recall", found),
            _calibration(f"{key}-calibration", found),
            _confidence(f"{key}-confidence", found),
        ),
        hardest=tuple(hardest),
        surest=tuple(surest),
        voters=found.votes.models,
        lists=_lists(surest, hardest),
    )


def _lists(surest: Sequence[Digit], hardest: Sequence[Digit]) -> str:
    """Say what tells the two galleries apart and how many images stand in both; "" where there is only one."""
    if not (surest and hardest):
        return ""
    both = len({one.index for one in surest} & {one.index for one in hardest})
    shared = f"{counted(both, 'image')} {'stands' if both == 1 else 'stand'} in both" if both else "no image is in both"
    return (
        "The first list goes by how sure the champion's models are of a wrong answer, the second by how many of all "
        f"confirmed models are wrong; {shared}."
    )


def _said(found: Evaluated) -> str:
    models = f"the {found.models} confirmed models" if found.models > 1 else "the confirmed model"
    images = f"{len(found.labels):,} validation images"
    said = f"{models[0].upper()}{models[1:]} of trial {found.trial} asked again about {images}"
    if math.isnan(found.agreement):
        return f"{said}."
    return f"{said}; {100 * found.agreement:.2f} % of the outcomes are the ones that the run recorded."


def _matrix(counts: np.ndarray) -> tuple[tuple[Cell, ...], ...]:
    """Return the cells; mistakes are shaded by the square root of their count, so that rare ones are seen too."""
    size = len(counts)
    worst = max((int(counts[i, j]) for i in range(size) for j in range(size) if i != j), default=0)

    def cell(i: int, j: int) -> Cell:
        count, row = int(counts[i, j]), int(counts[i].sum())
        heat = 0 if i == j or not count else max(1, math.ceil(HEAT * math.sqrt(count / worst)))
        return Cell(count, count / row if row else 0.0, heat, i == j)

    return tuple(tuple(cell(i, j) for j in range(size)) for i in range(size))


def _recall(name: str, found: Evaluated) -> Figure:
    recalls = evaluation.recalls(found)
    values = [
        {
            "class": shortened(one.name, LABEL),
            "recall": 100 * one.share,
            "low": 100 * one.interval.low,
            "high": 100 * one.interval.high,
        }
        for one in recalls
    ]
    order = [value["class"] for value in values]
    y = alt.Y("class:N", sort=[str(name) for name in order], title=None)
    base = alt.Chart(data(values))
    scale = alt.Scale(zero=False, nice=True)
    tooltip = ["class:N", *(alt.Tooltip(f"{field}:Q", format=".2f") for field in ("recall", "low", "high"))]
    rule = base.mark_rule(strokeWidth=2).encode(
        y=y, x=alt.X("low:Q", scale=scale, title="recall (%)"), x2="high:Q", tooltip=tooltip
    )
    dots = base.mark_circle(size=70, color=BLUE, opacity=1).encode(y=y, x="recall:Q", tooltip=tooltip)
    low = min(recalls, key=lambda one: one.share)
    return figure(
        name,
        alt.layer(rule, dots).properties(width=WIDTH, height=alt.Step(28)),
        title="Recall of each class",
        caption="The share of a class's images that was recognised, the mean over the models; the line is Wilson's "
        "95 % interval over images.",
        text=f"The class recognised least is {low.name} with {100 * low.share:.2f} %.",
        header=("class", "images", "recall", "95 % interval"),
        rows=[
            (
                one.name,
                f"{one.images:,}",
                f"{100 * one.share:.2f} %",
                f"{100 * one.interval.low:.2f} - {100 * one.interval.high:.2f} %",
            )
            for one in recalls
        ],
    )


def _calibration(name: str, found: Evaluated) -> Figure:
    bins, error = evaluation.calibration(found)
    values = [
        {"confidence": one.confidence, "accuracy": one.accuracy, "predictions": one.count, "size": math.sqrt(one.count)}
        for one in bins
    ]
    limits = alt.Scale(domain=[0, 1])
    shares = alt.Axis(format=".0%", tickCount=5)
    x = alt.X("confidence:Q", scale=limits, axis=shares, title="how sure the model was")
    y = alt.Y("accuracy:Q", scale=limits, axis=shares, title="how often it was right")
    ends: Sequence[dict[str, float]] = [{"confidence": end, "accuracy": end} for end in (0.0, 1.0)]
    line = alt.Chart(data(ends)).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    base = alt.Chart(data(values)).encode(x=x, y=y)
    tooltip = [*(alt.Tooltip(f"{field}:Q", format=".1%") for field in ("confidence", "accuracy")), "predictions:Q"]
    dots = base.mark_circle(color=ORANGE, opacity=0.9).encode(
        size=alt.Size("size:Q", legend=None, scale=alt.Scale(range=[20, 260])), tooltip=tooltip
    )
    curve = base.mark_line(color=ORANGE, strokeWidth=1.5)
    return figure(
        name,
        alt.layer(line, curve, dots).properties(width=280, height=280),
        title="Calibration",
        caption=f"Expected calibration error {100 * error:.2f} % ({evaluation.BINS} bins, "
        f"{counted(found.models, 'model')}); larger marks hold more predictions. "
        "Below the dashed line the model is surer than it should be.",
        text=f"The expected calibration error is {100 * error:.2f} %.",
        header=("mean confidence", "right", "predictions"),
        rows=[(f"{100 * one.confidence:.1f} %", f"{100 * one.accuracy:.1f} %", f"{one.count:,}") for one in bins],
    )


def _confidence(name: str, found: Evaluated) -> Figure:
    """Return how many predictions were right and how many wrong by how sure the model was, on a logarithmic axis."""
    bins, _ = evaluation.calibration(found)
    values = [
        {"confidence": one.confidence, "what": what, "predictions": count}
        for one in bins
        for what, count in (
            ("right", round(one.count * one.accuracy)),
            ("wrong", round(one.count * (1 - one.accuracy))),
        )
        if count
    ]
    wrong = sum(int(value["predictions"]) for value in values if value["what"] == "wrong")
    kinds, legend = ["right", "wrong"], alt.Legend(title=None, orient="top")
    colour = alt.Color("what:N", scale=alt.Scale(domain=kinds, range=[BLUE, ORANGE]), legend=legend)
    chart = (
        alt.Chart(data(values))
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=alt.X("confidence:Q", title="how sure the model was", axis=alt.Axis(format=".0%", tickCount=5)),
            y=alt.Y("predictions:Q", **ladder([float(v["predictions"]) for v in values], log=True, steps=(1, 3))),
            color=colour,
            shape=alt.Shape("what:N", scale=alt.Scale(domain=kinds, range=["circle", "cross"]), legend=legend),
            tooltip=["what:N", alt.Tooltip("confidence:Q", format=".1%"), "predictions:Q"],
        )
        .properties(width=WIDTH, height=280)
    )
    return figure(
        name,
        chart,
        title="How sure the models are",
        caption="Predictions that were right and that were wrong, by their mean confidence in each bin. Mistakes at "
        "the right end are those that a threshold on confidence would not find.",
        text=f"{wrong:,} of {found.models * len(found.labels):,} predictions were wrong.",
    )
