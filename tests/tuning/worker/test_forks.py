"""Which sockets a forked process keeps. In a process of its own: what is registered for forks stays registered."""

from __future__ import annotations

import pytest

from tests.forked import python

pytestmark = pytest.mark.simulated

BODY = """
import os, socket, tempfile
from mnistlab.tuning.worker.forks import keep_from_children

keep_from_children()
path = tempfile.mkdtemp() + "/raylet"
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(path)
accepted, _ = server.accept()
tcp = socket.create_server(("127.0.0.1", 0))
one, other = socket.socketpair()
read, write = os.pipe()
names = ("server", "client", "accepted", "tcp", "one", "other")
if os.fork() == 0:
    kept = [name for name in names if os.path.exists(f"/proc/self/fd/{globals()[name].fileno()}")]
    os.write(write, " ".join(kept).encode())
    os._exit(0)
os.wait()
print(os.read(read, 1000).decode())
print(" ".join(name for name in names if os.path.exists(f"/proc/self/fd/{globals()[name].fileno()}")))
"""


def test_a_forked_process_keeps_what_multiprocessing_hands_down_and_no_other_socket() -> None:
    done = python(BODY)
    child, parent = done.stdout.splitlines()
    assert child == "one other"
    assert parent == "server client accepted tcp one other"
