"""From Altair charts to what stands in a page: a Vega-Lite specification, a still picture, the library itself.

Lines and letters have the colour of the page's text, so that one picture serves light and dark.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from mnistlab.util.text import shortened, visible

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # the one that Altair writes, 6.4 for example

INK = "currentColor"
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = "#2f7fd6", "#c96f12", "#1f9464", "#9a68c9", "#d4504e", "#7d8590"
"""Each at 3:1 or more against both the light and the dark page."""

STATES = ("confirmed", "complete", "pruned", "interrupted", "failed")
STATE_COLOURS = (BLUE, GREEN, ORANGE, PURPLE, RED)
STATE_SHAPES = ("diamond", "circle", "triangle-down", "square", "cross")

MIN_TICKS, MAX_TICKS = 3, 9
FINE = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # steps of a decade where the values span less than one
CLIP = 600  # characters of a title, a caption or a cell: none of ours is as long, but a plugin's name may be

# The second one comes with vl-convert, so that a still picture is the same on every machine, whatever fonts it has.
_FONT = "system-ui, 'Liberation Sans', sans-serif"
_AXIS = {
    "labelColor": INK,
    "titleColor": INK,
    "tickColor": INK,
    "domainColor": INK,
    "gridColor": INK,
    "gridOpacity": 0.14,
    "domainOpacity": 0.5,
    "tickOpacity": 0.5,
    "labelFontSize": 11,
    "titleFontSize": 12,
    "titleFontWeight": 500,
    "titlePadding": 8,
    "labelLimit": 140,
}
_WORDS = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": 500}
CONFIG: Mapping[str, Any] = {
    "aria": False,  # the figure around it says what it shows; 200 marks that are read out one by one say nothing
    "background": None,
    "font": _FONT,
    "axis": _AXIS,
    "legend": {**_WORDS, "labelLimit": 260},
    "header": _WORDS,
    "title": {"color": INK, "fontSize": 12, "fontWeight": 500, "anchor": "start"},
    "view": {"stroke": None},
    "rule": {"color": INK},
    "text": {"color": INK},
}

_TAG = re.compile(r"<[^>]*>")
_LONG = re.compile(r"(?<![\d.#])-?\d+\.\d{3,}")
_IDS = re.compile(r'(\bid="|url\(#)(clip|gradient)')


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart as it stands in a report.

    `text` says in words what the chart shows, for those who can't see it; `header` and `rows` hold the same as a table
    where that is short enough to be read. `spec` is Vega-Lite, `svg` the still picture; a `wide` one has a row of the
    page for itself.
    """

    id: str
    title: str
    caption: str
    text: str
    spec: str
    svg: str
    wide: bool = False
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def figure(
    name: str,
    chart: alt.TopLevelMixin,
    *,
    title: str,
    caption: str,
    text: str,
    wide: bool = False,
    header: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> Figure:
    """Return a chart drawn; `name` is its id in the page, where no other may have it."""
    spec = _plain(chart)
    return Figure(
        id=name,
        title=shortened(title, CLIP),
        caption=shortened(caption, CLIP),
        text=shortened(text, CLIP),
        spec=json.dumps(spec, sort_keys=True, separators=(",", ":")),
        svg=still(spec, name),
        wide=wide,
        header=tuple(header),
        rows=tuple(tuple(shortened(cell, CLIP) for cell in row) for row in rows),
    )


def _plain(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return the specification with our looks and nothing that leads elsewhere."""
    spec = _inert(chart.to_dict(validate=False))
    spec["config"] = CONFIG
    spec.pop("$schema", None)
    return spec


def _inert(value: Any) -> Any:
    """Return a specification with the control signs of its texts written out: one of them would end the process.

    (vl-convert aborts where the XML it has made can't hold a sign; seen with 1.9 and ESC.)
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _inert(inner) for key, inner in value.items()}
    return [_inert(inner) for inner in value] if isinstance(value, list) else value


def still(spec: Mapping[str, Any], name: str) -> str:
    """Return a specification as SVG; numbers are cut to hundredths of a pixel, and ids are this figure's own."""
    svg = vl_convert.vegalite_to_svg(dict(spec), vl_version=VEGA_LITE)
    svg = _TAG.sub(lambda tag: _LONG.sub(_shortened, tag[0]), svg)  # what stands between tags is text
    return _IDS.sub(rf"\g<1>{name}-\g<2>", svg)


def _shortened(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`."""
    return str(vl_convert.javascript_bundle(vl_version=VEGA_LITE)).replace("</script", "<\\/script")  # pyright: ignore[reportCallIssue]


def data(values: Sequence[Mapping[str, Any]]) -> alt.Data:
    """Return rows as a chart's data, numbers to six digits: more can't be seen, and are half of a large page."""
    return alt.Data(values=[{key: _short(value) for key, value in row.items()} for row in values])


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def ladder(values: Sequence[float], *, log: bool, steps: Sequence[float] = (1, 2, 5)) -> dict[str, Any]:
    """Return scale and axis for `values`: a logarithmic one ends where they end and has few lines, at round numbers."""
    if not log or min(values) <= 0:
        return {"scale": alt.Scale(zero=False), "axis": alt.Axis(tickCount=6, format="~s")}
    low, high = min(values) * 0.85, max(values) * 1.18
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [tick for decade in decades for step in steps if low <= (tick := step * 10.0**decade) <= high]
    if len(ticks) > MAX_TICKS:
        return ladder(values, log=True, steps=steps[:-1]) if len(steps) > 1 else {"scale": alt.Scale(type="log")}
    if len(ticks) < MIN_TICKS and steps != FINE:
        return ladder(values, log=True, steps=FINE)
    form = "~g" if low < 1 else "~s"
    scale = alt.Scale(type="log", domain=[float(f"{end:.4g}") for end in (low, high)], nice=False)
    return {"scale": scale, "axis": alt.Axis(values=[float(f"{tick:.4g}") for tick in ticks], format=form)}


def by_state(present: Sequence[str]) -> tuple[alt.Scale, alt.Scale]:
    """Return the scales of colour and shape for the states that are `present`, always the same for each."""
    mine = [i for i, state in enumerate(STATES) if state in present]
    domain = [STATES[i] for i in mine]
    colours = alt.Scale(domain=domain, range=[STATE_COLOURS[i] for i in mine])
    return colours, alt.Scale(domain=domain, range=[STATE_SHAPES[i] for i in mine])
