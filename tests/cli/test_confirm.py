"""`mnistlab confirm` from end to end, on a run that `mnistlab search` has left; and what it refuses to go on with."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mnistlab.data import default_place
from mnistlab.errors import DataError, MnistlabError, PluginError, RunDirectoryError
from mnistlab.events import RunFinished
from mnistlab.experiment.versions import doubts_of_numbers
from mnistlab.store import read_events, read_lines, read_run
from mnistlab.tuning.reopen import reopen_run
from tests.cli.starting import end, run_of, start
from tests.conftest import Ran

pytestmark = pytest.mark.simulated

PLUGIN = """
from torch import nn
from mnistlab.api import Config, Model, hookimpl


class Nothing(Config):
    pass


@hookimpl
def mnistlab_models():
    build = lambda config, shape: nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, shape.classes))
    return [Model(name="line", config=Nothing, build=build, summary="One layer.")]
"""
EXPERIMENT = """
name = "tiny"
seed = 3
[data]
dataset = "mnist"
offline_fallback = "digits"
[model.line]
[optimizer.adamw]
lr = [0.003, 0.001]
weight_decay = 0.01
beta1 = 0.9
beta2 = 0.99
schedule = "constant"
warmup = 0.0
[training]
epochs = 2
batch_size = 64
[search]
trials = 2
scheduler = "none"
[confirm]
top = 1
baseline = false
seeds = 1
"""


@pytest.fixture(scope="module")
def home(ended: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("confirm")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    (folder / "one_line.py").write_text(PLUGIN)
    done = command(folder, "search", "tiny.toml", "--plugin", "one_line.py")
    assert done.code == 0, done.err
    (folder / "one_line.py").unlink()  # the run directory keeps its source
    return folder


def command(folder: Path, *arguments: str, **environment: str) -> Ran:
    """Run a command that looks for MNIST in vain."""
    return Ran(*end(start(folder, *arguments, **environment)))


def test_a_finished_run_gets_what_it_lacks_and_its_events_go_on(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(run_of(home), run)
    before = list(read_events(run))
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"schema":"mnistlab.event/1","seq":')  # what a writer that died has left of a line
    done = command(home, "confirm", str(run), "--top", "2", "--seeds", "2")
    assert done.code == 0, done.err
    record, stream = read_run(run), list(read_events(run))
    assert Counter(r.trial for r in record.replicates) == {"0000": 2, "0001": 2}
    assert all(r.test for r in record.replicates)
    assert [stamped.seq for stamped in stream] == list(range(1, len(stream) + 1))
    assert stream[: len(before)] == before
    assert sorted(stamped.t for stamped in stream) == [stamped.t for stamped in stream]
    assert [type(stamped.event) for stamped in stream].count(RunFinished) == 2
    assert len(done.err.splitlines()) < len(stream) - len(before)  # nothing of the search is said again
    assert "the test set was opened 2 times" in done.out
    opened = [entry for entry in read_lines(run / "test_ledger.jsonl") if entry["type"] == "opened"]
    assert [len(entry["models"]) for entry in opened] == [1, 3]
    assert opened[1]["command"].startswith("mnistlab confirm")


def test_a_confirmation_that_was_killed_is_gone_on_with_by_resume(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(run_of(home), run)
    # Of two seeds that it lacks, the first one to end has its weights, and no result yet.
    killed = command(home, "confirm", str(run), "--seeds", "3", MNISTLAB_CRASH_AT="after-replace:1")
    assert killed.code == -signal.SIGKILL, killed.err
    assert [one.replicate for one in read_run(run).replicates] == [1]
    done = command(home, "confirm", str(run))
    assert f"one that asked for more was cut off, and goes on by: mnistlab resume {run}" in done.err
    done = command(home, "resume", str(run))
    assert done.code == 0, done.err
    assert "confirmation: 1 plan (" in done.err
    assert "on 3 fresh seeds each" in done.err
    record = read_run(run)
    assert [one.replicate for one in record.replicates] == [1, 2, 3]
    assert all(one.test for one in record.replicates)
    assert record.test_openings == 2
    before = (run / "events.jsonl").read_bytes()
    done = command(home, "resume", str(run))
    assert done.code == 0
    assert "nothing is left to do" in done.err
    assert "the run's own copy is used" in done.err
    assert (done.out, f"Next: mnistlab leaderboard {run}" in done.err) == ("", True)
    assert (run / "events.jsonl").read_bytes() == before


def test_where_nothing_is_missing_nothing_is_written(home: Path) -> None:
    run = run_of(home)
    before = {path: path.read_bytes() for path in sorted(run.glob("*.jsonl"))}
    done = command(home, "confirm", run.name)
    assert done.code == 0, done.err
    assert "nothing was trained" in done.err
    assert "the test set was opened once" in done.out
    assert {path: path.read_bytes() for path in sorted(run.glob("*.jsonl"))} == before


@pytest.fixture
def spoilt(home: Path, tmp_path: Path) -> Path:
    """A copy of the run for a test to change."""
    shutil.copytree(run_of(home), tmp_path / "copy")
    return tmp_path / "copy"


def change(run: Path, name: str, **values: Any) -> None:
    """Give the table `name` of run.json other values, or the whole of it where `name` is ""."""
    record = json.loads((run / "run.json").read_text())
    (record[name] if name else record).update(values)
    (run / "run.json").write_text(json.dumps(record))


def refusal(run: Path, kind: type[MnistlabError]) -> str:
    with pytest.raises(kind) as caught:
        reopen_run(run, default_place(None))
    return str(caught.value)


def test_a_run_is_opened_with_the_split_that_it_was_made_with(spoilt: Path) -> None:
    found = reopen_run(spoilt, default_place(None), top=7, seeds=9)
    assert found.data.division.validation.tolist() == found.record.run["dataset"]["validation_indices"]
    assert found.data.choice.record.name == "digits"
    assert found.data.fallback
    assert (found.experiment.spec.confirm.top, found.experiment.spec.confirm.seeds) == (7, 9)
    assert found.experiment.spec.search.trials == 2
    assert doubts_of_numbers(found.record) == []


def test_another_version_of_a_library_is_a_warning(spoilt: Path) -> None:
    change(spoilt, "versions", torch="0.1")
    (warning,) = doubts_of_numbers(read_run(spoilt))
    assert warning.startswith("this run was made with torch 0.1, and is gone on with ")


def test_other_data_are_refused_with_what_differs(spoilt: Path) -> None:
    record = read_run(spoilt).run["dataset"]
    change(spoilt, "dataset", sha256=dict.fromkeys(record["sha256"], "0" * 64), images_sha256="1" * 64, test=7)
    text = refusal(spoilt, DataError)
    assert "was made with other data than is here" in text
    assert f"sha256 {'0' * 64} then, " in text
    assert f"{record['train'] + record['validation']} + 7 images then" in text
    assert f"training images and labels: sha256 {'1' * 64} then" in text


def test_another_split_than_its_own_sha256_says_is_refused(spoilt: Path) -> None:
    indices = read_run(spoilt).run["dataset"]["validation_indices"]
    change(spoilt, "dataset", validation_indices=[*indices[:-1], indices[-1] + 1])
    assert "its split is not the one that its sha256 stands for" in refusal(spoilt, RunDirectoryError)


def test_a_plugin_of_another_version_is_refused_by_name(spoilt: Path) -> None:
    source = spoilt / "plugins" / "one_line.py"
    made = read_run(spoilt).run["plugin_files"]["one_line.py"]
    source.write_text(source.read_text() + "\n# changed\n")
    text = refusal(spoilt, PluginError)
    assert f"one_line.py {made} is needed, but one_line.py 0+sha256." in text


def test_a_run_of_which_no_trial_used_its_budget_has_nothing_to_confirm(spoilt: Path) -> None:
    shutil.rmtree(spoilt / "trials")
    assert "there is nothing to confirm" in refusal(spoilt, MnistlabError)
