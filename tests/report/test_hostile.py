"""One plugin whose every word is an attack: nothing of it may be obeyed by whatever shows the report."""

from __future__ import annotations

import json
import re

import pytest

from mnistlab.report import page, run_page
from tests.report.pages import Page
from tests.report.runs import EVIL, evil, evil_page, whole_page

pytestmark = pytest.mark.simulated

TAGS = {"script", "img", "input"}


@pytest.fixture(scope="module")
def source() -> str:
    return page.html([evil_page()], script="/* */")


@pytest.fixture(scope="module")
def markdown() -> str:
    return page.markdown([evil_page()])


def test_no_element_and_no_attribute_comes_from_a_plugin(source: str) -> None:
    ours = Page(page.html([whole_page()], script="/* */"))
    known = {(one.tag, name) for one in ours.elements for name in one.attributes}
    shown = Page(source)
    assert {one.tag for one in shown.elements} <= {one.tag for one in ours.elements} | {"p"}
    extra = {(one.tag, name) for one in shown.elements for name in one.attributes} - known
    assert not {pair for pair in extra if pair[1].startswith("on") or pair[1] in {"src", "href", "style"}}, extra
    assert all(one.attributes["src"].startswith("data:image/png;base64,") for one in shown.all("img"))
    assert all(one.attributes["href"].startswith("#") for one in shown.all("a"))


def test_only_our_own_scripts_are_there(source: str) -> None:
    working = [one.text for one in Page(source).all("script") if "type" not in one.attributes]
    assert len(working) == 2
    assert not any("alert" in text for text in working)
    assert source.count("</script") == len(Page(source).all("script"))


def test_data_and_specifications_read_back_as_they_were(source: str) -> None:
    shown = Page(source)
    assert shown.data()["runs"][0]["run"]["rule"] == EVIL
    for one in shown.all("script", class_="spec"):
        assert "<" not in one.text
        json.loads(one.text)


def test_no_control_or_direction_sign_is_left_where_people_read(source: str) -> None:
    for text in (source, page.markdown([run_page.page("r0", evil(4), ())])):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069]", text)


def test_long_names_are_cut_where_they_are_shown(source: str) -> None:
    shown = Page(source.partition('<script type="application/json" id="mnistlab-data">')[0] + "</body></html>")
    assert "x" * 9_000 not in shown.text()
    assert "x" * 2_500 not in "".join(one.text for one in shown.all("svg"))


def test_templates_are_not_run_on_what_plugins_say(source: str) -> None:
    assert "{{ 7 * 7 }}" in Page(source).text()


def test_markdown_makes_no_link_no_picture_no_html_and_no_heading_of_it(markdown: str) -> None:
    bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", markdown))
    assert not re.search(r"[<>!\[\]$`]", bare), re.findall(r".{20}[<>!\[\]$`].{20}", bare)[:3]
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert "# heading" not in headings
    assert "www.evil" not in bare


def test_a_table_of_markdown_keeps_its_columns(markdown: str) -> None:
    lines = markdown.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Rank"))
    table = lines[start : start + 26]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {len(re.findall(r"\|", table[0]))}


def test_code_of_markdown_ends_where_it_should() -> None:
    assert str(page.markdown_code("a `` b")) == "``` a `` b ```"
    assert str(page.markdown_code("a\nb")) == r"`a\nb`"
