"""Runs as one page that can be sent: HTML with everything inside, or Markdown.

The page asks for nothing from elsewhere, and its policy forbids it to; it can be read with JavaScript off. Whatever
plugins and files say is escaped, always: templates can't be told otherwise, except for what this package itself drew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mnistlab import __version__
from mnistlab.report.as_json import as_data
from mnistlab.report.run_page import RunPage
from mnistlab.report.vega import library
from mnistlab.util.text import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!~$&@:^])")
_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def html(pages: Sequence[RunPage], *, script: str | None = None) -> str:
    """Return one HTML file for `pages`. `script` takes the place of the chart library, which is 0.9 MB."""
    env = _environment()
    style, own = _source(env, "style.css"), _source(env, "script.js")
    charts = library() if script is None else script
    return env.get_template("report.html").render(
        pages=pages,
        version=__version__,
        style=Markup(style),  # noqa: S704 - our own file
        scripts=[Markup(charts), Markup(own)],  # noqa: S704 - the library, and our own file
        policy=_policy(style, [charts, own]),
        data=inert_json(as_data(pages)),
    )


def markdown(pages: Sequence[RunPage]) -> str:
    """Return `pages` as Markdown in GitHub's dialect: tables and words; the pictures are in the HTML."""
    env = _environment(autoescape=False, finalize=markdown_text)
    text = env.get_template("report.md").render(pages=pages, version=__version__, markdown_grid=markdown_grid)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(*, autoescape: bool = True, finalize: Any = None) -> Environment:
    """Return templates that escape everything and know no undefined name; markup is what we have marked as such."""
    env = Environment(
        loader=PackageLoader("mnistlab.report"),
        autoescape=autoescape,  # noqa: S701 - Markdown is escaped by its own rule
        undefined=StrictUndefined,
        finalize=finalize or _shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["inert_json"] = lambda text: Markup(str(text).translate(_SCRIPT))  # noqa: S704 - no sign left to obey
    env.filters["code"] = markdown_code
    env.filters["drawing"] = Markup  # only for pictures that this package has drawn
    return env


def _shown(value: Any) -> Any:
    """Return what a template puts into the page: markup as it is, texts with control and format signs written out."""
    return value if isinstance(value, Markup) else visible(value) if isinstance(value, str) else value


def _source(env: Environment, name: str) -> str:
    assert env.loader is not None
    return env.loader.get_source(env, name)[0].strip()


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Return a content security policy by which only these very scripts and this very style sheet work."""
    hashes = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def inert_json(value: object) -> str:
    """Return JSON for a script element: keys sorted, and no sign in it that could end the element."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).translate(_SCRIPT)


def markdown_text(value: Any) -> Any:
    """Return a text in which nothing is markup, neither Markdown's nor HTML's; pictures and links can't be made."""
    if isinstance(value, Markup):
        return str(value)
    if not isinstance(value, str):
        return value
    return _MARKDOWN.sub(r"\\\1", visible(value)).replace("www.", "www\\.")


def markdown_code(text: str) -> Markup:
    """Return a text as a code span of Markdown, whatever back ticks it has."""
    shown = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return Markup(f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}")  # noqa: S704 - nothing ends it


def markdown_grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table of Markdown; its cells are inert."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[text if number == 1 else markdown_text(text) for text in line] for number, line in enumerate(lines)]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in cells))  # noqa: S704 - each cell was escaped
