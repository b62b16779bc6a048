"""The installed command from end to end: Ray, training, confirmation, the sealed test set, the ranking."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load

from mnistlab import events
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.seeds import replicate_seed
from mnistlab.store import read_events, read_lines
from tests.tuning.conftest import DISTS

pytestmark = pytest.mark.e2e

MNISTLAB = str(Path(sys.executable).parent / "mnistlab")

EXPERIMENT = """
name = "tiny"
seed = 3
[data]
dataset = "mnist"
offline_fallback = "digits"
[model.mlp]
depth = 1
width = [32, 64, 128]
batch_norm = true
[optimizer.adamw]
lr = 0.003
[training]
epochs = 2
batch_size = 64
[search]
trials = 3
scheduler = "none"
[confirm]
top = 2
seeds = 2
"""


def start(tmp_path: Path, text: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `mnistlab search` on an experiment file with that text."""
    (tmp_path / "tiny.toml").write_text(text)
    settings = (
        os.environ
        | {
            "PYTHONPATH": str(DISTS),
            "COLUMNS": "240",
        }
        | environment
    )
    return subprocess.Popen(
        [MNISTLAB, "search", "tiny.toml", "--ui", "plain", *arguments],
        cwd=tmp_path,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def only_run(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "runs").iterdir()
    return path


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A temporary folder of this module's own, with a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> tuple[Path, str, str, int]:
    """A whole run without MNIST at hand; a RAY_ADDRESS that must not be followed is in the environment."""
    folder = tmp_path_factory.mktemp("whole")
    offline = {"RAY_ADDRESS": "127.0.0.1:1", "MNISTLAB_OFFLINE": "1", "MNISTLAB_CACHE": str(folder / "cache")}
    process = start(folder, EXPERIMENT, **offline, TMPDIR=str(temporary))
    out, err = process.communicate(timeout=300)
    return folder, out, err, process.returncode


def test_a_whole_search_ends_well(finished: tuple[Path, str, str, int]) -> None:
    folder, out, err, code = finished
    assert code == 0, err
    run = only_run(folder)
    kinds = [stamped.event.type for stamped in read_events(run)]
    assert next(kind for kind in kinds if kind != "run_preparing") == "run_started"
    assert kinds[-1] == "run_finished"
    assert kinds.count("trial_finished") == 3
    assert kinds.count("trial_epoch") == 6
    assert kinds.count("replicate_finished") == 4
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


def test_the_run_directory_tells_everything(finished: tuple[Path, str, str, int]) -> None:
    run = only_run(finished[0])
    record = json.loads((run / "run.json").read_text())
    assert record["seed"] == 3
    assert record["dataset"]["name"] == "digits"
    assert record["dataset"]["requested"] == "mnist"
    assert "neither to be found nor to be fetched" in record["dataset"]["fallback"]
    assert len(record["dataset"]["validation_indices"]) == record["dataset"]["validation"]
    assert record["plugins"]["mnistlab"] == record["versions"]["mnistlab"]
    assert record["experiment"]["model"]["mlp"]["width"] == [32, 64, 128]
    for number in range(3):
        assert json.loads((run / "trials" / f"{number:04d}" / "result.json").read_text())["state"] == "complete"
    assert not list(run.glob("**/*.tmp-*"))
    assert not (run / "tensorboard").exists()  # only where it is asked for


def test_the_test_set_is_opened_once_and_on_the_record(finished: tuple[Path, str, str, int]) -> None:
    run = only_run(finished[0])
    ledger = list(read_lines(run / "test_ledger.jsonl"))
    assert [entry["type"] for entry in ledger] == ["opened", *["evaluated"] * 4]
    assert ledger[0]["command"].startswith("mnistlab search tiny.toml")
    files = sorted(run.glob("trials/*/replicates/*/result.json"))
    assert len(files) == 4
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


def test_nothing_is_left_behind(finished: tuple[Path, str, str, int], temporary: Path) -> None:
    assert finished[3] == 0
    assert not list(temporary.glob("mnistlab-*"))
    wait_for(lambda: not _processes_of(temporary), seconds=20)


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name the run's temporary folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def test_leaderboard_prints_the_same_ranking_again(finished: tuple[Path, str, str, int]) -> None:
    folder, out, _, _ = finished
    again = subprocess.run(
        [MNISTLAB, "leaderboard"],
        cwd=folder,
        env=os.environ | {"COLUMNS": "240"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in out.splitlines() if re.match(r" *\d+=? +([\d-]+ +)?\d{4} ", line)]
    assert len(rows) == 3
    plugins = [line for line in out.splitlines() if line.startswith("Plugins: mnistlab:mlp ")]
    assert len(plugins) == 1
    assert set(rows + plugins) <= set(again.stdout.splitlines())


def test_a_run_in_which_everything_fails_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("f")
    text = EXPERIMENT.replace(
        "[model.mlp]\ndepth = 1\nwidth = [32, 64, 128]\nbatch_norm = true", '[model.moody]\nmood = "raise"'
    )
    process = start(folder, text, "--set", "data.dataset=digits", "--set", "data.offline_fallback=digits")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "this plan can't be built" in out + err
    assert "Traceback" not in out + err
    run = only_run(folder)
    assert not (run / "test_ledger.jsonl").exists()
    assert [s.event for s in read_events(run)][-1].outcome == "no trial succeeded: 3 trials failed (plugin 3)"


def wait_for(found: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not found():
        time.sleep(0.1)
    assert found()


def has_happened(folder: Path, kind: type[events.Event]) -> bool:
    """Whether the only run in a folder has come to an event of a kind."""
    return any(
        isinstance(s.event, kind) for path in (folder / "runs").glob("*/events.jsonl") for s in read_events(path.parent)
    )


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal as it usually comes: Ctrl-C to the whole group, Ray and its workers included, others to one."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)


@pytest.mark.parametrize(
    ("signals", "code", "reason"),
    [
        ([signal.SIGINT], 130, "Ctrl-C"),
        ([signal.SIGINT, signal.SIGINT], 130, "Ctrl-C"),
        ([signal.SIGTERM], 143, "SIGTERM"),
    ],
)
def test_an_interrupt_keeps_what_there_is(
    tmp_path_factory: pytest.TempPathFactory, signals: list[signal.Signals], code: int, reason: str
) -> None:
    folder = tmp_path_factory.mktemp("i")
    text = EXPERIMENT.replace("epochs = 2", "epochs = 2000").replace('dataset = "mnist"', 'dataset = "digits"')
    process = start(folder, text)
    wait_for(lambda: has_happened(folder, events.TrialEpoch))
    for number in signals:
        send(process, number)
        time.sleep(0.05)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    stream = [stamped.event for stamped in read_events(only_run(folder))]
    assert [event.type for event in stream][-2:] == ["run_interrupted", "run_finished"]
    asked = [event.at_once for event in stream if isinstance(event, events.StopAsked)]
    assert asked[-1] <= (len(signals) == 2)  # two that come while Ray holds the interpreter are one
    assert ("stopping at once; what runs is cut short" in err) == asked[-1]
    cut = [event for event in stream if isinstance(event, events.TrialInterrupted)]
    assert {event.reason for event in cut} == {reason}
    assert stream[-1].counts == {"interrupted": len(cut)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_search_that_is_interrupted_while_ray_starts_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, number: signal.Signals, code: int
) -> None:
    folder, ours = tmp_path_factory.mktemp("early"), Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    process = start(folder, EXPERIMENT.replace('dataset = "mnist"', 'dataset = "digits"'), TMPDIR=str(ours))
    try:
        wait_for(lambda: _processes_of(ours))
        send(process, number)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert "Traceback" not in out + err
        assert err.splitlines()[-1].endswith(f"run over: interrupted (no trial ended) in {err.split()[-1]}")
        assert not (folder / "runs").exists()
        assert not list(ours.glob("mnistlab-*"))
        wait_for(lambda: not _processes_of(ours), seconds=20)
    finally:
        shutil.rmtree(ours)


def test_trackers_get_the_search_and_one_that_is_away_does_not_stop_it(
    tmp_path_factory: pytest.TempPathFactory, temporary: Path
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mnistlab[trackers]")
    folder = tmp_path_factory.mktemp("tracked")
    text = EXPERIMENT.replace('"mnist"', '"digits"').replace("trials = 3", "trials = 2").replace("top = 2", "top = 1")
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    process = start(folder, text, "--log", "tensorboard", "--log", "mlflow", **nobody, TMPDIR=str(temporary))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    run = only_run(folder)
    (warning,) = [s.event.message for s in read_events(run) if isinstance(s.event, events.Warned)]
    assert warning.startswith("--log mlflow: MlflowException: ")
    assert warning in err
    confirmed = next(s.event.trial for s in read_events(run) if isinstance(s.event, events.ReplicateStarted))
    names = {"0000", "0001", f"{confirmed}-replicate-1", f"{confirmed}-replicate-2"}
    assert {path.name for path in (run / "tensorboard").iterdir()} == names
    assert f"Written: {run.relative_to(folder) / 'tensorboard'}" in out


def test_a_tracker_that_nobody_knows_is_refused_before_anything_is_begun(run_cli, tmp_path) -> None:
    (tmp_path / "x.toml").touch()
    ran = run_cli("search", "x.toml", "--log", "tensorbord")
    assert ran.code == 2
    assert "must be one of tensorboard, mlflow" in ran.err
    assert "did you mean 'tensorboard'?" in ran.err


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


@pytest.fixture(scope="module")
def head(temporary: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray cluster of one node that somebody else started: its address, and the credentials to join it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    credentials = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--include-dashboard=false"]
    process = subprocess.Popen(
        [*ray, f"--port={port}", "--num-cpus=2", f"--temp-dir={temporary}/r"],
        env=os.environ | credentials | {"PYTHONPATH": str(DISTS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.5)
        yield f"127.0.0.1:{port}", credentials
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def test_a_named_cluster_is_joined_and_left_running(
    head: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    address, credentials = head
    folder = tmp_path_factory.mktemp("joined")
    text = EXPERIMENT.replace('dataset = "mnist"', 'dataset = "digits"').replace("top = 2", "top = 1")
    process = start(folder, text, "--address", address, **credentials)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "confirmed" in out
    with socket.socket() as still:
        host, _, port = address.partition(":")
        assert still.connect_ex((host, int(port))) == 0


def test_an_address_that_is_no_head_node_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("refused")
    text = EXPERIMENT.replace('dataset = "mnist"', 'dataset = "digits"')
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        another = f"127.0.0.1:{server.server_port}"
        for address, words in (
            ("ray://127.0.0.1:10001", "--address takes host:port"),
            ("127.0.0.1:1", "nobody answers at --address 127.0.0.1:1"),
            (another, f"what answers at --address {another} is no head node"),
        ):
            process = start(folder, text, "--address", address)
            _, err = process.communicate(timeout=120)
            assert process.returncode == 2
            *progress, said = err.splitlines()
            assert said.startswith(f"mnistlab: {words}")
            assert all(text.startswith("[") for text in progress)  # of all that Ray says, nothing comes through
            assert not (folder / "runs").exists()  # it never began
        server.shutdown()


def test_a_cluster_that_lets_nobody_in_is_told_in_one_message(
    head: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    address, credentials = head
    folder = tmp_path_factory.mktemp("stranger")
    text = EXPERIMENT.replace('dataset = "mnist"', 'dataset = "digits"')
    process = start(folder, text, "--address", address, **credentials | {"RAY_AUTH_TOKEN": "another"})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    *progress, said = err.splitlines()
    assert said.startswith(f"mnistlab: can't reach the Ray cluster at {address}: ")
    assert all(text.startswith("[") for text in progress)
