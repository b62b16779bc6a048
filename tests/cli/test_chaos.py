"""Long forms with a real Ray and real training (`make chaos`): kills at random moments, and a node that is lost."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from mnistlab import events
from mnistlab.errors import ExitCode
from mnistlab.store import read_events, read_run
from mnistlab.store.fsck import check
from tests.cli.starting import EXPERIMENT, check_whole, end, kinds, of_ours, run_of, wait_for, wait_until
from tests.cli.starting import start_on_ray as start

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


@pytest.fixture
def home(ray_home: Path) -> Path:
    """A folder in which searches with a Ray are started."""
    return ray_home


# What surely comes, and some time before the end: a search has its confirmation before it, a resume the test set.
SEARCHING = ("run_started", "trial_started", "trial_epoch", "trial_finished")
RESUMED = ("run_resumed", "replicate_started", "replicate_finished", "test_opened")


def killed_at(home: Path, seed: int, *arguments: str) -> None:
    """Start a command and kill it some moments after something that is drawn has happened anew."""
    draw = random.Random(seed)
    several, longest = (SEARCHING, 1.5) if arguments[0] == "search" else (RESUMED, 0.5)
    kind, later = draw.choice(several), draw.uniform(0.0, longest)
    count = kinds(home)[kind]
    driver = start(home, *arguments)
    wait_for(home, kind, count + 1)
    time.sleep(later)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    wait_until(lambda: not of_ours(home))  # a Ray whose driver has died goes by itself


@pytest.mark.parametrize("seed", range(5))
def test_a_search_that_is_killed_twice_at_random_moments_loses_nothing(home: Path, seed: int) -> None:
    killed_at(home, seed, "search", "tiny.toml")
    ended = {one.trial: one for one in read_run(run_of(home)).trials}
    assert check(run_of(home)).sound
    killed_at(home, seed + 100, "resume", run_of(home).name)
    assert check(run_of(home)).sound
    code, _, err = end(start(home, "resume", run_of(home).name))
    assert code == 0, err
    check_whole(home)
    assert ended.items() <= {one.trial: one for one in read_run(run_of(home)).trials}.items()


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A Ray cluster of two nodes with a CPU each, on this machine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def test_a_node_that_is_lost_costs_nothing_but_time(home: Path, two_nodes: Cluster) -> None:
    node = two_nodes.add_node(num_cpus=1)
    (home / "tiny.toml").write_text(EXPERIMENT.replace("epochs = 6", "epochs = 60"))
    search = start(home, "search", "tiny.toml", "--address", two_nodes.address)
    wait_for_epochs_of(home, 2)  # trials: one on each node
    count = starts(home)
    two_nodes.remove_node(node, allow_graceful=False)
    wait_until(lambda: starts(home) > count)  # its trial goes on, on the node that is left
    code, _, err = end(search)
    assert code == 0, err
    check_whole(home)
    assert check(run_of(home)).sound
    again = [s.event for s in read_events(run_of(home)) if isinstance(s.event, events.TrialStarted)]
    assert any(event.attempt > 1 for event in again)


def test_a_worker_that_ray_ends_because_the_machine_is_short_of_memory_had_too_little(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")  # of the machine's memory: any machine uses more
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    code, _, err = end(start(home, "search", "tiny.toml", "--trials", "1"))
    assert code == ExitCode.NO_TRIAL_SUCCEEDED, err
    (trial,) = read_run(run_of(home)).trials
    assert (trial.state, trial.cause) == ("failed", "memory")
    assert re.search(r"worker lost: Ray ended .*, whose memory was nearly full \(.* used / .*\)", trial.message)
    assert starts(home) == 2  # once more, with all of the machine
    assert check(run_of(home)).sound


DIES = """
import os

from torch import nn

from mnistlab.api import Config, Model, hookimpl


class Nothing(Config):
    \"\"\"No setting.\"\"\"


class Mortal(nn.Linear):
    def forward(self, images):
        if self.training:
            print("these were its last words")
            os._exit(7)
        return super().forward(images.flatten(1))


@hookimpl
def mnistlab_models():
    build = lambda config, shape: Mortal(shape.pixels, shape.classes)
    return [Model(name="mortal", config=Nothing, build=build, summary="Says something and dies.")]
"""


def test_what_a_worker_on_another_node_has_printed_is_fetched_from_there(home: Path) -> None:
    (home / "dies.py").write_text(DIES)
    (home / "tiny.toml").write_text(
        EXPERIMENT.replace("[model.mlp]\ndepth = 1\nwidth = [32, 64, 128]", "[model.mortal]")
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=2, temp_dir=str(home / "other"))  # as on another machine: nobody else looks there
        search = start(
            home, "search", "tiny.toml", "--plugin", "dies.py", "--address", cluster.address, "--trials", "1"
        )
        end(search)
        (trial,) = read_run(run_of(home)).trials
        assert (trial.state, trial.cause) == ("failed", "worker")
        log = (run_of(home) / "trials" / trial.trial / "log.txt").read_text()
        assert log.count("these were its last words") == 4  # it was tried three times more
        assert list((home / "other").glob("*/mnistlab-logs")) != []
    finally:
        cluster.shutdown()


def test_a_search_whose_cluster_falls_silent_ends_within_a_minute(home: Path, two_nodes: Cluster) -> None:
    (home / "tiny.toml").write_text(EXPERIMENT.replace("epochs = 6", "epochs = 5000"))
    search = start(home, "search", "tiny.toml", "--address", two_nodes.address)
    wait_for_epochs_of(home, 1)
    gcs = psutil.Process(two_nodes.head_node.all_processes["gcs_server"][0].process.pid)
    gcs.suspend()
    silent = time.monotonic()
    try:
        code, _, err = end(search)
        assert time.monotonic() - silent < 60
    finally:
        gcs.resume()
    assert code == ExitCode.RESOURCES_VANISHED, err
    assert "the head of the Ray cluster has not answered for 30 s" in err
    assert check(run_of(home)).sound


def starts(home: Path) -> int:
    """Return how many attempts of trials have begun."""
    return kinds(home)["trial_started"]


def wait_for_epochs_of(home: Path, trials: int) -> None:
    wait_until(lambda: len(seen(home)) >= trials)


def seen(home: Path) -> set[str]:
    """Return the trials that have ended an epoch."""
    told = (stamped.event for path in home.glob("runs/*") for stamped in read_events(path))
    return {event.trial for event in told if isinstance(event, events.TrialEpoch)}


UNEVEN = """
import errno
import os
import time
from pathlib import Path

import numpy as np
from torch import nn

from mnistlab.api import Config, Dataset, DatasetInfo, ImageShape, LabelledImages, Model, hookimpl

LACKS = os.environ.get("UNEVEN_LACKS", "")  # on one of the nodes
TRIED = Path("TRIED_FILE")  # there once that node was given something


def meets_the_lack(kind):
    if LACKS == kind:
        TRIED.touch()
    return LACKS == kind


def wait_for_the_other_node():
    for _ in range(2000):
        if TRIED.exists():
            return
        time.sleep(0.1)


class Nothing(Config):
    \"\"\"No setting.\"\"\"


def prepare(config, place):
    shape = ImageShape(1, 8, 8, 2)
    return DatasetInfo(shape=shape, class_names=("0", "1"), train_count=256, test_count=64, source="made up")


def load(config, place, split):
    if meets_the_lack("data"):
        raise FileNotFoundError(errno.ENOENT, "no such file or directory", "/data/images")
    count = 256 if split == "train" else 64
    images = np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return LabelledImages(images=images, labels=np.arange(count) % 2)


class Net(nn.Linear):
    def forward(self, images):
        if meets_the_lack("disk"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        wait_for_the_other_node()
        return super().forward(images.flatten(1))


def build(config, shape):
    if meets_the_lack("absent"):
        open("/weights/of/the/plugin.pt")
    return Net(shape.pixels, shape.classes)


@hookimpl
def mnistlab_models():
    return [Model(name="uneven", config=Nothing, build=build, summary="Fails on one of two nodes.")]


@hookimpl
def mnistlab_datasets():
    return [Dataset(name="uneven", config=Nothing, prepare=prepare, load=load, summary="Lies on one of two nodes.")]
"""
ON_UNEVEN = """
name = "tiny"
[data]
dataset = "uneven"
validation = 64
[model.uneven]
[optimizer.sgd]
lr = { low = 0.01, high = 0.3 }
[training]
epochs = 2
batch_size = 64
[search]
trials = 8
algorithm = "random"
scheduler = "none"
stall_timeout = "5m"
[confirm]
top = 1
baseline = false
seeds = 2
"""


def write_uneven(home: Path) -> None:
    (home / "uneven.py").write_text(UNEVEN.replace("TRIED_FILE", str(home / "tried")))
    (home / "uneven.toml").write_text(ON_UNEVEN)


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("data", "lacks the data (PluginError: dataset 'uneven': load failed with FileNotFoundError: [Errno 2]"),
        ("disk", "has no room left on a disk (OSError: [Errno 28] No space left on device)"),
        ("absent", "lacks a file or a module (FileNotFoundError: [Errno 2] No such file or directory: '/weights/"),
    ],
)
def test_a_node_that_lacks_something_gets_no_more_trials_and_costs_none(
    home: Path, two_nodes: Cluster, lacks: str, said: str
) -> None:
    bad = two_nodes.add_node(num_cpus=1, env_vars={"UNEVEN_LACKS": lacks})
    write_uneven(home)
    search = start(home, "search", "uneven.toml", "--plugin", "uneven.py", "--address", two_nodes.address)
    code, _, err = end(search)
    assert code == 0, err
    record = read_run(run_of(home))
    assert [one.state for one in record.trials] == ["complete"] * 8
    assert [one.cause for one in record.replicates] == ["", ""]
    told = [stamped.event for stamped in read_events(run_of(home))]
    named = [one.message for one in told if isinstance(one, events.Warned) and said in one.message]
    assert [text for text in named if text.startswith("node ")] == named[-1:]
    assert bad.node_id[:8] in named[-1]
    begun = [one for one in told if isinstance(one, events.TrialStarted)]
    assert 1 <= sum(one.attempt > 1 for one in begun) <= 2  # those that were on their way to it
    assert check(run_of(home)).sound


def test_a_search_ends_when_the_last_node_lacks_the_data_and_can_be_resumed(home: Path) -> None:
    write_uneven(home)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "env_vars": {"UNEVEN_LACKS": "data"}})
    try:
        search = start(home, "search", "uneven.toml", "--plugin", "uneven.py", "--address", cluster.address)
        code, _, err = end(search)
    finally:
        cluster.shutdown()
    assert code == ExitCode.DATA_OR_PLUGIN
    assert "no node is left to train on" in err
    assert "lacks the data" in err
    assert {one.state for one in read_run(run_of(home)).trials} == {"interrupted"}
    code, _, err = end(start(home, "resume", run_of(home).name))
    assert code == 0, err
    assert [one.state for one in read_run(run_of(home)).trials] == ["complete"] * 8
