"""The command from end to end: training, confirmation, the sealed test set, the ranking; with a Ray, and without."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load

from mnistlab import events
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.store import read_events, read_lines
from mnistlab.util.seeds import replicate_seed
from tests.cli.starting import (
    MOODY,
    check_interrupted,
    end,
    home_for_ray,
    of_ours,
    run_of,
    start,
    start_on_ray,
    wait_for,
    wait_until,
)
from tests.conftest import RunCli
from tests.tuning.conftest import DISTS

EXPERIMENT = """
name = "tiny"
seed = 3
[data]
dataset = "mnist"
offline_fallback = "digits"
[model.line]
width = [32, 64]
[optimizer.adamw]
lr = 0.01
[training]
epochs = 4
batch_size = 64
[search]
trials = 2
scheduler = "none"
[confirm]
top = 1
baseline = false
seeds = 2
"""
PLUGIN = '''
from typing import Annotated
from torch import nn
from mnistlab.api import Choice, Config, Model, hookimpl


class Line(Config):
    """How wide the one hidden layer is."""

    width: Annotated[int, Choice(32, 64)] = 32


def build(config, shape):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape.pixels, config.width), nn.ReLU(), nn.Linear(config.width, shape.classes)
    )


@hookimpl
def mnistlab_models():
    return [Model(name="line", config=Line, build=build, summary="One hidden layer.")]
'''
ONE = ("--set", "resources.max_parallel=1")
Whole = tuple[Path, str, str, int]


@pytest.fixture(scope="module")
def whole(digits: Path) -> Iterator[Whole]:
    """A run with a Ray and a plugin of one file; a RAY_ADDRESS that must not be followed is in the environment."""
    with home_for_ray(digits, EXPERIMENT) as folder:
        (folder / "one_line.py").write_text(PLUGIN)
        offline = {"RAY_ADDRESS": "127.0.0.1:1", "COLUMNS": "240"}
        code, out, err = end(start_on_ray(folder, "search", "tiny.toml", "--plugin", "one_line.py", *ONE, **offline))
        yield folder, out, err, code


@pytest.mark.ray
def test_a_whole_search_ends_well(whole: Whole) -> None:
    folder, out, err, code = whole
    assert code == 0, err
    run = run_of(folder)
    kinds = [stamped.event.type for stamped in read_events(run)]
    assert next(kind for kind in kinds if kind != "run_preparing") == "run_started"
    assert kinds[-1] == "run_finished"
    assert kinds.count("trial_finished") == 2
    assert kinds.count("trial_epoch") == 8
    assert kinds.count("replicate_finished") == 2
    assert kinds.count("test_opened") == 1
    assert kinds.index("test_opened") > max(i for i, kind in enumerate(kinds) if kind == "replicate_finished")
    # progress on standard error: the lines of the events, nothing else from anybody
    assert [text.partition("] ")[2] for text in err.splitlines()] == lines_of(run)
    # the result on standard output
    assert "\x1b" not in out + err
    assert "1" in out
    assert "digits (fallback for mnist)" in out
    assert str(run / "run.json").removeprefix(str(folder) + "/") in out


def lines_of(run: Path) -> list[str]:
    """What the plain view says of a run's events, without the times at which it does."""
    state, said = ViewState(), list[str | None]()
    for stamped in read_events(run):
        state = advance(state, stamped)
        said.append(line(stamped, state))
    return [text.partition("] ")[2] for text in said if text is not None]


@pytest.mark.ray
def test_the_run_directory_tells_everything(whole: Whole) -> None:
    run = run_of(whole[0])
    record = json.loads((run / "run.json").read_text())
    assert record["seed"] == 3
    assert record["dataset"]["name"] == "digits"
    assert record["dataset"]["requested"] == "mnist"
    assert "neither to be found nor to be fetched" in record["dataset"]["fallback"]
    assert len(record["dataset"]["validation_indices"]) == record["dataset"]["validation"]
    assert record["plugins"]["mnistlab"] == record["versions"]["mnistlab"]
    assert record["experiment"]["model"]["line"]["width"] == [32, 64]
    for number in range(2):
        assert json.loads((run / "trials" / f"{number:04d}" / "result.json").read_text())["state"] == "complete"
    assert not list(run.glob("**/*.tmp-*"))
    assert not (run / "tensorboard").exists()  # only where it is asked for


@pytest.mark.ray
def test_the_test_set_is_opened_once_and_on_the_record(whole: Whole) -> None:
    run = run_of(whole[0])
    ledger = list(read_lines(run / "test_ledger.jsonl"))
    assert [entry["type"] for entry in ledger] == ["opened", *["evaluated"] * 2, "ensemble"]
    assert ledger[0]["command"].startswith("mnistlab search tiny.toml")
    files = sorted(run.glob("trials/*/replicates/*/result.json"))
    assert len(files) == 2
    for file in files:
        result = json.loads(file.read_text())
        weights = (file.parent / "weights.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == result["weights_sha256"]
        assert "1.weight" in load(weights)
        assert result["seed"] == replicate_seed(3, result["replicate"])
        assert result["test"]["images"] == len(result["test_correct"]) == 500
        assert result["test"]["correct"] == result["test_correct"].count("1") > 400
        assert result["val_correct"].count("1") / len(result["val_correct"]) == pytest.approx(
            result["metrics"]["val_accuracy"]
        )


@pytest.mark.ray
def test_nothing_is_left_behind(whole: Whole) -> None:
    assert whole[3] == 0
    assert not list(whole[0].glob("mnistlab-*"))
    wait_until(lambda: not of_ours(whole[0]))


@pytest.mark.ray
def test_leaderboard_prints_the_same_ranking_again(whole: Whole) -> None:
    folder, out, _, _ = whole
    again = end(start(folder, "leaderboard", plain=False, COLUMNS="240"))[1]
    rows = [line for line in out.splitlines() if re.match(r" *\d+=? +([\d-]+ +)?\d{4} ", line)]
    assert len(rows) == 2
    plugins = [line for line in out.splitlines() if line.startswith("Plugins: one_line.py:line ")]
    assert len(plugins) == 1
    assert set(rows + plugins) <= set(again.splitlines())


@pytest.mark.simulated
def test_a_run_in_which_everything_fails_says_so(failed: Path) -> None:
    run = run_of(failed)
    assert not (run / "test_ledger.jsonl").exists()
    assert [s.event for s in read_events(run)][-1].outcome == "no trial succeeded: 3 trials failed (plugin 3)"


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal as it usually comes: Ctrl-C to the whole group, Ray and its workers included, others to one."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("signals", "code", "reason"),
    [
        ([signal.SIGINT], 130, "Ctrl-C"),
        ([signal.SIGINT, signal.SIGINT], 130, "Ctrl-C"),
        ([signal.SIGTERM], 143, "SIGTERM"),
    ],
)
def test_an_interrupt_keeps_what_there_is(home: Path, signals: list[signal.Signals], code: int, reason: str) -> None:
    (home / "tiny.toml").write_text(MOODY.replace("raise", "slow"))
    process = start(home, "search", "tiny.toml", PYTHONPATH=str(DISTS))
    wait_for(home, "trial_epoch")
    send(process, signals[0])
    if len(signals) == 2:
        wait_for(home, "stop_asked")  # the epoch takes a second more
        send(process, signals[1])
    check_interrupted(home, process, code, reason, twice=len(signals) == 2)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [(signal.SIGINT, 130, "Ctrl-C"), pytest.param(signal.SIGTERM, 143, "SIGTERM", marks=pytest.mark.chaos)],
)
def test_an_interrupt_keeps_what_there_is_with_a_ray(
    ray_home: Path, number: signal.Signals, code: int, reason: str
) -> None:
    process = start_on_ray(ray_home, "search", "tiny.toml", "--set", "training.epochs=2000", *ONE)
    wait_for(ray_home, "trial_epoch")
    send(process, number)
    check_interrupted(ray_home, process, code, reason, twice=False)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.chaos)]
)
def test_a_search_that_is_interrupted_while_ray_starts_leaves_nothing(
    ray_home: Path, number: signal.Signals, code: int
) -> None:
    process = start_on_ray(ray_home, "search", "tiny.toml")

    def raylet() -> list[psutil.Process]:
        return [one for one in of_ours(ray_home) if "raylet/raylet" in " ".join(one.cmdline())]

    wait_until(lambda: bool(raylet()), process)
    for one in raylet():
        one.suspend()  # Ray is not up before it goes on, however long the search takes to come to where it needs one
    wait_for(ray_home, "run_preparing")
    send(process, number)
    for one in raylet():
        one.resume()
    ended, out, err = end(process)
    assert ended == code, err
    assert "Traceback" not in out + err
    assert err.splitlines()[-1].endswith(f"run over: interrupted (no trial ended) in {err.split()[-1]}")
    check_nothing_left(ray_home)


def check_nothing_left(home: Path) -> None:
    assert not (home / "runs").exists()
    assert not list(home.glob("mnistlab-*"))
    wait_until(lambda: not of_ours(home))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "code", "last"),
    [(signal.SIGINT, 130, "mnistlab: interrupted"), (signal.SIGTERM, -signal.SIGTERM, "")],
)
@pytest.mark.parametrize("part", ["template", "gcs_server", "raylet/raylet"])
def test_a_search_that_is_interrupted_before_its_file_is_read_leaves_nothing_of_ray(
    ray_home: Path, part: str, number: signal.Signals, code: int, last: str
) -> None:
    process = start_on_ray(ray_home, "search", "tiny.toml")
    wait_until(lambda: any(part in " ".join(one.cmdline()) for one in of_ours(ray_home)), process)
    send(process, number)
    ended, out, err = end(process)
    assert (ended, out) == (code, ""), err
    assert "Traceback" not in err
    assert last in err.splitlines() or not last  # below it, Ray may say that it has lost what it was just reaching
    check_nothing_left(ray_home)


@pytest.mark.ray
def test_a_file_that_is_wrong_for_its_plugins_leaves_nothing_of_ray(ray_home: Path) -> None:
    ended, out, err = end(start_on_ray(ray_home, "search", "tiny.toml", "--set", "model.mlp.breadth=1"))
    assert (ended, out) == (2, "")
    assert "model.mlp.breadth" in err
    check_nothing_left(ray_home)


@pytest.mark.simulated
def test_trackers_get_the_search_and_one_that_is_away_does_not_stop_it(home: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mnistlab[trackers]")
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    options = ("--trials", "2", "--set", "training.epochs=2", "--log", "tensorboard", "--log", "mlflow")
    code, out, err = end(start(home, "search", "tiny.toml", *options, **nobody))
    assert code == 0, err
    run = run_of(home)
    warnings = [s.event.message for s in read_events(run) if isinstance(s.event, events.Warned)]
    (warning,) = [text for text in warnings if text.startswith("--log ")]
    assert warning.startswith("--log mlflow: MlflowException: ")
    assert warning in err
    confirmed = next(s.event.trial for s in read_events(run) if isinstance(s.event, events.ReplicateStarted))
    names = {"0000", "0001", f"{confirmed}-replicate-1", f"{confirmed}-replicate-2"}
    assert {path.name for path in (run / "tensorboard").iterdir()} == names
    assert f"Written: {run.relative_to(home) / 'tensorboard'}" in out


@pytest.mark.simulated
def test_a_tracker_that_nobody_knows_is_refused_before_anything_is_begun(run_here: RunCli, tmp_path: Path) -> None:
    (tmp_path / "x.toml").touch()
    ran = run_here("search", "x.toml", "--log", "tensorbord")
    assert ran.code == 2
    assert "must be one of tensorboard, mlflow" in ran.err
    assert "did you mean 'tensorboard'?" in ran.err


@pytest.mark.e2e
def test_a_file_that_is_not_there_is_told_before_torch_and_ray_are_loaded(tmp_path: Path) -> None:
    program = """
import sys
from mnistlab.cli.main import app
from mnistlab.errors import SpecError
try:
    app(["search", "nosuch.toml"])
except SpecError as error:
    print(error, sorted({"torch", "ray"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "nosuch.toml: 1 fault\n  [file] does not exist []\n"
