from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from typing import Any

import pytest

from mnistlab.report import page, run_page
from mnistlab.report.as_json import SCHEMA
from tests.report.pages import Page
from tests.report.runs import evaluated, record, stream, whole_page

pytestmark = pytest.mark.simulated

LIBRARY = "/* the library */"


def drawn(of: Any, ask: Any = None, events: Any = None) -> tuple[str, Page]:
    source = page.html([run_page.page("r0", of, stream(of) if events is None else events, ask)], script=LIBRARY)
    return source, Page(source)


@pytest.fixture(scope="module")
def whole() -> tuple[str, Page]:
    source = page.html([whole_page()], script=LIBRARY)
    return source, Page(source)


def test_a_page_says_who_won_and_how_to_do_it_again(whole: tuple[str, Page]) -> None:
    text = whole[1].text()
    assert "On digits, trial" in text
    assert "the test set was opened once" in text
    assert "mnistlab search made-up.toml" in text
    assert "mnistlab reproduce made-up 0003" in text


def test_every_trial_has_a_row_and_a_record_that_the_row_leads_to(whole: tuple[str, Page]) -> None:
    rows = [one for one in whole[1].all("tr") if "data-state" in one.attributes]
    assert len(rows) == 24
    ids = [one.attributes["id"] for one in whole[1].elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    links = [one.attributes["href"] for one in whole[1].all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {f"r0-trial-{number}" for number in range(24)} <= set(ids)


def test_failures_are_listed_with_their_cause(whole: tuple[str, Page]) -> None:
    assert "2 trials failed: 2 of cause 'nan'." in whole[1].text()
    assert "the training loss became nan in epoch 2" in whole[1].text()
    assert [one.attributes["data-state"] for one in whole[1].all("tr") if "data-state" in one.attributes][-2:] == [
        "failed",
        "failed",
    ]


def test_every_column_of_the_ranking_is_a_heading_and_every_row_has_one(whole: tuple[str, Page]) -> None:
    ranking = whole[0].split('<table class="ranking">')[1].split("</table>")[0]
    table = Page(f"<table>{ranking}</table>")
    scopes = [one.attributes["scope"] for one in table.all("th")]
    assert scopes.count("row") == 24
    assert scopes.count("col") == len(scopes) - 24
    assert len(table.all("caption")) == 1
    width = len(table.all("th", scope="col"))
    assert len(table.all("td")) + 24 == 24 * width


def test_nothing_in_the_file_leads_elsewhere(whole: tuple[str, Page]) -> None:
    for one in whole[1].elements:
        for name in ("src", "href", "action", "data", "srcset", "xlink:href", "poster", "style", "onclick"):
            value = one.attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (one.tag, name, value)
        assert one.tag not in {"link", "iframe", "object", "embed", "base", "form"}
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", whole[0])
    assert "@import" not in whole[0]


def test_only_the_scripts_and_the_style_of_the_policy_may_work(whole: tuple[str, Page]) -> None:
    (policy,) = [one.attributes["content"] for one in whole[1].all("meta", http_equiv="Content-Security-Policy")]
    working = [one.text for one in whole[1].all("script") if "type" not in one.attributes]
    working += [one.text for one in whole[1].all("style")]
    hashes = {f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}" for text in working}
    assert hashes == set(re.findall(r"sha256-[^']+", policy))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert LIBRARY in working


def test_the_data_is_inside_without_what_the_run_directory_holds_for_every_image(whole: tuple[str, Page]) -> None:
    data = whole[1].data()
    assert data["schema"] == SCHEMA
    (one,) = data["runs"]
    assert [row["trial"] for row in one["ranking"]][:2] == ["0001", "0000"]
    assert len(one["trials"]) == 24
    assert "validation_indices" not in one["run"]["dataset"]
    assert "val_correct" not in one["replicates"][0]
    assert one["rungs"][-1] == {"bracket": 0, "epoch": 3, "reached": 8, "kept": 4, "cutoff": 0.95}


def test_numbers_that_json_has_not_are_null() -> None:
    of = record(3)
    of = replace(of, trials=(replace(of.trials[0], metrics={"val_accuracy": float("nan")}), *of.trials[1:]))
    assert drawn(of)[1].data()["runs"][0]["trials"][0]["metrics"] == {"val_accuracy": None}


def test_every_chart_is_there_twice_still_and_live_and_says_what_it_shows(whole: tuple[str, Page]) -> None:
    charts = [one for one in whole[1].all("div") if one.attributes.get("class") == "plot"]
    names = {
        "best", "curves", "rungs", "early", "importance-0", "slices", "parallel", "parameters", "seconds", "recall",
        "calibration", "confidence",
    }  # fmt: skip
    figures = [one.attributes["id"] for one in whole[1].all("figure") if "id" in one.attributes]
    assert names <= {name.removeprefix("r0-") for name in figures}
    assert len(charts) == len(whole[1].all("script", class_="spec")) == len(whole[1].all("svg"))
    assert all(len(one.attributes["aria-label"]) > 20 for one in charts)
    assert all("currentColor" in text for text in re.findall(r"<svg.*?</svg>", whole[0], re.DOTALL))


def test_the_same_run_gives_the_same_bytes(whole: tuple[str, Page]) -> None:
    assert drawn(record(), lambda *_: evaluated())[0] == whole[0]


def test_images_tell_what_they_are_and_what_was_said(whole: tuple[str, Page]) -> None:
    images = whole[1].all("img")
    assert images
    for one in images:
        assert re.fullmatch(r"index \d+: label \d, predicted \d \(\d\.\d\d\)", one.attributes["alt"])


def test_what_is_missing_is_said_in_words() -> None:
    said = "The weights of trial 0001 are no longer in the run directory."
    assert said in drawn(record(3), lambda *_: said)[1].text()
    assert run_page.NOT_ASKED in drawn(record(3))[1].text()


def test_a_run_without_trials_is_a_page_too() -> None:
    source, empty = drawn(record(trials=(), replicates=(), test_openings=0), events=())
    assert "No trial has ended yet" in empty.text()
    assert not empty.all("figure")
    assert ">None<" not in source


@pytest.mark.parametrize("state", ["failed", "pruned", "interrupted"])
def test_a_run_in_which_nothing_succeeded_is_a_page_too(state: str) -> None:
    whole = record()
    trials = tuple(one for one in whole.trials if one.state == state)
    _, shown = drawn(record(trials=trials, replicates=(), test_openings=0))
    assert "there is no champion" in shown.text()
    assert len(shown.all("details", class_="trial")) == len(trials)


def test_a_run_that_minimises_a_loss_is_a_page_too() -> None:
    whole = record()
    run_ = {**whole.run, "metric": "val_loss", "metrics": ["val_loss", "parameters"]}
    assert "leads with mean" in drawn(record(8, run=run_))[1].text()


def test_several_runs_share_a_page_and_no_id() -> None:
    of = record(8)
    pages = [run_page.page(key, of, stream(of)) for key in ("r0", "r1")]
    shown = Page(page.html(pages, script=LIBRARY))
    ids = [one.attributes["id"] for one in shown.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    assert len(shown.all("article")) == 2
    assert len(shown.data()["runs"]) == 2


def test_markdown_holds_ranking_words_and_tables() -> None:
    text = page.markdown([whole_page()])
    assert text.startswith("# made-up\n")
    assert "| Rank | Rank range | Trial | State |" in text
    lines = text.splitlines()
    ranking = lines[lines.index("## Ranking") :]
    rows = [line for line in ranking[: ranking.index("## How the search went")] if line.startswith("|")]
    assert len(rows) == 2 + 24
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "## Methods and limits" in text
    assert "### Recall of each class" in text


def test_the_library_is_embedded_once_and_ends_no_element() -> None:
    of = record(count=3)
    source = page.html([run_page.page("r0", of, ())])
    assert source.count("window.vegaEmbed=") == 1
    assert source.count("</script>") == len(Page(source).all("script"))
    assert len(source.encode()) < 1_200_000


@pytest.mark.parametrize(
    ("trials", "images", "size"),
    [(40, 1_000, 1_600_000), pytest.param(200, 5_000, 3_000_000, marks=pytest.mark.chaos)],
)
def test_a_report_stays_small_enough_to_be_sent(trials: int, images: int, size: int) -> None:
    """The limit of the short form is passed where each trial takes twice as much."""
    of = record(count=trials)
    source = page.html([run_page.page("r0", of, stream(of), lambda *_: evaluated(images=images))])
    assert len(source.encode()) <= size


def test_a_run_that_was_amended_says_when_and_by_what(whole: tuple[str, Page]) -> None:
    run_ = {**record().run, "amended": {"model.lenet": {}, "training.batch_size": [256]}}
    amended = replace(record(3), run=run_ | {"amended_at": "2026-11-25T16:20:00+00:00"}, number=3)
    text = drawn(amended)[1].text()
    assert "Amended" in text
    assert "2 times, last 2026-11-25 16:20:00 UTC: more of model.lenet and training.batch_size" in text
    assert "Amended" not in whole[1].text()
