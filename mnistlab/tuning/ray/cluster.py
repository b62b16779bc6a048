"""A private Ray on this machine, or a cluster that the user named: never one that happens to be around.

Ray runs silent and closed: no dashboard, no usage reports, token authentication, its own temporary folder, and nothing
of it listens beyond this machine. A `RAY_ADDRESS` in the environment is not followed; `--address` says so where it is
meant.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
import time
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray import _raylet
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker

from mnistlab.errors import ResourceError
from mnistlab.tuning.ray.cluster_gpus import reached
from mnistlab.tuning.ray.heartbeat import ClusterLostError, felt
from mnistlab.tuning.ray.joined import given, reread_credentials
from mnistlab.tuning.ray.private import Private, begun_or_new
from mnistlab.tuning.ray.surroundings import closed_to_others
from mnistlab.tuning.ray.tempdir import private_folder
from mnistlab.tuning.resources import Machine
from mnistlab.util.signals import signals_held

ANSWER_SECONDS = 5.0
END_SECONDS = 20.0  # Ray ends in one or two; what is left after this is killed


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
    with _place(address, machine) as place:
        lost = False
        try:
            _start(address, machine, place)
            with felt(private=address is None, again=again):
                yield machine if address is None else reached()
        except ClusterLostError:
            lost = True
            raise
        finally:
            _shut_down(place, lost=lost)


@contextmanager
def _place(address: str | None, machine: Machine) -> Generator[Private]:
    """Yield the place for a private Ray, or for what this process needs to join one; Ray knows how it is surrounded."""
    with ExitStack() as stack:
        if address is None:
            place = stack.enter_context(begun_or_new(machine.cpus, int(machine.gpus)))
        else:
            place = Private(stack.enter_context(private_folder()))
            stack.enter_context(closed_to_others(address, place.folder))
        reread_credentials()
        yield place


def _shut_down(place: Private, *, lost: bool = False) -> None:
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
        place.end()


def _end_ray() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()


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


def _start(address: str | None, machine: Machine, place: Private) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        with warnings.catch_warnings(), _unbroken():
            warnings.simplefilter("ignore")
            if address:
                ray.init(address=address, **quiet)
                return
            cpus, gpus = machine.cpus, int(machine.gpus)
            with given(place.start(cpus, gpus)):
                ray.init(address="local", **quiet)
            _check_loopback()
    except Exception as error:  # Ray starts programs and opens sockets: what it raises then is of any kind
        where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
        raise ResourceError(f"can't reach {where}: {str(error).splitlines()[0]}") from error


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
