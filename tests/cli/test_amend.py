"""The command from end to end: a search goes on in a larger space, twice, and is killed while it takes it up."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.store import durable, read_events, read_run
from mnistlab.store.fsck import check
from tests.cli.starting import IMAGES, end, run_of, start
from tests.conftest import here

pytestmark = pytest.mark.simulated

GRID = f"""
name = "grid"{IMAGES}[model.mlp]
depth = 1
width = [32, 64]
dropout = 0.1
batch_norm = true
activation = "relu"
[optimizer.sgd]
lr = 0.1
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 2
batch_size = 64
[search]
algorithm = "grid"
scheduler = "none"
[confirm]
top = 8
seeds = 1
"""
LENET = """[model.lenet]
width = 1.0
activation = "relu"
pooling = "max"
dropout = 0.0
"""
LARGER = GRID.replace("[optimizer.sgd]", f"{LENET}[optimizer.sgd]")
LARGEST = LARGER.replace("[32, 64]", "[128, 32, 64]")


def resumed(run: Path) -> list[events.RunResumed]:
    return [stamped.event for stamped in read_events(run) if isinstance(stamped.event, events.RunResumed)]


def killed_at(home: Path, point: str, *arguments: str) -> None:
    """Type a command that is killed when it passes `point`."""
    code, _, err = end(start(home, *arguments, **{durable.CRASH_AT: point}))
    assert code == -signal.SIGKILL, err


def test_a_run_goes_on_in_a_larger_space_and_everything_reads_it(home: Path) -> None:
    for name, text in (("grid", GRID), ("larger", LARGER), ("largest", LARGEST)):
        (home / f"{name}.toml").write_text(text.replace('"images"', f'"{home}/images"'))
    code, _, err = end(start(home, "search", "grid.toml"))
    assert code == 0, err
    run, first = run_of(home), (run_of(home) / "run.json").read_bytes()
    refuses_what_is_no_addition(home, run)

    # Killed before the record is in its place: it is the run that it was. Killed just after: it is the amended one.
    killed_at(home, "before-replace:1", "resume", run.name, "--amend", "larger.toml")
    assert (read_run(run).number, resumed(run)) == (1, [])
    assert not [one for one in check(run).findings if one.level == "fault"]
    killed_at(home, "after-replace:1", "resume", run.name, "--amend", "larger.toml")
    assert (read_run(run).number, resumed(run)) == (2, [])
    assert not [one for one in check(run).findings if one.level == "fault"]
    code, out, err = end(start(home, "resume", run.name))
    assert code == 0, err
    added = {"width": 1.0, "activation": "relu", "pooling": "max", "dropout": 0.0}
    (told,) = resumed(run)
    assert (told.record, told.amended, told.trials) == (2, {"model.lenet": added}, 3)
    assert "up to 3 trials in all" in err
    assert "more to choose from: [model.lenet]" in err
    assert "run-2.json" in out

    # A second amendment on top of the first one, typed in the run directory itself.
    code, out, err = end(start(home, "resume", ".", "--amend", "../../largest.toml", cwd=run))
    assert code == 0, err
    assert [(one.record, one.amended, one.changes) for one in resumed(run)][1:] == [
        (3, {"model.mlp.width": [128]}, {"search.trials": 4})
    ]
    record = read_run(run)
    assert [(one.plan["model"]["name"], one.plan["model"]["config"]["width"]) for one in record.trials] == [
        ("mlp", 32),
        ("mlp", 64),
        ("lenet", 1.0),
        ("mlp", 128),
    ]
    assert {one.state for one in record.trials} == {"complete"}
    assert [(one.trial, one.replicate) for one in record.replicates] == [(one.trial, 1) for one in record.trials]
    assert all(one.test for one in record.replicates)
    assert (run / "run.json").read_bytes() == first
    reads_it(home, run)


def refuses_what_is_no_addition(home: Path, run: Path) -> None:
    before = files_of(run)
    grid, larger = ((home / f"{name}.toml").read_text() for name in ("grid", "larger"))
    (home / "wrong.toml").write_text(grid.replace("epochs = 2", "epochs = 3").replace("[32, 64]", "[64, 128]"))
    code, _, err = end(start(home, "resume", run.name, "--amend", "wrong.toml", "--set", "seed=4"))
    assert code == 2
    assert "wrong.toml: 3 faults" in err
    for place in ("[--set seed=4]", "[model.mlp.width] must keep what it had", "[training.epochs] can't be changed"):
        assert place in err
    code, _, err = end(start(home, "resume", run.name, "--amend", "large.toml"))
    assert code == 2
    assert "did you mean 'larger.toml'?" in err
    # what adds nothing leaves nothing to do
    code, _, err = end(start(home, "resume", run.name, "--amend", "grid.toml"))
    assert code == 0
    assert "nothing is left to do" in err
    (home / "few.toml").write_text(larger.replace("[search]", "[search]\ntrials = 2"))
    code, _, err = end(start(home, "resume", run.name, "--amend", "few.toml"))
    assert code == 0
    assert "give it more by --trials; nothing was amended" in err
    assert files_of(run) == before


def files_of(run: Path) -> dict[Path, bytes]:
    """What lies in a run, but for the lock, which names whoever held it last."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


def reads_it(home: Path, run: Path) -> None:
    code, out, err = end(start(home, "confirm", run.name, "--seeds", "2"))
    assert code == 0, err
    assert len(read_run(run).replicates) == 8
    code, out, err = typed(home, "leaderboard", run.name)
    assert (code, err) == (0, "")
    assert "lenet · sgd" in out
    # Here: what draws the charts has threads, without which a fork of this process can't draw.
    assert here(home)("report", run.name, "--output", "page.html").code == 0
    assert "lenet" in (home / "page.html").read_text()
    code, out, err = typed(home, "reproduce", run.name, "0002")
    assert code == 0, out + err
    code, out, err = typed(home, "fsck", run.name, "--json")
    assert [one for one in json.loads(out)["findings"] if one["level"] == "fault"] == []
    content = (run / "run-3.json").read_bytes()
    (run / "run-3.json").write_bytes(content[:-9])
    for command in ("leaderboard", "resume"):
        code, out, err = typed(home, command, run.name)
        assert code == 6
        assert "run-3.json is damaged" in err


def typed(home: Path, *arguments: str) -> tuple[int, str, str]:
    return end(start(home, *arguments, plain=False))
