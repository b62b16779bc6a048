"""The kept breaks fit the tree: each patch can be applied, and has a row of the table that names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.breaks.patches import HERE, NoSuchBreakError, patch_file, read_patch, table

ROOT = Path(__file__).parents[1]
FILES = sorted(HERE.glob("*.patch"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_break_fits_the_tree(file: Path) -> None:
    patch = read_patch(file)
    before = (ROOT / patch.path).read_text(encoding="utf-8")
    after = patch.changed(before)
    assert after != before
    if patch.path.endswith(".py"):
        compile(after, patch.path, "exec")  # what is no Python would be found by anything


def test_every_patch_has_a_row_that_says_the_same_and_every_row_a_patch() -> None:
    rows = table()
    assert [one.name for one in rows] == [file.stem for file in FILES]
    assert {one.name: one.breaks for one in rows} == {file.stem: read_patch(file).says for file in FILES}


def test_the_tests_of_every_break_are_there_and_found_it() -> None:
    for one in table():
        assert one.now, one.name
        assert one.tests, one.name
        for test in one.tests:
            path, *names = test.split("::")
            assert (ROOT / path).is_file(), test
            assert all(name.partition("[")[0] in (ROOT / path).read_text(encoding="utf-8") for name in names), test


def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    patch = read_patch(FILES[0])
    with pytest.raises(NoSuchBreakError, match="are 0 times in"):
        patch.changed("something else\n")
    with pytest.raises(NoSuchBreakError, match="are 2 times in"):
        patch.changed(patch.old * 2)
    file = tmp_path / "000-none.patch"
    file.write_text(patch_file(FILES[0].stem).read_text(encoding="utf-8").removeprefix("Breaks: "))
    with pytest.raises(NoSuchBreakError, match="no sentence"):
        read_patch(file)
