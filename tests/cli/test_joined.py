"""The command and a Ray cluster that somebody else has started: it is joined, or refused in words."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.cli.starting import end, home_for_ray, start, start_on_ray, wait_until


@pytest.fixture(scope="module")
def head(digits: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A Ray cluster of one node that somebody else started: its address, and the credentials to join it."""
    with home_for_ray(digits) as home, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        yield from _head(home, port)


def _head(home: Path, port: int) -> Iterator[tuple[str, dict[str, str]]]:
    credentials = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--include-dashboard=false"]
    process = subprocess.Popen(
        [*ray, f"--port={port}", "--num-cpus=2", f"--temp-dir={home}/r"],
        env=os.environ | credentials,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers("127.0.0.1", port), process)
        yield f"127.0.0.1:{port}", credentials
    finally:
        all_of_it = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in all_of_it:  # asked to end, it would take half a minute
            one.kill()
        psutil.wait_procs(all_of_it[:-1], timeout=10)
        process.wait(timeout=10)


def _answers(host: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((host, port)) == 0


@pytest.mark.ray
def test_a_named_cluster_is_joined_and_left_running(head: tuple[str, dict[str, str]], ray_home: Path) -> None:
    address, credentials = head
    less = ("training.epochs=2", "confirm.seeds=1", "confirm.top=1", "resources.max_parallel=1")
    options = ("--trials", "2", *(word for one in less for word in ("--set", one)))
    code, out, err = end(start_on_ray(ray_home, "search", "tiny.toml", "--address", address, *options, **credentials))
    assert code == 0, err
    assert "confirmed" in out
    host, _, port = address.partition(":")
    assert _answers(host, int(port))


@pytest.mark.simulated
def test_an_address_that_is_no_head_node_is_refused_in_words(home: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        another = f"127.0.0.1:{server.server_port}"
        for address, words in (
            ("ray://127.0.0.1:10001", "--address takes host:port"),
            ("127.0.0.1:1", "nobody answers at --address 127.0.0.1:1"),
            (another, f"what answers at --address {another} is no head node"),
        ):
            code, _, err = end(start(home, "search", "tiny.toml", "--executor", "ray", "--address", address))
            assert code == 2
            *progress, said = err.splitlines()
            assert said.startswith(f"mnistlab: {words}")
            assert all(text.startswith("[") for text in progress)  # of all that Ray says, nothing comes through
            assert not (home / "runs").exists()  # it never began
        server.shutdown()


@pytest.mark.ray
@pytest.mark.chaos
def test_a_cluster_that_lets_nobody_in_is_told_in_one_message(head: tuple[str, dict[str, str]], ray_home: Path) -> None:
    address, credentials = head
    other = credentials | {"RAY_AUTH_TOKEN": "another"}
    code, _, err = end(start_on_ray(ray_home, "search", "tiny.toml", "--address", address, **other))
    assert code == 2, err
    *progress, said = err.splitlines()
    assert said.startswith(f"mnistlab: can't reach the Ray cluster at {address}: ")
    assert all(text.startswith("[") for text in progress)
