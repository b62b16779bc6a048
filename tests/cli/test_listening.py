"""What a running search listens on, in every process of it: nothing beyond this machine, and nothing for strangers.

The one search of this file is ended by Ctrl-C twice.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.cli.starting import MOODY, check_interrupted, home_for_ray, start_on_ray, wait_for, wait_until
from tests.tuning.conftest import DISTS

pytestmark = pytest.mark.ray

MARK = "MNISTLAB_TEST_MARK"  # inherited by every process of the search, also by those whose parent is gone
SLOW = MOODY.replace("raise", "slow") + "[resources]\nmax_parallel = 2\n"
THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}  # a process with these threads can't be copied
DASHBOARD_PORTS = {8265, 52365}  # of Ray's dashboard, and of its agent
ASK = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, 10)
print("let in")
"""


@dataclass(frozen=True)
class Running:
    """The processes of a search while its trials train: their names, what they listen on, and Ray's own folder."""

    names: tuple[str, ...]
    listening: tuple[tuple[str, str, int], ...]  # process name, address, port
    folder: Path

    def ports(self, name: str) -> list[int]:
        return [port for process, _, port in self.listening if process == name]


def processes(mark: str) -> dict[psutil.Process, str]:
    """Every process of this machine that has the mark in its environment, and what descends from these, with names.

    A process that gives itself another title, as Ray's workers do, writes over its environment where others read it.
    """
    found = dict[psutil.Process, str]()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                for one in (process, *process.children(recursive=True)):
                    found[one] = one.name()
    return found


def sockets_of(process: psutil.Process) -> list[tuple[str, str, int]]:
    """What a process takes connections or datagrams on: its name, address, port."""
    found = process.net_connections(kind="inet")
    open_to_others = [one for one in found if one.status == psutil.CONN_LISTEN or (not one.raddr and one.laddr)]
    return [(process.name(), one.laddr.ip, one.laddr.port) for one in open_to_others]


@pytest.fixture(scope="module")
def running(digits: Path) -> Iterator[Running]:
    """A search with a private Ray while its trials train; afterwards it is ended by Ctrl-C twice."""
    mark, path = secrets.token_hex(8), os.pathsep.join(filter(None, [str(DISTS), os.environ.get("PYTHONPATH")]))
    with home_for_ray(digits, SLOW) as home:
        process = start_on_ray(home, "search", "tiny.toml", **{MARK: mark, "PYTHONPATH": path, **THREADS})
        try:
            wait_until(lambda: any("Trainable.train" in name for name in processes(mark).values()), process)
            there, sockets = processes(mark), list[tuple[str, str, int]]()
            for one in there:
                with suppress(psutil.NoSuchProcess):
                    sockets += sockets_of(one)
            (ray,) = home.glob("mnistlab-*")
            yield Running(tuple(there.values()), tuple(sockets), ray)
            assert_ctrl_c_twice_ends_it(home, process)
            wait_until(lambda: not processes(mark))
        finally:
            for one in processes(mark):
                one.kill()


def assert_ctrl_c_twice_ends_it(home: Path, process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # to the whole group, Ray and its workers included, as a terminal does
    wait_for(home, "stop_asked")
    os.killpg(process.pid, signal.SIGINT)
    check_interrupted(home, process, 130, "Ctrl-C", twice=True)
    assert not list(home.glob("mnistlab-*"))


def test_every_process_of_the_search_was_looked_at(running: Running) -> None:
    said = " ".join(running.names)
    for part in ("mnistlab", "gcs_server", "raylet", "RuntimeEnvAgent", "Trainable.train"):
        assert part in said


def test_workers_are_forked_from_the_driver(running: Running) -> None:
    """Else each would import anew, and nothing but the time until its first epoch would tell."""
    assert [one for one in running.names if one.startswith("mnistlab: the t")]


def test_nothing_listens_beyond_this_machine(running: Running) -> None:
    assert len(running.listening) >= 5  # else nothing was looked at
    beyond = [one for one in running.listening if not is_loopback(one[1])]
    assert beyond == []


def is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    inner = getattr(address, "ipv4_mapped", None)
    return (inner or address).is_loopback


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2"])
def test_an_address_that_others_reach_would_be_seen(text: str) -> None:
    assert not is_loopback(text)


def test_only_ray_and_the_driver_listen(running: Running) -> None:
    """The driver's and the workers' ports are those of Ray's own core in them; of its dashboard nothing listens."""
    known = ("mnistlab", "gcs_server", "raylet", "ray::RuntimeEnvAgent", "ray::ResourceTrainable", "ray::IDLE")
    assert [one for one in running.listening if not one[0].startswith(known)] == []
    assert not DASHBOARD_PORTS & {port for _, _, port in running.listening}


def test_the_token_is_for_this_user_alone(running: Running) -> None:
    assert stat.S_IMODE(running.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((running.folder / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["no token", pytest.param("another token", marks=pytest.mark.chaos), "the token"])
def test_who_has_no_token_is_refused(running: Running, kind: str) -> None:
    """The last case shows that it is the token that opens the door."""
    credentials = {
        "no token": {"RAY_AUTH_MODE": "disabled"},
        "another token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)},
        "the token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(running.folder / "token")},
    }[kind]
    (port,) = running.ports("gcs_server")
    asked = subprocess.run(
        [sys.executable, "-c", ASK, f"127.0.0.1:{port}"],
        env={"PATH": os.environ["PATH"], "HOME": str(running.folder.parent), **credentials},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("let in" in asked.stdout) == (kind == "the token"), asked.stderr
    assert kind == "the token" or "AuthenticationError" in asked.stderr


def test_the_agent_that_makes_environments_refuses_strangers(running: Running) -> None:
    """It would install and run what it is told to: without the token it says 401, and others can't reach it."""
    (port,) = running.ports(next(name for name, _, _ in running.listening if "RuntimeEnvAgent" in name))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/get_runtime_envs_info", data=b"", timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    outside = next((text for text in addresses() if not is_loopback(text)), None)
    if outside is None:
        pytest.skip("this machine has no address but 127.0.0.1")
    with socket.socket() as stranger:
        assert stranger.connect_ex((outside, port)) != 0


UNSWITCHED = """
from mnistlab.errors import ResourceError
from mnistlab.tuning.ray import cluster, surroundings
from mnistlab.tuning.resources import Machine
del surroundings.PRIVATE["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
try:
    with cluster.cluster(None, Machine(cpus=1, gpus=0)):
        print("started")
except ResourceError as error:
    print(error)
"""


@pytest.mark.chaos
def test_a_ray_that_can_not_be_kept_to_this_machine_is_refused() -> None:
    if all(map(is_loopback, addresses())):
        pytest.skip("this machine has no address but 127.0.0.1")
    done = subprocess.run([sys.executable, "-c", UNSWITCHED], capture_output=True, text=True, timeout=120, check=False)
    said = (
        "can't reach a private Ray on this machine: its node must be 127.0.0.1, which only this machine reaches, but is"
    )
    assert done.stdout.startswith(said), done.stderr


def addresses() -> list[str]:
    """The IPv4 addresses of this machine."""
    every = [one for several in psutil.net_if_addrs().values() for one in several]
    return [one.address for one in every if one.family == socket.AF_INET]
