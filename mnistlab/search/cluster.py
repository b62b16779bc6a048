"""A private Ray on this machine, or a cluster that the user named: never one that happens to be around.

Ray runs silent and closed: no dashboard, no usage reports, token authentication, its own temporary folder. A
`RAY_ADDRESS` in the environment is not followed; `--address` says so where it is meant.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import _raylet

from mnistlab.errors import ResourceError
from mnistlab.spec import ResourcesSpec

# What a GPU trial is taken to need until it is measured: CUDA's context, the data and a small network.
GPU_GIB_PER_TRIAL = 3.0

# Data is loaded by each worker itself; only plans, split positions and weights pass through Ray's store.
STORE_BYTES = 512 << 20

# 107 bytes for a socket's path, less "/mnistlab-XXXXXXXX", Ray's session and "/sockets/plasma_store".
LONGEST_BASE = 24


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    cpus: int
    gpus: float
    gpu_names: tuple[str, ...] = ()
    gpu_gib: float = 0.0  # memory of the smallest GPU

    def __str__(self) -> str:
        """Return for example `16 CPUs, 1 GPU (NVIDIA H200)`."""
        words = [f"{self.cpus} CPU{'s' * (self.cpus != 1)}"]
        if self.gpus:
            names = f" ({', '.join(sorted(set(self.gpu_names)))})" if self.gpu_names else ""
            words.append(f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}{names}")
        return ", ".join(words)


@dataclass(frozen=True)
class Share:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    parallel: int


def this_machine() -> Machine:
    """Return the CPUs that this process may use and the GPUs of this machine."""
    count = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(count)]
    names = tuple(torch.cuda.get_device_name(i) for i in range(count))
    return Machine(len(os.sched_getaffinity(0)), float(count), names, min(memory, default=0.0))


def share(machine: Machine, wished: ResourcesSpec) -> Share:
    """Return what each trial gets and how many run at once.

    `gpus_per_trial = "auto"` is one GPU divided by the trials that fit on it, by memory and by the CPUs that feed them.

    Raises:
        ResourceError: if not even one trial fits, saying what is short.
    """
    by_cpu = machine.cpus // wished.cpus_per_trial
    gpus = _gpus_per_trial(machine, by_cpu) if wished.gpus_per_trial is None else wished.gpus_per_trial
    if by_cpu < 1:
        raise ResourceError(f"resources.cpus_per_trial = {wished.cpus_per_trial}, but there are {machine.cpus} CPUs")
    if gpus > machine.gpus:
        raise ResourceError(f"resources.gpus_per_trial = {gpus:g}, but there are {machine.gpus:g} GPUs")
    parallel = min(by_cpu, _by_gpu(machine, gpus)) if gpus else by_cpu
    return Share(wished.cpus_per_trial, gpus, min(parallel, wished.max_parallel or parallel))


def _gpus_per_trial(machine: Machine, by_cpu: int) -> float:
    if not machine.gpus:
        return 0.0
    by_memory = max(1, int(machine.gpu_gib / GPU_GIB_PER_TRIAL))
    fit = max(1, min(by_memory, int(by_cpu // machine.gpus)))
    return int(10_000 / fit) / 10_000  # Ray counts in ten-thousandths; rounding up would leave one out


def _by_gpu(machine: Machine, gpus: float) -> int:
    """Return how many trials the GPUs hold: a trial never spans two GPUs unless it asks for whole ones."""
    return int(machine.gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(machine.gpus // gpus)


@contextmanager
def cluster(address: str | None, machine: Machine) -> Generator[Machine]:
    """Start a private Ray with the CPUs and GPUs of `machine`, or join the one at `address`; yield what it has.

    Raises:
        ResourceError: if the cluster at `address` can't be reached.
    """
    folder = _private_folder()
    private = {} if address else _credentials(folder)
    with _environment({**_SETTINGS, **private}, remove=("RAY_ADDRESS",)):
        _reread_credentials()
        try:
            _start(address, machine, folder)
            yield machine if address is None else _reached()
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    """Make a folder for Ray that only this user can read, where Ray's sockets fit into 107 bytes."""
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a folder of its own in it
        if len(base) <= LONGEST_BASE and os.access(base, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="mnistlab-", dir=base))
    rule = f"Ray needs a temporary folder whose path has at most {LONGEST_BASE} characters"
    raise ResourceError(f"{rule}, but TMPDIR is {tempfile.gettempdir()} and /tmp can't be written")


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
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers are this environment; nothing is built for them
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if address:
                ray.init(address=address, **quiet)
                return
            ray.init(
                address="local",
                num_cpus=machine.cpus,
                num_gpus=int(machine.gpus),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                _temp_dir=str(folder),
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
        raise ResourceError(f"can't reach {where}: {str(error).splitlines()[0]}") from error


def _reached() -> Machine:
    resources = ray.cluster_resources()
    return Machine(int(resources.get("CPU", 0)), resources.get("GPU", 0.0), gpu_gib=GPU_GIB_PER_TRIAL)


@contextmanager
def _environment(settings: Mapping[str, str], remove: tuple[str, ...]) -> Generator[None]:
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
