"""`mnistlab plugins new` as its user types it."""

from __future__ import annotations


def test_it_prints_what_it_wrote_and_where(run_here, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    ran = run_here("plugins", "new", "my-shade", "--kind", "transform", "--in", "elsewhere")
    assert (ran.code, ran.err) == (0, "")
    root = tmp_path / "elsewhere" / "mnistlab-my-shade"
    assert sorted(tmp_path / line for line in ran.out.splitlines()) == sorted(p for p in root.rglob("*") if p.is_file())
    assert "mnistlab_transforms" in (root / "mnistlab_my_shade" / "__init__.py").read_text()


def test_a_hostile_name_is_one_harmless_message(run_here, tmp_path):
    ran = run_here("plugins", "new", "\x1b[31m[red]<b>../Net[/red]")
    assert (ran.code, ran.out) == (2, "")
    said = r"mnistlab: plugin name '\x1b[31m[red]<b>../Net[/red]' must be 1 to 64 lower-case letters"
    assert ran.err.startswith(said)
    assert ran.err.endswith("; for example 'm-red-b-net-red'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_one_message(run_here, tmp_path):
    (tmp_path / "mnistlab-my-net").mkdir()
    (tmp_path / "mnistlab-my-net" / "mine.txt").touch()
    ran = run_here("plugins", "new", "my-net")
    said = "mnistlab: mnistlab-my-net: is there already; choose another name, or another folder by --in"
    assert (ran.code, ran.out, ran.err.strip()) == (2, "", said)
    assert [path.name for path in (tmp_path / "mnistlab-my-net").iterdir()] == ["mine.txt"]


def test_an_unknown_kind_is_refused(run_here, tmp_path):
    ran = run_here("plugins", "new", "my-net", "--kind", "modle")
    assert ran.code == 2
    assert "'modle'" in ran.err
    assert list(tmp_path.iterdir()) == []
