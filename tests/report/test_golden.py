"""The report of a real search, kept: 8 trials of `experiments/quick.toml` on two cores, its files without weights.

To take it down anew, and then look at every difference:

    python -m tests.report.test_golden
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from mnistlab.report import page, run

RUN = Path(__file__).parents[1] / "recordings" / "quick-run"
GOLDEN = Path(__file__).parents[1] / "snapshots" / "report"


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


def drawn(kind: str) -> str:
    pages = run.read([RUN], lambda *_: "The models were not kept with this recording.")
    return page.markdown(pages) if kind == "md" else without_drawings(page.html(pages, script="/* the library */"))


@pytest.mark.parametrize("kind", ["html", "md"])
def test_the_report_of_a_real_run_is_as_it_was(kind: str) -> None:
    assert drawn(kind) == (GOLDEN / f"quick.{kind}").read_text(encoding="utf-8")


def test_where_a_run_lies_does_not_matter_to_its_report(tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.symlink_to(RUN)
    here, there = (page.html(run.read([path]), script="") for path in (RUN, moved))
    assert here == there


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for kind in ("html", "md"):
        (GOLDEN / f"quick.{kind}").write_text(drawn(kind), encoding="utf-8")
