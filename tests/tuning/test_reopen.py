"""A run that goes on: which record holds, which earlier changes are part of it, what an amended file says of trials."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mnistlab import __version__, events
from mnistlab.api import DataPlace
from mnistlab.errors import PluginError, RunDirectoryError, SpecError
from mnistlab.store import RunWriter, read_run
from mnistlab.store.results import TrialResult
from mnistlab.tuning import run as runner
from mnistlab.tuning.reopen import Reopened, reopen_search

ASSET = Path(__file__).parents[1] / "assets" / "run-of-format-1"
FILE = """
name = "golden"
[data]
dataset = "digits"
validation = 100
[model.mlp]
depth = 1
width = [32, 64]
[training]
epochs = 2
batch_size = 64
[search]
trials = 3
algorithm = "random"
scheduler = "none"
[confirm]
top = 1
seeds = 2
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ASSET, tmp_path / "runs" / "golden-1"))


@pytest.fixture
def place(tmp_path: Path) -> DataPlace:
    return DataPlace(data_dir=None, cache=tmp_path / "cache", offline=True)


def went_on(run: Path, record: int, **changes: object) -> None:
    """Tell that another driver took up the run."""
    about: dict[str, Any] = {"command": "mnistlab resume", "trials": 3, "parallel": 1, "devices": "1 CPU", "counts": {}}
    named = {key.replace("__", "."): value for key, value in changes.items()}
    writing(run, lambda writer: writer.append(events.RunResumed(**about, changes=named, record=record)))


def writing(run: Path, work: Any) -> None:
    writer = RunWriter(run)
    try:
        work(writer)
    finally:
        writer.close()


def amend(run: Path, trials: int) -> None:
    """Write an amended record, as a driver does that dies right after it."""
    before = read_run(run).run
    search = {**before["experiment"]["search"], "trials": trials}
    body = {**before, "experiment": {**before["experiment"], "search": search}, "amended": {"model.cnn": {}}}
    writing(run, lambda writer: writer.write_amended(body))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The run's own experiment with another option of a setting that was fixed."""
    (tmp_path / "larger.toml").write_text(FILE)
    return tmp_path / "larger.toml"


def trials_of(found: Reopened) -> int:
    return found.experiment.spec.search.trials


def test_changes_are_applied_on_top_of_the_record_that_they_came_after(run: Path, place: DataPlace) -> None:
    went_on(run, 1, search__trials=9)
    assert trials_of(reopen_search(run, place)) == 9
    amend(run, 20)
    found = reopen_search(run, place)
    assert (trials_of(found), found.record.number, found.untold) == (20, 2, {"model.cnn": {}})
    went_on(run, 2, search__trials=30)
    found = reopen_search(run, place)
    assert (trials_of(found), found.untold) == (30, {})
    assert trials_of(reopen_search(run, place, ["search.trials=31"])) == 31


def test_a_record_that_the_events_tell_of_and_that_is_not_there_is_refused(run: Path, place: DataPlace) -> None:
    amend(run, 20)
    went_on(run, 2)
    (run / "run-2.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"has lost run-2\.json, which holds its experiment since an amendment"):
        reopen_search(run, place)


def test_a_run_that_was_amended_since_it_was_read_is_not_written_to(run: Path, place: DataPlace) -> None:
    found = reopen_search(run, place, ["search.trials=9"])
    amend(run, 20)
    before = (run / "events.jsonl").read_bytes()
    options = runner.Options(runs=run.parent, place=place, address=None, command="mnistlab resume")
    with pytest.raises(RunDirectoryError, match="was amended meanwhile, by another process: start again"):
        runner.resume(found, options, lambda _: pytest.fail("nothing is to be shown"))
    assert (run / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("again", [False, True])
def test_where_only_the_confirmation_is_left_no_trial_is_taken_up_again_nor_forgotten(
    run: Path, place: DataPlace, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    (run / "test_ledger.jsonl").unlink()
    shutil.rmtree(run / "trials" / "0002" / "replicates")
    went_on(run, 1, search__trials=9, search__time_budget=60.0)
    plan = read_run(run).trials[0].plan
    failed = {"trial": "0003", "cause": "nan", "message": "the loss became nan"}
    cut: dict[str, Any] = {"trial": "0004"}
    writing(
        run,
        lambda writer: (
            writer.append(events.TrialStarted(trial="0003", number=3, seed=3, label="mlp", plan=plan)),
            writer.append(events.TrialStarted(trial="0004", number=4, seed=4, label="mlp", plan=plan)),
            writer.write_trial(TrialResult(number=3, state="failed", seed=3, label="mlp", plan=plan, **failed)),
            writer.append(events.TrialFailed(epoch=0, log="log.txt", **failed)),
            writer.write_trial(TrialResult(number=4, state="interrupted", seed=4, label="mlp", plan=plan, **cut)),
            writer.append(events.TrialInterrupted(epoch=0, metrics={}, seconds=1.0, reason="time budget", **cut)),
        ),
    )

    confirmed: list[list[str]] = []
    monkeypatch.setattr(runner, "run_search", lambda *_: pytest.fail("there is no time to search"))
    monkeypatch.setattr(runner, "confirm", lambda _job, trials, *_: confirmed.append([one.trial for one in trials]))
    options = runner.Options(runs=run.parent, place=place, address=None, command="mnistlab resume", executor="local")
    seen: list[events.Event] = []
    view = nullcontext(lambda stamped: seen.append(stamped.event))
    done = runner.resume(reopen_search(run, place), options, lambda _: view, again=again)
    (told,) = [one for one in seen if isinstance(one, events.RunResumed)]
    counts = {"complete": 3, "failed": 1, "interrupted": 1}
    assert (told.again, told.counts) == ((), counts)
    assert done is not None
    assert done.end.counts == counts
    assert len(confirmed) == 1


def test_a_plugin_file_that_a_run_has_lost_is_no_mistake_of_who_goes_on_with_it(run: Path, place: DataPlace) -> None:
    record = json.loads((run / "run.json").read_text())
    record.pop("crc", None)
    (run / "run.json").write_text(json.dumps(record | {"plugin_files": {"mine.py": "0+sha256.0"}}))
    with pytest.raises(PluginError, match=r"plugins/mine\.py: does not exist") as caught:
        reopen_search(run, place)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ({"mnistlab": "0.0.9"}, f"mnistlab 0.0.9 was used, but mnistlab {__version__} is here"),
        ({"gone-net": "1.0"}, "gone-net 1.0 was used, but no plugin of that name is here"),
    ],
)
def test_a_search_does_not_go_on_with_another_version_of_a_plugin_that_it_has_used(
    run: Path, place: DataPlace, used: dict[str, str], said: str
) -> None:
    record = json.loads((run / "run.json").read_text())
    record.pop("crc", None)
    (run / "run.json").write_text(json.dumps(record | {"plugins": record["plugins"] | used}))
    with pytest.raises(PluginError) as caught:
        reopen_search(run, place)
    assert str(caught.value) == f"{run} was made with other plugins:\n  {said}"


# --- amended files ------------------------------------------------------------------------------------------------


def test_an_amended_file_gives_the_space_and_what_it_says_of_trials_unless_an_option_does(
    run: Path, place: DataPlace, file: Path
) -> None:
    found = reopen_search(run, place, amend=file)
    assert (found.added, found.changes, trials_of(found)) == ({"model.mlp.width": [64]}, {}, 3)
    assert [one.path for one in found.experiment.space.parameters()][:1] == ["model.mlp.width"]
    file.write_text(FILE.replace("trials = 3", 'trials = 7\ntime_budget = "2h"'))
    found = reopen_search(run, place, amend=file)
    assert found.changes == {"search.trials": 7, "search.time_budget": "2h"}
    assert (trials_of(found), found.experiment.spec.search.time_budget) == (7, 7200.0)
    found = reopen_search(run, place, ["search.trials=8", "resources.max_parallel=1"], file)
    assert found.changes == {"search.trials": 8, "search.time_budget": "2h", "resources.max_parallel": 1}
    assert (trials_of(found), found.experiment.spec.resources.max_parallel) == (8, 1)


def test_what_a_file_leaves_as_it_was_does_not_take_back_what_the_run_was_given_since(
    run: Path, place: DataPlace, file: Path
) -> None:
    went_on(run, 1, search__trials=9)
    assert trials_of(reopen_search(run, place, amend=file)) == 9


def test_a_second_file_that_counts_fewer_trials_takes_none_away(run: Path, place: DataPlace, file: Path) -> None:
    amend(run, 20)  # by a first file, or by --trials before it
    file.write_text(FILE.replace("trials = 3", "trials = 7").replace("batch_size = 64", "batch_size = [64, 128]"))
    found = reopen_search(run, place, amend=file)
    assert (trials_of(found), found.changes) == (20, {})
    file.write_text(FILE.replace("trials = 3", "trials = 21"))
    assert trials_of(reopen_search(run, place, amend=file)) == 21


def test_a_file_that_says_nothing_of_time_outs_leaves_those_that_were_set_since(
    run: Path, place: DataPlace, file: Path
) -> None:
    went_on(run, 1, search__stall_timeout="5m", search__trial_timeout="1h")
    found = reopen_search(run, place, amend=file)
    search = found.experiment.spec.search
    assert (search.stall_timeout, search.trial_timeout, found.changes) == (300.0, 3600.0, {})
    file.write_text(FILE.replace("trials = 3", 'trials = 3\nstall_timeout = "2m"'))
    found = reopen_search(run, place, amend=file)
    search = found.experiment.spec.search
    assert (search.stall_timeout, search.trial_timeout) == (120.0, 3600.0)
    assert found.changes == {"search.stall_timeout": "2m"}


def test_wrong_options_and_what_is_no_addition_are_named_together(run: Path, place: DataPlace, file: Path) -> None:
    file.write_text(FILE.replace("epochs = 2", "epochs = 3").replace("seeds = 2", "seeds = 4"))
    with pytest.raises(SpecError) as caught:
        reopen_search(run, place, ["seed=4"], file)
    assert [one.place for one in caught.value.faults] == ["--set seed=4", "confirm.seeds", "training.epochs"]
    file.write_text(FILE)
    with pytest.raises(SpecError, match=r"--set seed=4"):
        reopen_search(run, place, ["seed=4"], file)
