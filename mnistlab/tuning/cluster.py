"""A private Ray on this machine, or a cluster that the user named: never one that happens to be around.

Ray runs silent and closed: no dashboard, no usage reports, token authentication, its own temporary folder, and nothing
of it listens beyond this machine. A `RAY_ADDRESS` in the environment is not followed; `--address` says so where it is
meant.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import _raylet
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker

from mnistlab.errors import ResourceError
from mnistlab.signals import signals_held
from mnistlab.tuning.folders import in_use, private_folder
from mnistlab.tuning.machine import GPU_GIB_PER_TRIAL, Machine
from mnistlab.tuning.pulse import ClusterLostError, felt

ANSWER_SECONDS = 5.0
END_SECONDS = 20.0  # Ray ends in one or two; what is left after this is killed

CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": see `_loopback`

# Data is loaded by each worker itself; only plans, split positions and weights pass through Ray's store.
STORE_BYTES = 512 << 20


@contextmanager
def cluster(address: str | None, machine: Machine, again: str = "mnistlab resume") -> Generator[Machine]:
    """Start a private Ray with the CPUs and GPUs of `machine`, or join the one at `address`; yield what it has.

    `again` is the command that goes on with what needs it, should it be lost.

    Raises:
        ResourceError: if the cluster at `address` can't be reached, or this process is in a Ray already (a notebook's
            own, say): that one is neither used nor shut down.
    """
    if ray.is_initialized():
        rule = "this Python process is already connected to a Ray, and a search needs its own"
        raise ResourceError(f"{rule}: call ray.shutdown() first, or search from another process")
    if address:
        _check_address(address)
    with private_folder() as folder, _closed_to_others(address, folder):
        lost = False
        try:
            _start(address, machine, folder)
            with felt(private=address is None, again=again):
                yield machine if address is None else _reached()
        except ClusterLostError:
            lost = True
            raise
        finally:
            _shut_down(folder, lost=lost)


@contextmanager
def _closed_to_others(address: str | None, folder: Path) -> Generator[None]:
    """Have Ray's settings in the environment; of a Ray of ours, also a token that its every process must show."""
    private = {} if address else {**_credentials(folder), CLUSTERS: "0"}
    with environment({**_SETTINGS, **private}, remove=("RAY_ADDRESS",)):
        _reread_credentials()
        yield


def _shut_down(folder: Path, *, lost: bool = False) -> None:
    """End Ray, and whatever of it is still there: where its start was broken off, it forgets processes.

    Signals wait meanwhile: an end that is broken off leaves processes behind, and this one would wait a minute for
    them. Ray takes the handler of SIGTERM away while it ends, so it does so in a thread, and this one puts it back.
    """
    with signals_held() as hold:
        ending = threading.Thread(target=_end_ray, daemon=True)
        deadline = time.monotonic() + END_SECONDS
        if not lost:  # it would wait for what is gone
            ending.start()
        while ending.is_alive() and time.monotonic() < deadline:
            hold()
            ending.join(0.02)
        _kill_what_is_left(folder)


def _end_ray() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()


def _kill_what_is_left(folder: Path) -> None:
    """Kill the processes of this one that have to do with `folder`: until they end they may still write into it."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    left = [process for process in in_use(folder) if process.pid in ours]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=ANSWER_SECONDS)


def _check_address(address: str) -> None:
    """Refuse what is no address, or one where no Ray listens: Ray itself would go on trying for many minutes.

    `auto` is Ray's own word for the cluster that this machine belongs to.
    """
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if "/" in address or not host or not port.isdigit():
        rule = "--address takes host:port of a Ray head node, seen from a machine of that cluster, or auto"
        raise ResourceError(f"{rule}, not {address}")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as line:
            if not (os.environ.get("RAY_USE_TLS") == "1" or _speaks_grpc(line)):
                raise ResourceError(f"what answers at --address {address} is no head node of a Ray cluster")
    except (OSError, OverflowError) as error:
        raise ResourceError(f"nobody answers at --address {address}: {error}") from None


def _speaks_grpc(line: socket.socket) -> bool:
    """Return whether the other side speaks HTTP/2, as gRPC does: it opens with its settings (RFC 9113, section 3.4)."""
    settings, empty = 4, bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    try:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty)
        head = line.makefile("rb").read(len(empty))
    except OSError:  # it hangs up, or says nothing
        return False
    return len(head) == len(empty) and head[3] == settings


def _credentials(folder: Path) -> Mapping[str, str]:
    """Write a token that only this user can read; every process of the cluster must show it."""
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def _reread_credentials() -> None:
    """Make Ray look at the environment again: it reads mode and token once, when it is imported."""
    compiled: Any = _raylet  # has no stubs
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


_SETTINGS: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets any other program of the machine starve a search
    "RAY_process_group_cleanup_enabled": "1",  # what a plugin has forked ends with its worker
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers are this environment; nothing is built for them
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the events are the log
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports a cause and no metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are the driver's
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own snapshot is never read: the run directory is the truth
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer reporter prints its heading even at verbosity 0
    "PYTHONWARNINGS": "ignore",
}


def _start(address: str | None, machine: Machine, folder: Path) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        with warnings.catch_warnings(), _unbroken():
            warnings.simplefilter("ignore")
            if address:
                ray.init(address=address, **quiet)
                return
            with _loopback():
                ray.init(
                    address="local",
                    num_cpus=machine.cpus,
                    num_gpus=int(machine.gpus),
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _temp_dir=str(folder / "r"),  # Ray opens its own folder to everybody; the one around it is closed
                    **quiet,
                )
            _check_loopback()
    except Exception as error:  # Ray starts programs and opens sockets: what it raises then is of any kind
        where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
        raise ResourceError(f"can't reach {where}: {str(error).splitlines()[0]}") from error


@contextmanager
def _loopback() -> Generator[None]:
    """Make a Ray that starts now one of a single machine: its node is 127.0.0.1, and it listens there alone.

    Left to itself it listens on every address of the machine, and `_node_ip_address="127.0.0.1"` is turned into an
    address that others reach (`resolve_ip_for_localhost`). This is Ray's own switch for Windows and macOS (ray#18730):
    read once from the environment when Ray is imported, so it is set where this process reads it; the processes that
    Ray starts get it by their environment.
    """
    constants: Any = ray_constants
    before, constants.ENABLE_RAY_CLUSTER = getattr(constants, "ENABLE_RAY_CLUSTER", True), False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _check_loopback() -> None:
    """Refuse a Ray that others reach, as a version without that switch would be.

    Raises:
        ResourceError: naming the address of its node.
    """
    address = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        rule = f"its node must be 127.0.0.1, which only this machine reaches, but is {address}"
        raise ResourceError(f"{rule}: ray {ray.__version__} can't be kept from listening to others")


@contextmanager
def _unbroken() -> Generator[None]:
    """Make it safe to break off Ray's start by an exception from a signal's handler.

    A process crashes at its end if it was interrupted while Ray's part of it was made, so signals wait for that. And
    Ray claims SIGTERM for a handler of its own, which would end the process in the middle of anything.
    """
    compiled: Any = _raylet  # has no stubs
    ours: Any = ray_worker.global_worker
    make, claim = compiled.CoreWorker, ray_utils.set_sigterm_handler

    def make_whole(*arguments: object) -> object:
        with signals_held():
            ours.core_worker = make(*arguments)  # where `ray.shutdown` looks for it
        return ours.core_worker

    compiled.CoreWorker, ray_utils.set_sigterm_handler = make_whole, _leave
    try:
        yield
    finally:
        compiled.CoreWorker, ray_utils.set_sigterm_handler = make, claim


def _leave(_handler: object) -> None:
    pass


def _reached() -> Machine:
    """Return what the nodes of the joined cluster have together, and each by itself."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((int(node.get("CPU", 0)), float(node.get("GPU", 0.0))) for node in alive)
    cpus, gpus = sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes)
    return Machine(cpus, gpus, gpu_gib=GPU_GIB_PER_TRIAL, nodes=nodes)


def alive_nodes(cpus: int = 0, gpus: float = 0.0) -> dict[str, str]:
    """Return the address of each node that is alive and as large as that, by the node's id; none without a Ray."""
    if not ray.is_initialized():
        return {}
    large = [
        node
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus and node["Resources"].get("GPU", 0.0) >= gpus
    ]
    return {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in large}


@contextmanager
def environment(settings: Mapping[str, str], remove: tuple[str, ...] = ()) -> Generator[None]:
    """Set and remove environment variables for a while."""
    before = {name: os.environ.get(name) for name in (*settings, *remove)}
    os.environ.update(settings)
    for name in remove:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
