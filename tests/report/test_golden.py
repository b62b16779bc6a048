"""The report of a real search, kept: 8 trials of `experiments/quick.toml` on two cores, its files without weights.

To take it down anew, and then look at every difference:

    python -m tests.report.test_golden
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

from mnistlab.report import page, run_page
from tests.report.pages import Page

pytestmark = pytest.mark.simulated

RUN = Path(__file__).parents[1] / "recordings" / "quick-run"
RANKING = '<table class="ranking">'
GOLDEN = Path(__file__).parents[1] / "snapshots" / "report" / "quick.html"


def rounded(data: str) -> str:
    """The data with nine digits of each number: the last ones are those of a machine's arithmetic."""
    return json.dumps(json.loads(data, parse_float=lambda digits: f"{float(digits):.9g}"), sort_keys=True)


def without_drawings(source: str) -> str:
    """The page with digests in place of data, and without pictures, which are as wide as a machine's fonts."""
    source = re.sub(r"<svg.*?</svg>", "<svg></svg>", source, flags=re.DOTALL)
    return re.sub(
        r'(<script type="application/json"[^>]*>)(.*?)(</script>)',
        lambda found: f"{found[1]}sha256 {hashlib.sha256(rounded(found[2]).encode()).hexdigest()}{found[3]}",
        source,
        flags=re.DOTALL,
    )


@cache
def pages(path: Path = RUN) -> list[run_page.RunPage]:
    return run_page.read([path], lambda *_: "The models were not kept with this recording.")


def drawn(path: Path = RUN) -> str:
    return page.html(pages(path), script="/* the library */")


def test_the_report_of_a_real_run_is_as_it_was() -> None:
    assert without_drawings(drawn()) == GOLDEN.read_text(encoding="utf-8")


def test_its_markdown_ranks_as_its_page_does() -> None:
    text = re.sub(r"\\(.)", r"\1", page.markdown(pages()))
    ranking = Page(f"<table>{drawn().split(RANKING)[1].split('</table>')[0]}</table>")
    titles, trials = ranking.all("th", scope="col"), ranking.all("th", scope="row")
    cells = {" ".join(one.text.split()) for one in (*titles, *trials, *ranking.all("td"))}
    there = {cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    assert len(trials) == 8
    assert cells - there == set()


def test_where_a_run_lies_does_not_matter_to_its_report(tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.symlink_to(RUN)
    assert drawn(moved) == drawn()


if __name__ == "__main__":
    GOLDEN.write_text(without_drawings(drawn()), encoding="utf-8")
