"""A report is for others: nothing in it says in which folders of a machine a run was made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mnistlab.api import DataPlace
from mnistlab.leaderboard import rank
from mnistlab.plugins.discovery import Selection
from mnistlab.report import page, run_page
from mnistlab.report.as_json import as_data
from mnistlab.report.predictions import evaluated
from mnistlab.report.redact import public_command, without_folders
from mnistlab.store.results import RunRecord
from tests.report.runs import record, stream

HERE = "/home/me/my secret"
COMMAND = f"mnistlab search '{HERE}/exp.toml' --data-dir '{HERE}/mnist' --set 'data.idx.folder={HERE}/own'"


def told(where: str = f"{HERE}/runs/made-up") -> RunRecord:
    """A run that says wherever it can in which folder it was made."""
    of = record(6)
    data = {**of.run["dataset"], "source": f"{HERE}/mnist (fetched)", "fallback": f"there is none in {HERE}/mnist"}
    experiment = {**of.run["experiment"], "data": {"dataset": "idx", "idx": {"folder": f"{HERE}/own"}}}
    why = {"bad 1.0 (bad)": f"ImportError: cannot import name 'x' from 'bad' ({where}/plugins/bad.py)"}
    body = {**of.run, "command": COMMAND, "dataset": data, "experiment": experiment, "plugins_not_loaded": why}
    trials = tuple(replace(one, message=one.message and f"No space left: '{HERE}/x'") for one in of.trials)
    lost = replace(of.replicates[-1], cause="error", message=f"can't read {where}/trials/0001/x", test=None)
    replicates = (*of.replicates[:-1], lost)
    asked = ({"kind": "planned", "command": f"mnistlab confirm '{where}' --top 2"},)
    return replace(of, path=where, run=body, trials=trials, replicates=replicates, confirmations=asked)


@pytest.mark.parametrize("said", [f"can't read {HERE}/runs/made-up/trials/0000/weights.safetensors: gone", ""])
def test_a_whole_report_names_no_folder_of_a_machine(said: str) -> None:
    of = told()
    pages = [run_page.page("r0", of, stream(of), (lambda *_: said) if said else None)]
    for text in (page.html(pages, script=""), page.markdown(pages), json.dumps(as_data(pages))):
        for word in ("secret", "/home", "/runs"):
            assert word not in text
    shown = page.markdown(pages)
    assert "mnistlab search exp.toml --data-dir mnist --set data.idx.folder=own" in shown
    assert not said or "can't read made-up/trials/0000/weights.safetensors" in shown
    body = as_data(pages)["runs"][0]
    assert body["run"]["dataset"]["source"] == "mnist (fetched)"
    assert body["run"]["experiment"]["data"]["idx"] == {"folder": "own"}
    assert body["confirmations"] == [{"kind": "planned", "command": "mnistlab confirm made-up --top 2"}]
    assert body["run"]["plugins_not_loaded"]["bad 1.0 (bad)"].endswith("from 'bad' (made-up/plugins/bad.py)")


def test_why_the_models_could_not_be_asked_names_no_folder(tmp_path: Path) -> None:
    of = told(str(tmp_path / "my runs" / "made-up"))
    for one in of.replicates:
        weights = Path(of.path) / "trials" / one.trial / "replicates" / str(one.replicate) / "weights.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    body = {**of.run, "dataset": {**of.run["dataset"], "plugin": "mnistlab:mnist", "name": "mnist", "fallback": ""}}
    of = replace(of, run={**body, "experiment": {"data": {"dataset": "mnist"}}})
    empty = tmp_path / "no images"
    empty.mkdir()
    place = DataPlace(data_dir=empty, cache=tmp_path / "my cache", offline=True)
    said = evaluated(of, rank(of), Selection(only_built_in=True), place)
    assert isinstance(said, str)
    assert "no images" in said
    assert str(tmp_path) not in said
    assert "read it from: mnist" in said


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("can't read /home/me/x.toml: No such file", "can't read x.toml: No such file"),
        ("File '/home/my self/a b.py', line 3", "File 'a b.py', line 3"),
        ('"/data"', '"data"'),
        ("(/home/me/x.py:12)", "(x.py:12)"),
        ("read from:/home/me/mnist/", "read from:mnist"),
        ("at file:///home/me/x", "at file://x"),
        ("see https://example.org/a/b?c=/d/e", "see https://example.org/a/b?c=e"),
        ("1/2 and a/b/c and ./x/y, ~/x/y", "1/2 and a/b/c and ./x/y, ~/x/y"),
        ("</script> [/link] 1 /2", "</script> [/link] 1 /2"),
        ("scikit-learn, load_digits()", "scikit-learn, load_digits()"),
    ],
)
def test_a_path_is_its_last_part(text: str, left: str) -> None:
    assert without_folders(text) == left


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("mnistlab search exp/a.toml --trials 8", "mnistlab search exp/a.toml --trials 8"),
        ("mnistlab search /a/exp.toml --data-dir=/home/me/x", "mnistlab search exp.toml --data-dir=x"),
        ("mnistlab search '/a/my exp.toml'", "mnistlab search 'my exp.toml'"),
        ("mnistlab.search('/home/me/exp.toml', set=['seed=1'])", "mnistlab.search('exp.toml', set=['seed=1'])"),
        ("mnistlab search 'never closed /home/me/x", "mnistlab search 'never closed x"),
    ],
)
def test_a_command_can_still_be_typed(command: str, left: str) -> None:
    assert public_command(command) == left
