"""What a report says has to be typed for the same run gives the same run on another machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events as ev
from mnistlab.api import DataPlace
from mnistlab.experiment import loader
from mnistlab.experiment.dataset import find_data
from mnistlab.experiment.spec import Draft, spec_json
from mnistlab.report import run_page
from mnistlab.report.rerun import search_command, trial_command
from mnistlab.store.results import RunRecord
from mnistlab.tuning.record import _dataset_record
from tests.report.runs import record

TEXT = """
name = "x"
[data]
dataset = "mnist"
offline_fallback = "digits"
validation = {validation}
split = "{split}"
{train}
[model.mlp]
"""


def fallen_back(**changes: Any) -> RunRecord:
    """A run that asked for mnist and took digits."""
    one = record(2)
    data = one.run["dataset"] | {"requested": "mnist", "fallback": "mnist is not here"}
    asked = {"dataset": "mnist", "offline_fallback": "digits", "validation": 1 / 6, "split": "stratified"} | changes
    return replace(one, run=one.run | {"dataset": data, "experiment": {**one.run["experiment"], "data": asked}})


def typed(of: RunRecord, command: str) -> str:
    return search_command(replace(of, run={**of.run, "command": command}), ())


@pytest.mark.parametrize("split", ["stratified", "writer"])
@pytest.mark.parametrize("validation", ["0.2", "300", "5_000", "0.9"])
@pytest.mark.parametrize("train", ["", "train = 0.3", "train = 50", "train = 2_000"])
def test_the_command_of_a_run_that_fell_back_gives_the_same_images(
    split: str, validation: str, train: str, tmp_path: Path, builtins
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TEXT.format(validation=validation, split=split, train=train), encoding="utf-8")
    place = DataPlace(data_dir=None, cache=tmp_path / "cache", offline=True)
    first = loader.load(path, (), builtins)
    data = find_data(first, place)
    assert data.fallback
    body = record(2).run | {"dataset": _dataset_record(first, data), "experiment": spec_json(first.spec)}
    words = typed(replace(record(2), run=body), f"mnistlab search {path}").split(" --set ")[1:]

    again = find_data(loader.load(path, words, builtins), place)
    assert not again.fallback
    assert (again.choice.record.name, again.division.digest()) == ("digits", data.division.digest())
    assert again.division.train.tolist() == data.division.train.tolist()


def test_a_run_of_the_data_that_it_asked_for_is_typed_as_it_was() -> None:
    for command in ("mnistlab search a.toml --set data.dataset=digits --plugin my_net.py", "mnistlab.search('a.toml')"):
        assert typed(record(2), command) == command


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mnistlab search a.toml", "mnistlab search a.toml --set data.dataset=digits"),
        (
            "mnistlab search a.toml --set data.dataset=mnist --plugin my_net.py --data-dir x",
            "mnistlab search a.toml --set data.dataset=mnist --plugin my_net.py --data-dir x --set data.dataset=digits",
        ),
        ("mnistlab.search('a.toml')", "mnistlab.search('a.toml', set=['data.dataset=digits'])"),
        (
            "mnistlab.search('a.toml', set=['seed=1'])",
            "mnistlab.search('a.toml', set=['seed=1', 'data.dataset=digits'])",
        ),
    ],
)
def test_a_run_that_fell_back_names_the_dataset_that_it_took(command: str, said: str) -> None:
    assert typed(fallen_back(), command) == said


def test_the_table_of_the_dataset_that_was_asked_for_stays_a_used_one(builtins) -> None:
    said = typed(fallen_back(dataset="idx", idx={"folder": "letters"}), "mnistlab search a.toml")
    assert said == "mnistlab search a.toml --set data.dataset=digits --set data.offline_fallback=idx"
    data = {"dataset": "digits", "offline_fallback": "idx", "idx": {"folder": "letters"}}
    loader.judge(Draft("a.toml", {"name": "x", "model": {"mlp": {}}, "data": data}), builtins)


def test_an_amended_run_is_its_first_command_and_what_came_later() -> None:
    of = replace(
        record(2), number=2, run=record(2).run | {"command": "mnistlab resume made-up --amend /home/me/b.toml"}
    )
    about: dict[str, Any] = {"trials": 9, "parallel": 1, "devices": "1 CPU", "counts": {}}
    told = [
        ev.RunResumed(command="mnistlab resume made-up", **about),  # it was killed: nothing that has to be done again
        ev.RunResumed(command="mnistlab resume made-up --trials 9", changes={"search.trials": 9}, **about),
        ev.RunResumed(command=of.run["command"], amended={"model.mlp": {}}, **about),
    ]
    stream = tuple(ev.Stamped(seq=i, time=datetime(2026, 1, 1, tzinfo=UTC), t=1.0, event=e) for i, e in enumerate(told))
    said = "mnistlab search b.toml && mnistlab resume made-up --trials 9 && mnistlab resume made-up --amend b.toml"
    assert search_command(of, stream, "mnistlab search /home/me/b.toml") == said
    assert run_page.page("r0", of, stream, began="mnistlab search /home/me/b.toml").command == said


def test_a_trial_of_a_plugin_file_is_reproduced_with_the_run_s_own_copy_of_it() -> None:
    of = record(2)
    about = of.run | {"plugin_files": {"my_net.py": "0+sha256.1", "other.py": "0+sha256.2"}}
    own = {"name": "mlp", "distribution": "mnistlab", "config": {}}
    file = {"name": "net", "distribution": "my_net.py", "config": {}}
    for plan in (
        {"model": file, "optimizer": own, "transforms": []},
        {"model": own, "optimizer": own, "transforms": [file]},
    ):
        said = trial_command("made-up", replace(of.trials[0], plan=plan), about)
        assert said == "mnistlab reproduce made-up 0000 --plugin runs/made-up/plugins/my_net.py"
    plan = {"model": own, "optimizer": own, "transforms": []}
    assert trial_command("made-up", replace(of.trials[0], plan=plan), about) == "mnistlab reproduce made-up 0000"
    about["dataset"] = about["dataset"] | {"plugin": "other.py:letters"}
    assert trial_command("made-up", replace(of.trials[0], plan=plan), about).endswith("plugins/other.py")
