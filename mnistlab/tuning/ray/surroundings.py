"""The environment that Ray and its processes find: silent, closed to others, and nobody else's settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mnistlab.tuning.ray.start_worker import VARIABLE

SETTINGS: Mapping[str, str] = {
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

PRIVATE: Mapping[str, str] = {
    # Its node is 127.0.0.1, and it listens there alone. Left to itself it listens on every address of the machine, and
    # `_node_ip_address="127.0.0.1"` is turned into an address that others reach (`resolve_ip_for_localhost`). This is
    # Ray's own switch for Windows and macOS (ray#18730), read when `head` imports Ray.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_prestart_worker_first_driver": "0",  # workers are forked in no time, but none that knows of no driver yet
    "PL_DISABLE_FORK": "1",  # as Tune sets it for its workers (ray#28197)
}


@contextmanager
def closed_to_others(address: str | None, folder: Path) -> Generator[None]:
    """Have Ray's settings in the environment; of a Ray of ours, also a token that its every process must show."""
    private = {} if address else {**_credentials(folder), **PRIVATE}
    with environment({**SETTINGS, **private}, remove=("RAY_ADDRESS", VARIABLE)):
        yield


def _credentials(folder: Path) -> Mapping[str, str]:
    """Write a token that only this user can read; every process of the cluster must show it."""
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


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
